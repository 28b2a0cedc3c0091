"""What is merged? Llama-shaped bf16 checkpoints of any size: a base and fine-tunes of it.

The weights are noise of the sizes that trained ones have, and each fine-tune moves each tensor by
0.5 to 2 % of its spread: as in real fine-tunes, many deltas are zero in bf16 and most tie with
others.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint16]
"""bf16, which NumPy does not have, as its bits."""
Floats = NDArray[np.float32]

_PIECE = 1 << 20
"""Elements made at a time; part of the seed, so that changing it changes the weights."""


@dataclass(frozen=True)
class Size:
    """The shape of a model."""

    layers: int = 22
    hidden: int = 2048
    ffn: int = 5632
    vocabulary: int = 32_000
    heads: int = 32
    kv_heads: int = 4

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor and its shape, in the order of the file."""
        hidden, ffn = self.hidden, self.ffn
        keys = hidden // self.heads * self.kv_heads
        layer = {
            "input_layernorm": (hidden,),
            "mlp.down_proj": (hidden, ffn),
            "mlp.gate_proj": (ffn, hidden),
            "mlp.up_proj": (ffn, hidden),
            "post_attention_layernorm": (hidden,),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.v_proj": (keys, hidden),
        }
        rest = {
            "lm_head.weight": (self.vocabulary, hidden),
            "model.embed_tokens.weight": (self.vocabulary, hidden),
            "model.norm.weight": (hidden,),
        }
        layers = {
            f"model.layers.{i}.{name}.weight": shape
            for i in range(self.layers)
            for name, shape in layer.items()
        }
        return dict(sorted({**rest, **layers}.items()))

    @property
    def parameters(self) -> int:
        return sum(_elements(shape) for shape in self.shapes.values())

    @property
    def config(self) -> dict[str, Any]:
        """config.json, as transformers reads it."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "intermediate_size": self.ffn,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.hidden // self.heads,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "torch_dtype": "bfloat16",
        }


FULL = Size()
LARGE = Size(layers=80, hidden=8192, ffn=28_672, heads=64, kv_heads=8)
"""Llama-2-70B's tensors; as many layers of it as the disk holds will do."""
SMALL = Size(layers=4, hidden=128, ffn=352, vocabulary=2000, heads=2, kv_heads=1)


class Checkpoint(Mapping[str, Bits]):
    """A model's folder: tensor name → its bits, flat and mapped from the file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _tensors(self) -> dict[str, Bits]:
        tensors: dict[str, Bits] = {}
        for file in sorted(self.folder.glob("*.safetensors")):
            with file.open("rb") as opened:
                start = 8 + int.from_bytes(opened.read(8), "little")
                header = json.loads(opened.read(start - 8))
            body = np.memmap(file, np.uint8, "r")[start:]
            for name, entry in header.items():
                if name != "__metadata__":
                    if entry["dtype"] != "BF16":
                        raise ValueError(f"{file}: {name} is {entry['dtype']}, not BF16")
                    begin, end = entry["data_offsets"]
                    tensors[name] = body[begin:end].view(np.uint16)
        return tensors

    def __getitem__(self, name: str) -> Bits:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def files(self) -> list[Path]:
        """The weights' files."""
        return sorted(self.folder.glob("*.safetensors"))


def widened(bits: Bits) -> Floats:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rounded(values: Floats) -> Bits:
    """To the nearest bf16, ties to even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def family(where: Path, size: Size, tunes: int, seed: int = 0) -> list[Checkpoint]:
    """The base and its fine-tunes, in folders below `where`; made unless they are there."""
    names = ["base", *(f"tune-{i + 1}" for i in range(tunes))]
    shape = f"{size.layers}x{size.hidden}x{size.ffn}x{size.vocabulary}x{size.heads}x{size.kv_heads}"
    home = where / f"llama-{shape}-{tunes}-{seed}"
    if not home.exists():
        partial = home.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        _make([partial / name for name in names], size, seed)
        partial.rename(home)
    return [Checkpoint(home / name) for name in names]


def _make(folders: list[Path], size: Size, seed: int) -> None:
    header, places = _header(size.shapes)
    bodies = []
    for i, folder in enumerate(folders):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(size.config, indent=2))
        if i > 0:
            (folder / "README.md").write_text("---\nbase_model: ../base\n---\n")
        file = folder / "model.safetensors"
        with file.open("wb") as opened:
            opened.write(header)
            opened.truncate(len(header) + 2 * size.parameters)
        bodies.append(np.memmap(file, np.uint8, "r+")[len(header) :].view(np.uint16))
    pieces = [
        (number, name, place + first, min(_PIECE, count - first))
        for number, (name, (place, count)) in enumerate(places.items())
        for first in range(0, count, _PIECE)
    ]

    def fill(piece: tuple[int, str, int, int]) -> None:
        number, name, start, count = piece
        is_norm = name.endswith("norm.weight")
        middle, spread = (1.0, 0.1) if is_norm else (0.0, 0.02)
        random = np.random.default_rng([seed, number, start])
        bits = rounded(_noise(random, count, spread, middle))
        base = widened(bits)
        bodies[0][start : start + count] = bits
        for i, body in enumerate(bodies[1:]):
            relative = np.random.default_rng([seed, number, 0, i]).uniform(0.005, 0.02)
            tuned = base + _noise(random, count, spread * relative)
            body[start : start + count] = rounded(tuned)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(fill, pieces):
            pass


def _noise(random: np.random.Generator, count: int, spread: float, middle: float = 0.0) -> Floats:
    noise = random.standard_normal(count, np.float32)
    noise *= np.float32(spread)
    noise += np.float32(middle)
    return noise


def header_of(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """The safetensors header of bf16 tensors of these shapes, one after the other."""
    return _header(shapes)[0]


def _header(shapes: Mapping[str, tuple[int, ...]]) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """A safetensors header, and where each tensor begins and how many elements it has."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    places: dict[str, tuple[int, int]] = {}
    start = 0
    for name, shape in shapes.items():
        count = _elements(shape)
        offsets = [2 * start, 2 * (start + count)]
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": offsets}
        places[name] = (start, count)
        start += count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, places


def _elements(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))
