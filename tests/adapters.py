"""LoRA adapters on disk as PEFT writes them, and what they make of a weight, in obvious NumPy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import checkpoints

PREFIX = "base_model.model."

# As peft 0.21 writes it for an adapter that uses none of it.
CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "base",
    "r": 4,
    "lora_alpha": 8,
    "lora_dropout": 0.05,
    "target_modules": ["up_proj"],
    "bias": "none",
    "fan_in_fan_out": False,
    "use_rslora": False,
    "use_dora": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "modules_to_save": None,
    "init_lora_weights": True,
    "inference_mode": True,
    "layer_replication": None,
    "lora_bias": False,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "qalora_group_size": 16,
    "trainable_token_indices": None,
}


def save(folder: Path, tensors: Mapping[str, np.ndarray], shards: int = 1, **config: Any) -> Path:
    """Writes an adapter; names are without PEFT's prefix."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {PREFIX + name: tensor for name, tensor in tensors.items()}
    if shards == 1:
        (folder / "adapter_model.safetensors").write_bytes(checkpoints.safetensors(named))
    else:
        weight_map = {}
        for index in range(shards):
            file = f"adapter_model-{index + 1:05}-of-{shards:05}.safetensors"
            part = {name: named[name] for name in list(named)[index::shards]}
            (folder / file).write_bytes(checkpoints.safetensors(part))
            weight_map |= dict.fromkeys(part, file)
        text = json.dumps({"weight_map": weight_map})
        (folder / "adapter_model.safetensors.index.json").write_text(text)
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    return folder


def factors(
    rng: np.random.Generator,
    module: str,
    shape: tuple[int, int],
    rank: int,
    *,
    dtype: Any = np.float32,
    embedding: bool = False,
    magnitudes: int = 0,
) -> dict[str, np.ndarray]:
    """Random factors for a weight of shape (out, in), or (vocabulary, dimensions)."""
    outer, inner = shape[::-1] if embedding else shape
    middle, end = ("embedding_", "") if embedding else ("", ".weight")
    tensors = {
        f"{module}.lora_{middle}A{end}": rng.normal(size=(rank, inner)).astype(dtype),
        f"{module}.lora_{middle}B{end}": (rng.normal(size=(outer, rank)) / 8).astype(dtype),
    }
    if magnitudes:
        tensors[f"{module}.lora_magnitude_vector"] = rng.uniform(0.5, 3, magnitudes).astype(dtype)
    return tensors


def merged(
    weight: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    scale: float,
    *,
    transposed: bool = False,
    magnitude: np.ndarray | None = None,
) -> np.ndarray:
    """What an adapter makes of a weight, in float64: the caller knows what rounding may cost."""
    wide, a, b = (x.astype(np.float64) for x in (weight, a, b))
    product = (b @ a).T if transposed else b @ a
    total = wide + product * scale
    if magnitude is None:
        return total
    axis = 0 if transposed else 1
    factor = magnitude.astype(np.float64) / np.linalg.norm(total, axis=axis)
    return total * (factor[None, :] if transposed else factor[:, None])


def ulps(got: np.ndarray, want: np.ndarray, *inputs: np.ndarray) -> float:
    """The largest error, in units in the last place at the largest magnitude that took part."""
    size = np.max([np.abs(x.astype(np.float64)) for x in (want, *inputs)], axis=0)
    digits = {"float64": 52, "float32": 23, "float16": 10, "bfloat16": 7}[got.dtype.name]
    smallest = -14 if got.dtype.name == "float16" else -126
    exponent = np.maximum(np.frexp(size)[1] - 1, smallest)
    unit = np.ldexp(1.0, exponent - digits)
    return float(np.max(np.abs(got.astype(np.float64) - want) / unit, initial=0))
