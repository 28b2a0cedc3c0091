"""Answers by transformers, in this process: the backend that is always there."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mergecore.errors import ModelError
from mergecore.evaluate.backends import (
    Refused,
    Reply,
    Request,
    Tell,
    Weights,
    device_of,
    need,
    no_bars,
    why_not,
)
from mergecore.evaluate.chat import Chat, TemplateRefusalError
from mergecore.evaluate.decoding import Decoding

if TYPE_CHECKING:
    import torch

DTYPES = ("bfloat16", "float16", "float32")

Load: TypeAlias = Callable[[str | None], Any]
"""Gives a model, its weights in a dtype, or in their own."""


class Transformers:
    """A model in memory; encoder-decoder models too."""

    name = "transformers"

    def __init__(
        self,
        folder: Path,
        reference: str,
        *,
        template: str | None = None,
        dtype: str | None = None,
        device: str | None = None,
        batch_size: int = 8,
        model: Load | None = None,
    ) -> None:
        """Loads a model.

        Args:
            folder: Where it is.
            reference: What messages call it.
            template: As in `Chat`.
            dtype: Of the arithmetic; the weights' own if None.
            device: For example `cuda:1`; a GPU if there is one, if None.
            batch_size: How many answers are made at once. It changes no answer but by rounding.
            model: Gives the model, in the dtype that it is told; if None it is in the folder.

        Raises:
            RecipeError: A package is not installed.
            ModelError: The model cannot be loaded.
        """
        need("torch", "generate")
        need("transformers", "generate")
        no_bars()
        self.chat = Chat(folder, reference, template)
        self.device = device_of(device)
        self.batch_size = batch_size
        self.model: Any = loaded(folder, reference, dtype) if model is None else model(dtype)
        self.model.to(self.device).eval()
        config = self.model.config
        self.is_encoder_decoder = bool(config.is_encoder_decoder)
        text = getattr(config, "text_config", None) or config
        self.context: int | None = getattr(text, "max_position_embeddings", None)
        self.ends = _ends(self.model, self.chat.tokenizer)

    def answer(self, requests: Sequence[Request], decoding: Decoding, tell: Tell) -> None:
        """Answers every request, the shortest prompts first."""
        waiting = []
        for request in requests:
            try:
                ids = self.chat.tokens(request.messages)
            except TemplateRefusalError as error:
                tell(Refused(request.id, str(error)))
                continue
            room = decoding.max_tokens
            if self.context is not None and not self.is_encoder_decoder:
                room = min(room, self.context - len(ids))
            if room < 1:
                tell(Refused(request.id, f"{len(ids)} tokens, and the model takes {self.context}"))
            else:
                waiting.append((room, ids, request))
        waiting.sort(key=lambda entry: (-entry[0], len(entry[1])))
        for room, batch in _batches(waiting, self.batch_size):
            self._answer(batch, room, decoding, tell)

    def _answer(
        self, batch: list[tuple[list[int], Request]], room: int, decoding: Decoding, tell: Tell
    ) -> None:
        import torch
        from transformers import GenerationConfig, LogitsProcessorList

        ids, mask = _padded([ids for ids, _ in batch], self.chat.tokenizer)
        own = self.model.generation_config
        # Nothing of the model's own settings but where text begins and ends: a repetition penalty
        # in generation_config.json would be another decoding.
        settings = GenerationConfig(
            max_new_tokens=room,
            do_sample=False,
            eos_token_id=sorted(self.ends) or None,
            pad_token_id=self.chat.tokenizer.pad_token_id or 0,
            decoder_start_token_id=own.decoder_start_token_id,
            bos_token_id=own.bos_token_id,
        )
        start = 1 if self.is_encoder_decoder else ids.shape[1]
        seeds = [decoding.seed_of(request.id) for _, request in batch]
        chooser = sampler(decoding, seeds, start)
        self.model.generation_config = settings
        try:
            with torch.inference_mode():
                made = self.model.generate(
                    input_ids=ids.to(self.device),
                    attention_mask=mask.to(self.device),
                    generation_config=settings,
                    logits_processor=LogitsProcessorList([chooser]),
                )
        finally:
            self.model.generation_config = own
        replies = []
        for (prompt, request), row in zip(batch, made[:, start:].tolist(), strict=True):
            length = next((i for i, token in enumerate(row) if token in self.ends), None)
            answer = row if length is None else row[: length + 1]
            replies.append(
                Reply(
                    request.id,
                    self.chat.text(answer),
                    "length" if length is None else "stop",
                    len(prompt),
                    len(answer),
                )
            )
        tell(*replies)


def loaded(
    folder: Path, reference: str, dtype: str | None = None, weights: Weights | None = None
) -> Any:
    """A model of transformers that writes, on the CPU.

    Args:
        folder: Where it is, or where its config is.
        reference: What messages call it.
        dtype: Of its weights; their own if None.
        weights: Its tensors by name, of torch, if the folder has none. They are all in memory.

    Raises:
        ModelError: It is no model that writes, or its weights are not those of its config.
    """
    import torch
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
        _check_writes(config, reference)
        kind = (
            transformers.AutoModelForSeq2SeqLM
            if config.is_encoder_decoder
            else transformers.AutoModelForCausalLM
        )
        if weights is None:
            return kind.from_pretrained(str(folder), dtype=dtype or "auto", trust_remote_code=False)
        with torch.device("meta"):
            # Auto classes take no state dict.
            exactly = type(kind.from_config(config, trust_remote_code=False))
        # transformers' own way from a checkpoint's names and dtypes to a model's.
        given = {"state_dict": dict(weights), "dtype": dtype or "auto", "output_loading_info": True}
        model, about = exactly.from_pretrained(None, config=config, **given)
        if (folder / "generation_config.json").is_file():
            own = transformers.GenerationConfig.from_pretrained(str(folder))
            model.generation_config = own
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{reference}: cannot be loaded: {why_not(error)}") from error
    if lost := sorted(about["missing_keys"]):
        raise ModelError(f"{reference}: the merge lacks {lost[0]}, which its config asks for")
    return model


def sampler(decoding: Decoding, seeds: Sequence[int], start: int) -> Any:
    """A logits processor after which the likeliest token is the chosen one.

    Penalties first, then temperature, top-k and top-p, as vLLM has them. The draw is the maximum of
    log-probabilities plus Gumbel noise (Gumbel 1954), which comes from a generator a row: so an
    answer depends on its own seed alone, and not on who else is in the batch.

    Args:
        decoding: The parameters.
        seeds: One for each row of the batch.
        start: The place of the answer's first token.
    """
    import torch
    from transformers import LogitsProcessor

    class Sampler(LogitsProcessor):  # type: ignore[misc]
        def __init__(self) -> None:
            self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
            self.counts: torch.Tensor | None = None

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            scores = scores.float()
            if decoding.presence_penalty or decoding.frequency_penalty:
                scores = self.penalized(input_ids, scores)
            if decoding.greedy:
                return scores
            scores = narrowed(scores / decoding.temperature, decoding.top_k, decoding.top_p)
            width = scores.shape[-1]
            drawn = [torch.rand(width, generator=g, dtype=torch.float64) for g in self.generators]
            noise = torch.stack(drawn).clamp_min(1e-300).log().neg().log().neg()
            return scores + noise.to(scores.device)

        def penalized(self, input_ids: Any, scores: Any) -> Any:
            if self.counts is None:
                self.counts = torch.zeros_like(scores)
            if input_ids.shape[1] > start:
                last = input_ids[:, -1:]
                self.counts.scatter_add_(1, last, torch.ones_like(last, dtype=scores.dtype))
            taken = decoding.frequency_penalty * self.counts
            return scores - taken - decoding.presence_penalty * (self.counts > 0)

    return Sampler()


def narrowed(scores: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """Leaves the `top_k` likeliest tokens, and of these the fewest whose shares reach `top_p`.

    Args:
        scores: (rows, vocabulary), float.
        top_k: 0 for all.
        top_p: 1 for all.

    Returns:
        The scores, -inf for the others.
    """
    import torch

    if 0 < top_k < scores.shape[-1]:
        least = scores.topk(top_k, dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    if top_p < 1:
        ordered, places = scores.sort(dim=-1, descending=True)
        shares = ordered.softmax(dim=-1)
        beyond = shares.cumsum(dim=-1) - shares >= top_p  # what stands before it is enough
        dropped = torch.zeros_like(beyond).scatter(1, places, beyond)
        scores = scores.masked_fill(dropped, -torch.inf)
    return scores


def _batches(
    waiting: list[tuple[int, list[int], Request]], size: int
) -> Iterator[tuple[int, list[tuple[list[int], Request]]]]:
    """Prompts that have equal room for their answers, so many at a time."""
    for room, group in itertools.groupby(waiting, key=lambda entry: entry[0]):
        entries = [(ids, request) for _, ids, request in group]
        for first in range(0, len(entries), size):
            yield room, entries[first : first + size]


def _padded(rows: list[list[int]], tokenizer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts of one length, filled up before their beginning; and which places count."""
    import torch

    width = max(map(len, rows))
    filling = tokenizer.pad_token_id or 0
    ids = [[filling] * (width - len(row)) + row for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end an answer, by the model's settings and its tokenizer."""
    stated = model.generation_config.eos_token_id
    ends = stated if isinstance(stated, list) else [stated]
    return frozenset(int(end) for end in [*ends, tokenizer.eos_token_id] if end is not None)


def _check_writes(config: Any, reference: str) -> None:
    """A classifier would be given an output head of random weights, and babble."""
    architecture = (getattr(config, "architectures", None) or [""])[0]
    if architecture.endswith("Classification"):
        raise ModelError(f"{reference}: is a {architecture}, and writes nothing; see `reward`")
