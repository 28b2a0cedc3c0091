"""How do the authors do it? By torch.linalg.svd of the matrix as it is, in its own dtype.

Written from the order of steps in their code. Of TSV-Merge that is an SVD of every task vector and
two more, which bring the singular vectors to right angles; of the others it is one SVD.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def iso_c(models: Sequence[Tensor], base: Tensor) -> Tensor:
    """Iso-C: the sum of the task vectors, with the mean of its singular values for each of them."""
    u, s, v = svd(sum(_deltas(models, base)))
    return base + (u * s.mean()) @ v


def boost(models: Sequence[Tensor], base: Tensor, beta: float = 0.2) -> Tensor:
    """Subspace Boosting of the mean of the task vectors."""
    u, s, v = svd(sum(_deltas(models, base)) / len(models))
    first = torch.nonzero(s.cumsum(0) / s.sum() >= beta)[0]
    return base + (u * s.clamp(min=s[first])) @ v


def tsv(models: Sequence[Tensor], base: Tensor) -> Tensor:
    """TSV-Merge: the leading triplets of each task vector, brought to right angles."""
    k = min(base.shape) // len(models)
    tops = [(u[:, :k], s[:k], v[:k]) for u, s, v in map(svd, _deltas(models, base))]
    left, strength, right = zip(*tops, strict=True)
    return base + (_polar(torch.cat(left, 1)) * torch.cat(strength)) @ _polar(torch.cat(right))


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.linalg.svd(matrix, full_matrices=False)  # type: ignore[no-any-return]


def _polar(matrix: Tensor) -> Tensor:
    u, _, v = svd(matrix)
    return u @ v


def _deltas(models: Sequence[Tensor], base: Tensor) -> list[Tensor]:
    return [model - base for model in models]
