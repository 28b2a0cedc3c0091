"""How likely does a model find an answer? The log-probability of its tokens, given what precedes.

Context and answer are cut into tokens together, as a model has read them, and scored from the first
token that any two answers could differ in: so all answers of one item are given the same beginning.
Of an encoder-decoder model the context goes into the encoder, and the answer with its end token is
what the decoder would have to write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mergecore.evaluate.backends import Refused
from mergecore.evaluate.backends.transformers import Transformers


@dataclass(frozen=True)
class Options:
    """A context, and the answers that it may have."""

    id: str
    context: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Likelihoods:
    """Of each answer the sum of its tokens' log-probabilities."""

    id: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class _Text:
    """The tokens of one answer after its context."""

    given: list[int]
    """What precedes: of a decoder its beginning, else the encoder's input."""
    asked: list[int]


def likelihoods(
    model: Transformers,
    items: Sequence[Options],
    tell: Callable[..., None],
    *,
    chat: bool = False,
) -> None:
    """Scores every answer of every item, the shortest first.

    Args:
        model: Decoder-only or encoder-decoder.
        items: What is asked.
        tell: Called with the `Likelihoods` of a batch as soon as they are there, or with the
            `Refused` of an item.
        chat: The context is a user's message in the model's chat template.
    """
    ready = []
    for item in items:
        texts = _texts(model, item, chat)
        length = max(_places(model, text) for text in texts)
        if model.context is not None and length > model.context:
            tell(Refused(item.id, f"{length} tokens, and the model takes {model.context}"))
        else:
            ready.append((length, item, texts))
    ready.sort(key=lambda entry: entry[0])
    # Whole items to a batch, at least one.
    size = max(1, model.batch_size // max((len(item.answers) for _, item, _ in ready), default=1))
    for first in range(0, len(ready), size):
        batch = ready[first : first + size]
        values = iter(_scored(model, [text for _, _, texts in batch for text in texts]))
        tell(*(Likelihoods(i.id, tuple(next(values) for _ in texts)) for _, i, texts in batch))


def _places(model: Transformers, text: _Text) -> int:
    if model.is_encoder_decoder:
        return max(len(text.given), len(text.asked))
    return len(text.given) + len(text.asked) - 1  # the last token is predicted, not read


def _texts(model: Transformers, item: Options, chat: bool) -> list[_Text]:
    tokenizer = model.chat.tokenizer
    if chat:
        given = model.chat.tokens([{"role": "user", "content": item.context}])
    elif model.is_encoder_decoder:
        given = list(tokenizer(item.context)["input_ids"])
    else:
        return _together(tokenizer, item)
    ends = model.is_encoder_decoder
    return [_Text(given, _answer(tokenizer, answer, ends)) for answer in item.answers]


def _answer(tokenizer: Any, answer: str, ends: bool) -> list[int]:
    ids = list(tokenizer(answer, add_special_tokens=False)["input_ids"])
    end = tokenizer.eos_token_id
    return [*ids, end] if ends and end is not None else ids


def _together(tokenizer: Any, item: Options) -> list[_Text]:
    """Cut after what context and answers have in common: a token may span the seam."""
    whole = [list(tokenizer(f"{item.context} {answer}")["input_ids"]) for answer in item.answers]
    end = tokenizer.eos_token_id
    whole = [ids[:-1] if end is not None and ids[-1] == end else ids for ids in whole]
    context = list(tokenizer(item.context)["input_ids"])
    shared = min(_alike(context, ids) for ids in whole)
    start = max(1, shared)  # nothing precedes the first token
    return [_Text(ids[:start], ids[start:]) for ids in whole]


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _scored(model: Transformers, texts: Sequence[_Text]) -> list[float]:
    import torch

    with torch.inference_mode():
        if model.is_encoder_decoder:
            logits, first = _decoded(model, texts), [0] * len(texts)
        else:
            # Padding behind the text: no token sees what follows it.
            ids, mask = _padded([[*text.given, *text.asked[:-1]] for text in texts])
            logits = model.model(
                input_ids=ids.to(model.device), attention_mask=mask.to(model.device)
            ).logits
            first = [len(text.given) - 1 for text in texts]
        values = []
        for row, start, text in zip(logits, first, texts, strict=True):
            picked = row[start : start + len(text.asked)].float().log_softmax(-1)
            asked = torch.tensor(text.asked, device=picked.device)
            values.append(float(picked.gather(1, asked[:, None]).double().sum()))
    return values


def _decoded(model: Transformers, texts: Sequence[_Text]) -> Any:
    """The decoder's logits: at each place those of the answer's token there."""
    ids, mask = _padded([text.given for text in texts])
    config = model.model.config
    start = model.model.generation_config.decoder_start_token_id
    start = getattr(config, "decoder_start_token_id", None) if start is None else start
    begun, _ = _padded([[start or 0, *text.asked[:-1]] for text in texts])
    return model.model(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        decoder_input_ids=begun.to(model.device),
    ).logits


def _padded(rows: Sequence[list[int]]) -> tuple[Any, Any]:
    import torch

    width = max(map(len, rows))
    ids = [row + [0] * (width - len(row)) for row in rows]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)
