"""What becomes of a matrix whose singular values are given other sizes?

WA, where W = X diag(f/σ) Xᵀ: all singular values alike, boosted ones. And what can be said of the
result without an SVD. The engine's `reshape.rs`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from mergecore.cuda.spectral import tolerance as tolerances
from mergecore.cuda.spectral.account import Account
from mergecore.cuda.spectral.product import distance, oriented, probes, times, transform
from mergecore.cuda.spectral.spectrum import Spectrum
from mergecore.cuda.spectral.tolerance import Tolerance

Sizes = Callable[[Tensor, int], Tensor]
"""What the first singular values become: of all of them, and how many are above the floor."""


def reshape(
    matrix: Tensor, tolerance: Tolerance, noise: float, sizes: Sizes, keep_rest: bool
) -> Account:
    """Gives a matrix's singular values other sizes, in place.

    Args:
        matrix: Finite, of shape (m, n), float32 or float64; overwritten.
        tolerance: What is no direction.
        noise: The largest singular value that rounding makes.
        sizes: The sizes of those that are not below the floor.
        keep_rest: Whether the others stay as they are; else they become zero.

    Raises:
        RunError: The result is not what it should be.
    """
    a = oriented(matrix)

    def floor(sigma: Tensor) -> float:
        return tolerances.floor(tolerance, float(sigma[0]), noise)

    spectrum = Spectrum.of(a, lambda sigma: tolerances.rank(sigma, floor(sigma)))
    sigma = spectrum.sigma
    account = Account.of(spectrum, noise, floor(sigma))
    kept = sizes(sigma, account.rank)
    w = spectrum.filter(kept / sigma[: len(kept)], 1.0 if keep_rest else 0.0)
    z = probes(a.shape[1], a.device)
    before = times(a, z)
    transform(a, w)
    others = sigma[len(kept) :] * (1.0 if keep_rest else 0.0)
    return replace(
        account,
        orthogonality=spectrum.orthogonality(a, torch.cat((kept, others))),
        residual=distance(times(a, z), w @ before),
    ).certified(a)
