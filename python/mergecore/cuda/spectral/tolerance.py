"""What is no direction of a matrix? `rank_tol`, and what rounding the checkpoints has made."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Tolerance = float | str
"""A share of the largest singular value, or `storage`: below what rounding makes."""

ROUNDING: Mapping[str, float] = {
    "bfloat16": 2.0**-9.2,
    "float16": 2.0**-12.2,
    "float32": 2.0**-25.2,
    "float64": 2.0**-54.2,
}
"""The standard deviation of what rounding to a dtype moves a weight by, as a share of it."""

# A share that rounding in the arithmetic stays below.
_OF_ARITHMETIC = 1e-6


def of_arithmetic(tolerance: Tolerance) -> Tolerance:
    """For what is not stored, and holds no rounding but that of arithmetic."""
    return _OF_ARITHMETIC if isinstance(tolerance, str) else tolerance


def floor(tolerance: Tolerance, largest: float, noise: float) -> float:
    """Below which a singular value is none.

    Args:
        tolerance: The parameter `rank_tol`.
        largest: The largest singular value.
        noise: The largest that rounding makes, for `storage`.
    """
    least = largest * 1e-12  # what float64 itself cannot tell from zero
    return max(noise if isinstance(tolerance, str) else tolerance * largest, least)


def rank(sigma: Tensor, floor: float) -> int:
    """How many singular values, which fall, are not below the floor, and not zero."""
    return int(((sigma >= floor) & (sigma > 0)).to(torch.int64).cumprod(0).sum())
