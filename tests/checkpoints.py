"""Checkpoints on disk, written and read in a few obvious lines: tests can make hostile ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "U8": np.uint8,
    "BOOL": np.bool_,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
}
_NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}

Tensors = Mapping[str, np.ndarray]


def safetensors(tensors: Tensors) -> bytes:
    """The bytes of a safetensors file."""
    header: dict[str, Any] = {}
    body = b""
    for name, array in tensors.items():
        data = array.tobytes()
        offsets = [len(body), len(body) + len(data)]
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": offsets,
        }
        body += data
    return raw(json.dumps(header), body)


def raw(header: str, body: bytes = b"", length: int | None = None) -> bytes:
    """A file with any header text, and a length that may be a lie."""
    text = header.encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + body


def save(folder: Path, tensors: Tensors, shards: int = 1, **config: Any) -> Path:
    """Writes a model's folder: weights in one file or in shards with an index, and a config."""
    folder.mkdir(parents=True, exist_ok=True)
    if shards == 1:
        (folder / "model.safetensors").write_bytes(safetensors(tensors))
    else:
        weight_map = {}
        for index in range(shards):
            file = f"model-{index + 1:05}-of-{shards:05}.safetensors"
            part = {name: tensors[name] for name in list(tensors)[index::shards]}
            (folder / file).write_bytes(safetensors(part))
            weight_map |= dict.fromkeys(part, file)
        index_file = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index_file))
    settings = {"model_type": "llama", "torch_dtype": "float32", **config}
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def load(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a model, copied."""
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        content = file.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        for name, entry in json.loads(content[8:start]).items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                flat = np.frombuffer(content[start + begin : start + end], DTYPES[entry["dtype"]])
                tensors[name] = flat.reshape(entry["shape"]).copy()
    return tensors


def family(seed: int = 0, models: int = 2, dtype: Any = np.float32) -> list[dict[str, np.ndarray]]:
    """A base and fine-tunes of it that hold whatever may trip a merge up.

    Odd shapes, 0-dim and empty tensors; deltas with ties, zeros and both signs; two dtypes; and a
    counter that is equal in all.
    """
    rng = np.random.default_rng(seed)
    shapes = {
        "model.embed_tokens.weight": (33, 8),
        "model.layers.0.mlp.up_proj.weight": (17, 8),
        "model.layers.0.input_layernorm.weight": (8,),
        "model.layers.1.mlp.up_proj.weight": (17, 8),
        "model.norm.weight": (1,),
        "odd.scale": (),
        "odd.empty": (0, 8),
        "odd.half": (5, 3),
    }
    steps = np.array([0.0, 0.0, 0.5, -0.5, 0.25, -0.25, 1.0])  # coarse, so that many tie
    base: dict[str, np.ndarray] = {}
    tunes: list[dict[str, np.ndarray]] = [{} for _ in range(models)]
    for name, shape in shapes.items():
        kind = np.float16 if name == "odd.half" else dtype
        base[name] = np.asarray(rng.normal(size=shape)).astype(kind)
        for tune in tunes:
            delta = rng.choice(steps, size=shape) * (rng.normal(size=shape) if "up" in name else 1)
            tune[name] = np.asarray(base[name].astype(np.float64) + delta).astype(kind)
    for state in (base, *tunes):
        state["odd.counter"] = np.arange(4, dtype=np.int64)
    return [base, *tunes]
