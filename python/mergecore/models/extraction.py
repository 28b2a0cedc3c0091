"""Which LoRA adapter comes closest to what a fine-tune changed?

Each changed matrix is replaced by its best approximation of the rank asked for (truncated SVD, by
random projection where the matrix is large); what is no matrix is saved whole.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mergecore.errors import ModelError, OutputExistsError, RecipeError
from mergecore.models import weights
from mergecore.models.weights import Floats, Stored, Weights

_PREFIX = "base_model.model."
_OVERSAMPLED = 16
_POWERS = 4


class Part(NamedTuple):
    """What became of one changed tensor."""

    name: str
    how: str
    """`lora`, `whole`, or `left out`."""
    rank: int | None
    change: float
    """‖Δ‖"""
    rest: float
    """‖Δ − what the adapter makes of it‖"""


def extract(
    model: Path,
    base: Path,
    out: Path,
    *,
    rank: int,
    base_name: str,
    seed: int = 42,
    step: Callable[[], None] = lambda: None,
) -> list[Part]:
    """Writes the adapter that leads from `base` as near to `model` as its rank allows.

    Args:
        model: The fine-tune: a folder or file.
        base: What it was tuned from.
        out: The folder to make; it appears when it is whole.
        rank: The rank of every product; of smaller matrices their own.
        base_name: How adapter_config.json names the base.
        seed: Of the random projections.
        step: Called after each tensor.

    Returns:
        What became of each tensor that differs.

    Raises:
        RecipeError: The rank is no rank.
        ModelError: The two do not fit, or do not differ, or hold what is not finite.
        OutputExistsError: `out` is there.
    """
    if rank < 1:
        raise RecipeError(f"the rank must be 1 or more, not {rank}")
    if out.exists():
        raise OutputExistsError(f"{out}: exists; choose another --out, or delete it")
    tuned, start = Weights(model), Weights(base)
    _check_fit(tuned, start, model, base)
    transposed = _is_transposed(start)
    tensors: dict[str, Stored] = {}
    parts: list[Part] = []
    ranks: dict[str, int] = {}
    saved: list[str] = []
    for name in start.names:
        before, after = start.read(name), tuned.read(name)
        step()
        if before.dtype == after.dtype and before.raw == after.raw:
            continue
        if not start.is_float(name):
            raise ModelError(f"tensor {name} ({before.dtype}) differs, and no adapter can say so")
        delta = after.values - before.values
        if not np.isfinite(delta).all():
            raise ModelError(f"tensor {name}: its change is not finite everywhere")
        change = float(np.linalg.norm(delta))
        module, _, kind = name.rpartition(".")
        if kind == "weight" and delta.ndim == 2 and min(delta.shape) > 0:
            ranks[module] = min(rank, *delta.shape)
            left, right = _factors(delta, ranks[module], seed)
            rest = float(np.linalg.norm(delta - left @ right))
            tensors |= _named(module, left, right, transposed)
            parts.append(Part(name, "lora", ranks[module], change, rest))
        elif kind == "bias" and len(_shape_of(start, f"{module}.weight")) == 2:
            # peft gives a wrapped layer no other bias.
            parts.append(Part(name, "left out", None, change, change))
        else:
            saved.append(module)
            parts.append(Part(name, "whole", None, change, 0.0))
    if not tensors and not saved:
        raise ModelError(f"{model} does not differ from {base} in anything that an adapter can say")
    # peft saves a module with all that is in it.
    for name in start.names:
        if name.rpartition(".")[0] in saved:
            tensors[_PREFIX + name] = tuned.read(name)
    config = _config(rank, ranks, sorted(set(saved)), transposed, base_name)
    _write(out, tensors, config)
    return parts


def _write(out: Path, tensors: dict[str, Stored], config: dict[str, Any]) -> None:
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weights.save(partial / "adapter_model.safetensors", tensors)
    text = json.dumps(config, indent=2, sort_keys=True)
    (partial / "adapter_config.json").write_text(text + "\n", "utf-8")
    os.rename(partial, out)


def _config(
    rank: int, ranks: dict[str, int], saved: list[str], transposed: bool, base_name: str
) -> dict[str, Any]:
    # Alpha is the rank everywhere: a scale of 1.
    own = {re.escape(module): r for module, r in ranks.items() if r != rank}
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "rank_pattern": own,
        "alpha_pattern": own,
        "target_modules": list(ranks),
        "modules_to_save": saved or None,
        "fan_in_fan_out": transposed,
        "use_rslora": False,
        "use_dora": False,
        "bias": "none",
        "init_lora_weights": True,
    }


def _named(module: str, left: Floats, right: Floats, transposed: bool) -> dict[str, Stored]:
    """The factors of a weight, left (rows, r) and right (r, columns), under PEFT's names."""
    last = module.rpartition(".")[2]
    if last in ("wte", "wpe", "shared") or re.match(r"embed(?!_out)|.*embeddings?$", last):
        named = {"lora_embedding_A": left.T, "lora_embedding_B": right.T}
    elif transposed and last not in ("lm_head", "embed_out", "score", "classifier"):
        named = {"lora_A.weight": left.T, "lora_B.weight": right.T}
    else:
        named = {"lora_A.weight": right, "lora_B.weight": left}
    return {f"{_PREFIX}{module}.{end}": Stored.of(factor) for end, factor in named.items()}


def _factors(delta: Floats, rank: int, seed: int) -> tuple[Floats, Floats]:
    """The best left @ right of that rank, both of the same size."""
    width = rank + _OVERSAMPLED
    if min(delta.shape) <= 4 * width:
        u, s, v = np.linalg.svd(delta, full_matrices=False)
    else:
        # Halko, Martinsson and Tropp (2011), algorithm 4.4: the range of the powers of ΔΔᵀ on
        # random vectors, made orthogonal at each step so that small singular values survive.
        noise = np.random.default_rng(seed).standard_normal((delta.shape[1], width), np.float32)
        span, _ = np.linalg.qr(delta @ noise)
        for _ in range(_POWERS):
            back, _ = np.linalg.qr(delta.T @ span)
            span, _ = np.linalg.qr(delta @ back)
        u, s, v = np.linalg.svd(span.T @ delta, full_matrices=False)
        u = span @ u
    root = np.sqrt(s[:rank])
    return u[:, :rank] * root, root[:, None] * v[:rank]


def _is_transposed(start: Weights) -> bool:
    """Whether weights are stored as (in, out): a bias is as long as what comes out."""
    for name in start.names:
        if name.endswith(".bias"):
            shape = _shape_of(start, name.removesuffix("bias") + "weight")
            if len(shape) == 2 and shape[0] != shape[1]:
                return start.shape(name) == shape[1:]
    return False


def _shape_of(start: Weights, name: str) -> tuple[int, ...]:
    return start.shape(name) if name in start.names else ()


def _check_fit(tuned: Weights, start: Weights, model: Path, base: Path) -> None:
    odd = sorted(set(tuned.names) ^ set(start.names))
    if odd:
        has, lacks = (model, base) if odd[0] in tuned.names else (base, model)
        raise ModelError(f"tensor {odd[0]} is in {has} and not in {lacks}; no adapter can say so")
    for name in start.names:
        if tuned.shape(name) != start.shape(name):
            shapes = f"{list(tuned.shape(name))} in {model} and {list(start.shape(name))} in {base}"
            raise ModelError(f"tensor {name} has shape {shapes}; no adapter can say so")
