"""What are a tensor's numbers? One tensor of a checkpoint at a time, in NumPy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mergecore import _mergecore

Floats = NDArray[np.float32]

_NUMPY = {"bfloat16": "<u2", "float16": "<f2", "float32": "<f4", "float64": "<f8"}
_CODES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"}


class Stored(NamedTuple):
    """A tensor as a file has it: bytes under a type and a shape."""

    dtype: str
    shape: tuple[int, ...]
    raw: bytes

    @property
    def values(self) -> Floats:
        flat = np.frombuffer(self.raw, _NUMPY[self.dtype])
        if self.dtype == "bfloat16":  # the upper half of a float32
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        return flat.astype(np.float32, copy=False).reshape(self.shape)

    @classmethod
    def of(cls, values: Floats) -> Stored:
        return cls("float32", values.shape, np.ascontiguousarray(values, "<f4").tobytes())


class Weights:
    """The tensors of a checkpoint, read when asked for."""

    def __init__(self, location: Path) -> None:
        """Opens a folder or file; the engine refuses what is malformed.

        Raises:
            ModelError: The checkpoint is malformed.
        """
        found = json.loads(_mergecore.checkpoint(str(location)))
        self._tensors: dict[str, dict[str, Any]] = {t["name"]: t for t in found["tensors"]}
        self._folder = location if location.is_dir() else location.parent
        self._headers: dict[str, tuple[int, dict[str, Any]]] = {}

    @property
    def names(self) -> list[str]:
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name]["shape"])

    def is_float(self, name: str) -> bool:
        return self._tensors[name]["dtype"] in _NUMPY

    def read(self, name: str) -> Stored:
        file = self._tensors[name]["file"]
        with (self._folder / file).open("rb") as stream:
            if file not in self._headers:
                length = int.from_bytes(stream.read(8), "little")
                self._headers[file] = 8 + length, json.loads(stream.read(length))
            start, header = self._headers[file]
            begin, end = header[name]["data_offsets"]
            stream.seek(start + begin)
            return Stored(self._tensors[name]["dtype"], self.shape(name), stream.read(end - begin))


def save(path: Path, tensors: Mapping[str, Stored]) -> None:
    """Writes a safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        place = [end, end := end + len(tensor.raw)]
        kind = {"dtype": _CODES[tensor.dtype], "shape": tensor.shape}
        header[name] = {**kind, "data_offsets": place}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            stream.write(tensor.raw)
