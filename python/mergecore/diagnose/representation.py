"""What do models make of the same texts? Their hidden states, mean over tokens, by transformers."""

from __future__ import annotations

import contextlib
import gc
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mergecore import merging
from mergecore.diagnose.bounds import Floats
from mergecore.errors import ModelError, RecipeError
from mergecore.evaluate import rows
from mergecore.models import hub
from mergecore.models.reference import split


def of_models(
    models: Sequence[str],
    probe: str | Path,
    *,
    layer: int,
    dtype: str | None,
    device: str | None,
    batch_size: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[Floats, list[str]]:
    """The hidden states of every model on every text, models × texts × dimension; and notes.

    One model at a time is in memory. See `mergeability` for the arguments and errors.
    """
    texts = _texts(probe)
    for model in models:  # what is not to be had is said before the first is read
        hub.locate_both(model)
    found: list[Floats] = []
    read: list[list[list[int]]] = []
    for number, model in enumerate(models):
        done = number * len(texts)

        def tell(count: int, done: int = done) -> None:
            if progress is not None:
                progress(done + count, len(models) * len(texts))

        with _placed(model) as folder:
            states, ids = _of_model(folder, model, texts, layer, dtype, device, batch_size, tell)
        read.append(ids)
        if found and states.shape != found[0].shape:
            raise ModelError(
                f"{model}: its hidden states have {states.shape[1]} dimensions, and those of"
                f" {models[0]} {found[0].shape[1]}: only models of one size can be merged"
            )
        found.append(states)
        gc.collect()  # two models are not to be in memory at once
    others = [model for model, ids in zip(models, read, strict=True) if ids != read[0]]
    notes = [
        f"{', '.join(others)} and {models[0]} read the texts as different tokens: each with its own"
        " tokenizer, and a merge has only one"
    ]
    return np.stack(found), notes if others else []


@contextlib.contextmanager
def _placed(model: str) -> Iterator[Path]:
    """Where a model is; with an adapter on it, a folder of the two merged, while it is needed."""
    if split(model)[1] is None:
        yield hub.locate(model)
        return
    with tempfile.TemporaryDirectory(prefix="mergecore-") as folder:
        recipe = {"merge_method": "passthrough", "models": [{"model": model}]}
        merging.run(recipe, Path(folder) / "merged")
        yield Path(folder) / "merged"


def _texts(probe: str | Path) -> list[tuple[str, str]]:
    entries = rows.read(probe, "text")
    for number, row in enumerate(entries, start=1):
        if not isinstance(row["text"], str) or not row["text"].strip():
            raise RecipeError(f"{probe}: row {number}: its text is no text, or empty")
    return [(row["id"], row["text"]) for row in entries]


def _of_model(
    folder: Path,
    reference: str,
    texts: Sequence[tuple[str, str]],
    layer: int,
    dtype: str | None,
    device: str | None,
    batch_size: int,
    tell: Callable[[int], None],
) -> tuple[Floats, list[list[int]]]:
    from mergecore.evaluate.backends.transformers import Transformers

    model = Transformers(
        folder, reference, template="none", dtype=dtype, device=device, batch_size=batch_size
    )
    ids = [list(model.chat.tokenizer(text, verbose=False)["input_ids"]) for _, text in texts]
    for (name, _), tokens in zip(texts, ids, strict=True):
        if not tokens:
            raise ModelError(f"{reference}: its tokenizer makes nothing of the text {name!r}")
        if model.context is not None and len(tokens) > model.context:
            raise ModelError(
                f"{reference}: the text {name!r} has {len(tokens):,} tokens, and the model takes"
                f" {model.context:,}: shorten it, or leave it out of the probe file"
            )
    states: list[Floats | None] = [None] * len(ids)
    # The shortest first, so that little is padded.
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        for i, state in zip(batch, _means(model, [ids[i] for i in batch], layer), strict=True):
            states[i] = state
        tell(first + len(batch))
    found = np.stack([state for state in states if state is not None])
    if not np.isfinite(found).all():
        raise ModelError(
            f"{reference}: its hidden states are not finite; is a wider --dtype, float32, needed?"
        )
    return found, ids


def _means(model: Any, ids: list[list[int]], layer: int) -> Floats:
    import torch

    width = max(map(len, ids))
    # Padding behind the text: no token of a decoder sees what follows it.
    padded = torch.tensor([row + [0] * (width - len(row)) for row in ids], device=model.device)
    mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in ids], device=model.device)
    inputs = {"input_ids": padded, "attention_mask": mask}
    with torch.inference_mode():
        if model.is_encoder_decoder:
            # The decoder reads the same text, after its start token.
            start = model.model.generation_config.decoder_start_token_id
            start = model.model.config.decoder_start_token_id if start is None else start
            begun = torch.full_like(padded[:, :1], 0 if start is None else start)
            shifted = torch.cat([begun, padded[:, :-1]], dim=1)
            answer = model.model.base_model(
                **inputs, decoder_input_ids=shifted, output_hidden_states=True
            )
            states = answer.decoder_hidden_states
        else:
            # The last is at hand anyway; for another, the model keeps those of all layers.
            answer = model.model.base_model(**inputs, output_hidden_states=layer != -1)
            states = (answer.last_hidden_state,) if layer == -1 else answer.hidden_states
    if not -len(states) <= layer < len(states):
        raise RecipeError(
            f"layer {layer}: there are {len(states)}, from 0 (the embeddings) to {len(states) - 1}"
        )
    counted = mask[:, :, None]
    chosen = states[layer].float() * counted
    return np.asarray((chosen.sum(dim=1) / counted.sum(dim=1)).cpu().numpy(), np.float64)
