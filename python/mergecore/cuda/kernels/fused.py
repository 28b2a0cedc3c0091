"""x·w + y with one rounding, on devices that are asked for two.

torch has no fused multiply-add that all its devices round alike, and `linear` is made of them. Of
float32 the product is exact in float64; the sum is rounded there to odd, so that the rounding to
float32 that follows is as if it were the only one. In float64 the product is split in two
(Dekker), and the parts are added so that one rounding is left (Boldo and Melquiond, "Emulation of
a FMA and correctly rounded sums", IEEE Trans. Computers 2008).
"""

from __future__ import annotations

import torch
from torch import Tensor

_SPLIT = float((1 << 27) + 1)


def fused(x: Tensor, weight: float, total: Tensor) -> Tensor:
    """The sum x·weight + total, rounded once.

    In float64, where a product is below 2⁻⁹⁶⁹ or a factor above 2⁹⁹⁶, twice.

    Args:
        x: float32 or float64, any shape.
        weight: A number that x's dtype has.
        total: Of x's shape and dtype.
    """
    if x.dtype == torch.float32:
        return _odd_sum(x.double() * weight, total.double()).float()
    high, low = _product(x, weight)
    upper, lower = _sum(total, low)
    most, rest = _sum(high, upper)
    found = most + _odd_sum(lower, rest)
    return torch.where(torch.isfinite(found), found, x * weight + total)


def _sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The sum, and what rounding has left out of it."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _odd_sum(a: Tensor, b: Tensor) -> Tensor:
    """The sum in float64; where that is not exact, the one neighbour whose last bit is 1."""
    total, error = _sum(a, b)
    bits = total.view(torch.int64)
    # The error of what is not finite is no number, and larger than nothing.
    moves = ((error > 0) | (error < 0)) & ((bits & 1) == 0)
    away = (error > 0) == (total > 0)
    step = torch.where(away, 1, -1) * moves
    return (bits + step).view(torch.float64)


def _product(x: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """x·weight in float64, and what rounding has left out of it."""
    product = x * weight
    scaled = x * _SPLIT
    high = scaled - (scaled - x)
    low = x - high
    scaled_weight = weight * _SPLIT
    weight_high = scaled_weight - (scaled_weight - weight)
    weight_low = weight - weight_high
    error = ((high * weight_high - product) + high * weight_low + low * weight_high) + (
        low * weight_low
    )
    return product, error
