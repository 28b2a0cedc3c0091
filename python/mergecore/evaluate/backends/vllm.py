"""Answers by vLLM, in this process.

In this process, since its engine's own processes hide why they fail ("Engine core initialization
failed"), and since weights can then be given to a running engine.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import Any

from mergecore.errors import MergecoreError, ModelError
from mergecore.evaluate.backends import NotTakenError, Refused, Reply, Request, Tell, need
from mergecore.evaluate.chat import Chat, TemplateRefusalError
from mergecore.evaluate.decoding import Decoding
from mergecore.merging import MergeReport, PathLike
from mergecore.recipe import Recipe
from mergecore.streaming import Stream, stream

_CHUNK = 256
"""Prompts that are handed over at a time: what a kill costs at most."""
_KV_CACHE = 1 << 30
"""On a CPU vLLM would take 92 % of the memory for its cache, or refuse to start."""
_FORMAT = "mergecore"
"""What vLLM calls the format of a model that is merged into it."""
_PROBE = 16
"""Tokens of the prompt by which swapped weights are known."""
_NOISE = 1e-2
"""What log-probabilities of equal weights may differ by, where kernels are not deterministic."""
_DECIDING = {
    "config.json": {"_name_or_path", "transformers_version", "dtype", "torch_dtype"},
    "tokenizer.json": {"truncation", "padding"},
}
"""Files that an engine is started on, and what in them does not matter."""
_VOCABULARIES = (
    *("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "merges.txt"),
    *("added_tokens.json", "tekken.json"),
)
"""Of tokenizers that may have no tokenizer.json."""


class VllmEngine:
    """A model in a vLLM engine, whose weights can be changed while it runs."""

    name = "vllm"

    def __init__(
        self,
        folder: Path,
        reference: str,
        *,
        template: str | None = None,
        dtype: str | None = None,
        context: int | None = None,
        merged: Stream | None = None,
        **engine: Any,
    ) -> None:
        """Starts an engine.

        Args:
            folder: Where the model is.
            reference: What messages call it.
            template: As in `Chat`.
            dtype: Of the arithmetic; the weights' own if None.
            context: The longest prompt and answer together; the model's own if None.
            merged: Its weights, of torch, if the folder has none.
            **engine: Further arguments of `vllm.LLM`.

        Raises:
            RecipeError: vLLM is not installed.
            ModelError: It does not take the model.
        """
        need("vllm", "vllm")
        self.reference, self.folder = reference, folder
        self.chat = Chat(folder, reference, template)
        own: dict[str, Any] = {"dtype": dtype, "context": context, **engine}
        self.llm = engine_of(folder, reference, merged=merged, **own)
        self.context = int(self.llm.llm_engine.model_config.max_model_len)
        self._seen: dict[str, list[float]] = {}
        self._now: tuple[str, list[float]] | None = None
        if merged is not None:
            self._note(merged)

    def swap(self, recipe: PathLike | Recipe | Stream) -> MergeReport:
        """Merges into the running engine: nothing is written, and nothing started again.

        That vLLM has taken the weights is seen from the log-probabilities of a fixed prompt: other
        weights give others, and weights that were there before give theirs again.

        Args:
            recipe: A recipe of one document as `mergecore.stream` takes it, or such a stream of
                torch tensors. Config and vocabulary must be those of the engine's model.

        Returns:
            The report of the merge.

        Raises:
            ModelError: Config or tokenizer are other than the engine's model has; its weights are
                as they were then.
            NotTakenError: vLLM has not taken the weights; the engine is of no more use.
            MergecoreError: As `mergecore.stream` does, and while it is read.
        """
        merged = recipe if isinstance(recipe, Stream) else stream(recipe, framework="pt")
        check_alike(self.folder, merged, self.reference)
        before = self._now
        self._now = None  # half swapped, it is neither
        try:
            lacking = self.llm.collective_rpc(_take, args=(merged,))[0]
            self.llm.reset_prefix_cache()
        except MergecoreError:
            raise
        except Exception as error:  # of vLLM's model code: a name, a shape, a kernel
            reason = " ".join(str(error).split())[:300]
            raise NotTakenError(
                f"{self.reference}: vLLM has not taken the weights: {reason}"
            ) from error
        if lacking:
            raise NotTakenError(
                f"{self.reference}: vLLM got no weights for {lacking[0]}"
                f" ({len(lacking)} in all): merge into a folder, and start an engine on it"
            )
        self._note(merged)
        self._check_taken(before)
        assert merged.report is not None
        return merged.report

    def _note(self, merged: Stream) -> None:
        assert merged.digest is not None  # the stream was read to its end
        self._now = merged.digest, self._probe()

    def _probe(self) -> list[float]:
        """Log-probabilities of the tokens of a fixed prompt, spread over the vocabulary."""
        rows = int(self.llm.llm_engine.model_config.get_vocab_size())
        length = min(_PROBE, self.context - 1)
        ids = [(number + 1) * rows // (length + 1) for number in range(length)]
        from vllm import SamplingParams

        settings = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, seed=0)
        prompt: Any = {"prompt_token_ids": ids}
        found = self.llm.generate([prompt], [settings], use_tqdm=False)[0].prompt_logprobs
        return [float(at[token].logprob) for token, at in zip(ids, found, strict=True) if at]

    def _check_taken(self, before: tuple[str, list[float]] | None) -> None:
        assert self._now is not None
        digest, found = self._now
        known = self._seen.setdefault(digest, found)
        if not _close(known, found):
            raise NotTakenError(
                f"{self.reference}: vLLM was given weights that it had before, and finds other"
                " log-probabilities with them: start it again"
            )
        if before is not None and before[0] != digest and str(before[1]) == str(found):
            raise NotTakenError(
                f"{self.reference}: vLLM was given other weights, and finds the same"
                " log-probabilities with them: start it again, on a folder"
            )

    def answer(self, requests: Sequence[Request], decoding: Decoding, tell: Tell) -> None:
        """Answers every request, some hundred at a time."""
        ready = []
        for request in requests:
            try:
                ids = self.chat.tokens(request.messages)
            except TemplateRefusalError as error:
                tell(Refused(request.id, str(error)))
                continue
            room = min(decoding.max_tokens, self.context - len(ids))
            # One prompt that is too long would be an error for the whole call.
            if room < 1:
                tell(Refused(request.id, f"{len(ids)} tokens, and the model takes {self.context}"))
            else:
                ready.append((request, ids, room))
        for first in range(0, len(ready), _CHUNK):
            self._answer(ready[first : first + _CHUNK], decoding, tell)

    def _answer(
        self, chunk: list[tuple[Request, list[int], int]], decoding: Decoding, tell: Tell
    ) -> None:
        answers = self.llm.generate(
            [{"prompt_token_ids": ids} for _, ids, _ in chunk],
            [_sampling(decoding, request.id, room) for request, _, room in chunk],
            use_tqdm=False,
        )
        for (request, ids, _), answer in zip(chunk, answers, strict=True):
            made = answer.outputs[0]
            finish = "length" if made.finish_reason == "length" else "stop"
            tokens = list(made.token_ids)
            tell(Reply(request.id, self.chat.text(tokens), finish, len(ids), len(tokens)))


def engine_of(
    folder: Path,
    reference: str,
    *,
    dtype: str | None,
    context: int | None,
    merged: Stream | None = None,
    **engine: Any,
) -> Any:
    """A `vllm.LLM` of a model.

    Raises:
        ModelError: vLLM does not take it.
        MergecoreError: As `merged` says while it is read.
    """
    _prepare_environment()
    importing = Thread(target=_import)
    importing.start()
    importing.join()
    from vllm import LLM

    if "kv_cache_memory_bytes" not in engine and _on_cpu():
        engine["kv_cache_memory_bytes"] = _KV_CACHE
    if _on_cpu():
        engine.setdefault("enforce_eager", True)  # compiling takes longer than most answers
    if merged is not None:
        engine["load_format"] = _loading_from(merged)
    try:
        return LLM(
            model=str(folder),
            dtype=dtype or "auto",
            max_model_len=context,
            trust_remote_code=False,
            disable_log_stats=True,
            **engine,
        )
    except MergecoreError:
        raise
    except Exception as error:  # of its own, of torch, of pydantic: all mean the same here
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{reference}: vLLM does not take it: {reason}") from error


def _import() -> None:
    """Imports vLLM, in a thread: what it imports on the way keeps the frames of whoever asked for
    it, and with them an engine that was to be let go of."""
    with contextlib.suppress(Exception):  # the import that is waited for says what is wrong
        from vllm import LLM  # noqa: F401


def _loading_from(merged: Stream) -> str:
    """The name of a format that vLLM loads a model in whose weights come from a stream.

    (Its format `dummy`, with the weights swapped in later, was tried first: the scales of its
    caches, which no checkpoint has, keep the random values that it gives everything.)
    """
    from vllm.model_executor.model_loader import BaseModelLoader, register_model_loader

    class Loader(BaseModelLoader):  # type: ignore[misc]
        def download_model(self, model_config: Any) -> None:
            pass

        def load_weights(self, model: Any, model_config: Any) -> None:
            wanted = {name for name, _ in model.named_parameters()}
            given = model.load_weights(iter(merged))
            if given is not None and (lacking := sorted(wanted - given)):
                raise ModelError(f"the merge lacks {lacking[0]}, which its config asks for")

    register_model_loader(_FORMAT)(Loader)
    return _FORMAT


def check_alike(folder: Path, merged: Stream, reference: str) -> None:
    """Refuses a merge that is another model than a folder's, whatever its weights are.

    Raises:
        ModelError: Config or vocabulary differ.
    """
    files = dict(merged.side_files())
    for name, idle in _DECIDING.items():
        ours, theirs = _read(folder / name), _read(files.get(name))
        own = {key for key in {*ours, *theirs} - idle if ours.get(key) != theirs.get(key)}
        if own:
            raise ModelError(
                f"{reference}: the merge has another {name} ({min(own)}): another engine is needed"
            )

    for name in _VOCABULARIES:
        if _bytes(folder / name) != _bytes(files.get(name)):
            raise ModelError(f"{reference}: the merge has another {name}: another engine is needed")


def _bytes(file: Path | str | bytes | None) -> bytes | None:
    if file is None or isinstance(file, bytes):
        return file
    return Path(file).read_bytes() if Path(file).is_file() else None


def _read(file: Path | str | bytes | None) -> dict[str, Any]:
    content = _bytes(file)
    found: dict[str, Any] = {} if content is None else json.loads(content)
    return found


def _take(worker: Any, merged: Stream) -> list[str]:
    """In the engine: takes the weights, and tells the parameters that got none.

    vLLM itself only warns of those, and what it says is not heard at its level of logging.
    """
    model = worker.model_runner.get_model()
    own, loaded = model.load_weights, []

    def noted(weights: Any) -> Any:
        loaded.append(own(weights))
        return loaded[-1]

    wanted = {name for name, _ in model.named_parameters()}
    model.load_weights = noted
    try:
        worker.reload_weights(weights_iterator=iter(merged))
    finally:
        del model.load_weights
    _process_tied(model)
    given = loaded[0] if loaded else set()
    return [] if given is None else sorted(wanted - given)


def _process_tied(model: Any) -> None:
    """Layers that share a weight make what they need of it again: all but one reload passes over.

    (vLLM 0.32 on a CPU: a head tied to the embedding went on with the packed weights of before.
    Log-probabilities changed with every swap, and came back, and were wrong.)
    """
    owners: dict[int, list[Any]] = {}
    for layer in model.modules():
        for parameter in layer.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(layer)
    for layers in owners.values():
        for layer in layers if len(layers) > 1 else []:
            method: Any = getattr(layer, "quant_method", None)
            if hasattr(method, "process_weights_after_loading"):
                method.process_weights_after_loading(layer)


def _close(one: list[float], other: list[float]) -> bool:
    """Equal as far as kernels are whose sums depend on the batch."""
    return all(
        math.isclose(a, b, rel_tol=_NOISE, abs_tol=_NOISE) or (math.isnan(a) and math.isnan(b))
        for a, b in zip(one, other, strict=True)
    )


def _prepare_environment() -> None:
    """Settings that vLLM reads from the environment when it is imported; what is set stays."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    # Else it binds its threads to all cores but one.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")


def _on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def _sampling(decoding: Decoding, identity: str, room: int) -> Any:
    """All of it said: what is left out vLLM takes from elsewhere (16 tokens at most, for one)."""
    from vllm import SamplingParams

    return SamplingParams(
        n=1,
        temperature=decoding.temperature,
        top_k=decoding.top_k,
        top_p=decoding.top_p,
        presence_penalty=decoding.presence_penalty,
        frequency_penalty=decoding.frequency_penalty,
        repetition_penalty=1.0,
        seed=decoding.seed_of(identity),
        max_tokens=room,
    )
