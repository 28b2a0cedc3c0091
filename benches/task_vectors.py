"""What is merged? One float32 matrix: a base, and fine-tunes of it.

A fine-tune's change is 1 % of the base's size: directions whose strength falls off as 1/j, and
noise beneath, as large as rounding to bf16 makes it. The noise is why two float32 programs can be
compared at all: it holds the smallest singular values above the arithmetic's own rounding, whose
directions would be anyone's guess (the condition numbers are some hundreds).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llama import Floats

_SPREAD = 0.02
"""Of the base's weights."""
_CHANGE = 0.01
"""The size of a change, relatively."""
_NOISE = 2**-9.2
"""What rounding to bf16 makes, relatively."""


@dataclass(frozen=True)
class Matrices:
    """A base and its fine-tunes."""

    base: Floats
    tunes: list[Floats]

    @property
    def short(self) -> int:
        return int(min(self.base.shape))

    @property
    def long(self) -> int:
        return int(max(self.base.shape))


def make(rows: int, columns: int, tunes: int, seed: int = 0) -> Matrices:
    """So many fine-tunes of a base; those of a smaller number are the first of a larger one."""
    base = _noise(np.random.default_rng(seed), (rows, columns), _SPREAD)
    return Matrices(
        base, [_tuned(base, np.random.default_rng([seed, i + 1])) for i in range(tunes)]
    )


def _tuned(base: Floats, random: np.random.Generator) -> Floats:
    rows, columns = base.shape
    rank = max(1, min(rows, columns) // 4)
    strength = (1 / np.arange(1, rank + 1)).astype(np.float32)
    change: Floats = _noise(random, (rows, rank)) * strength @ _noise(random, (rank, columns))
    change *= np.float32(_CHANGE * _SPREAD) / np.sqrt(np.mean(np.square(change)))
    change += _noise(random, base.shape, _NOISE * _SPREAD)
    change += base
    return change


def _noise(random: np.random.Generator, shape: tuple[int, ...], spread: float = 1.0) -> Floats:
    noise = random.standard_normal(shape, np.float32)
    noise *= np.float32(spread)
    return noise
