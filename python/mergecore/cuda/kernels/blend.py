"""Weighted sums, element by element: the engine's `blend.rs`, each operation rounded once."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor


def of(x: float, dtype: torch.dtype) -> float:
    """The number of `dtype` that is nearest to x; infinite where x is beyond its range."""
    return ctypes.c_float(x).value if dtype == torch.float32 else x


def total_of(weights: Sequence[float], dtype: torch.dtype) -> float:
    """Σ wᵢ, added in the order of the models with a rounding to `dtype` each."""
    total = 0.0
    for weight in weights:
        total = of(total + of(weight, dtype), dtype)
    return total


def divide(x: Tensor, divisor: float) -> Tensor:
    """A true division by a number.

    By a number, torch may multiply with its reciprocal on a GPU, which rounds differently: the
    divisor is a tensor.
    """
    return x / torch.full((), of(divisor, x.dtype), dtype=x.dtype, device=x.device)


def weighted_sum(rows: Sequence[Tensor], weights: Sequence[float], normalize: bool) -> Tensor:
    """Σ wᵢxᵢ; over Σ wᵢ if `normalize`, but where that vanishes (below 1e-8).

    Args:
        rows: One a model, of one shape and dtype.
        weights: One a model.
        normalize: Whether it is divided.
    """
    dtype = rows[0].dtype
    total = torch.zeros_like(rows[0])
    for row, weight in zip(rows, weights, strict=True):
        total += row * of(weight, dtype)
    divisor = total_of(weights, dtype)
    if normalize and abs(divisor) >= of(1e-8, dtype):
        return divide(total, divisor)
    return total


def mean(rows: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Σ wᵢxᵢ / N."""
    return divide(weighted_sum(rows, weights, False), float(len(weights)))


def combine(a: Tensor, s: float, b: Tensor, t: float) -> Tensor:
    """The sum a·s + b·t."""
    return a * of(s, a.dtype) + b * of(t, b.dtype)


def attach(delta: Tensor, onto: Tensor, lambda_: float) -> Tensor:
    """A merged task vector becomes a model again: onto + delta·λ."""
    return onto + delta * of(lambda_, delta.dtype)
