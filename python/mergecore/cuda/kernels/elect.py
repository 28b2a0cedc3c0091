"""TIES' election: which sign does an element take, and who agrees with it?

The engine's `elect.rs`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mergecore.cuda.kernels.blend import of


def disjoint(rows: Sequence[Tensor], weights: Sequence[float], normalize: bool) -> Tensor:
    """The sum of the votes whose sign is that of all votes' sum.

    A sum of zero elects +; a vote of zero agrees with nobody.

    Args:
        rows: One a model, of one shape and dtype; a vote is a row times its weight.
        weights: One a model.
        normalize: Divide by the sum of the weights that agree, where that is not zero.
    """
    dtype = rows[0].dtype
    total = torch.zeros_like(rows[0])
    for row, weight in zip(rows, weights, strict=True):
        total += row * of(weight, dtype)
    plus = total >= 0
    merged = torch.zeros_like(total)
    divisor = torch.zeros_like(total) if normalize else None
    for row, weight in zip(rows, weights, strict=True):
        vote = row * of(weight, dtype)
        agrees = torch.where(plus, vote > 0, vote < 0)
        merged += torch.where(agrees, vote, 0)
        if divisor is not None:
            divisor += agrees.to(dtype) * of(weight, dtype)
    return merged if divisor is None else merged / torch.where(divisor == 0, 1, divisor)
