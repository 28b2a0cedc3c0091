"""What are the singular values of a matrix, and its singular vectors along the short axis?

From the eigenvectors of AAᵀ, in float64. That squares the condition number; so where small singular
values matter their vectors X are taken for themselves: (XᵀA)(XᵀA)ᵀ is small throughout, and its
eigenvectors turn X (a Rayleigh-Ritz step), as in the engine's `spectrum.rs`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mergecore.cuda import interruption
from mergecore.cuda.spectral.product import (
    distance,
    gram,
    panels,
    probes,
    times,
    transposed_times,
)
from mergecore.errors import RunError

# Below this share of the largest singular value in hand, the next are taken for themselves.
_SPLIT = 1e-3
# A smaller one, beside the largest in hand, may come out of its square's rounding as zero.
_UNKNOWN = 1e-7
# What a decomposition may differ from its matrix by, relatively.
_BOUND = 1e-9


@dataclass(frozen=True)
class Spectrum:
    """A matrix's singular values and vectors."""

    sigma: Tensor
    """From the largest on: float64 of shape (short,), on the CPU."""
    vectors: Tensor
    """Along the short axis, one a column: float64 of shape (short, short)."""

    @staticmethod
    def of(a: Tensor, matters: Callable[[Tensor], int]) -> Spectrum:
        """The spectrum of a finite (short, long) matrix.

        Args:
            a: float32 or float64.
            matters: How many of such singular values are to be well known; the others serve for
                sums.

        Raises:
            RunError: The eigenvalues did not converge, or are not the matrix's.
        """
        short = a.shape[0]
        largest = float(a.abs().max())
        if largest == 0:
            identity = torch.eye(short, dtype=torch.float64, device=a.device)
            return Spectrum(torch.zeros(short, dtype=torch.float64), identity)
        # A power of two, so that nothing is rounded: squares of large numbers would not fit.
        scale = 2.0 ** -min(max(math.floor(math.log2(largest)), -1000), 1000)
        sigma, vectors = _guarded(a, scale)
        start = 0
        while True:
            first = float(sigma[start])
            split = int((sigma >= _SPLIT * first).to(torch.int64).cumprod(0).sum())
            # What AAᵀ does not tell from zero may be as large as this.
            known = sigma.clamp(min=_UNKNOWN * first) / scale
            if split >= matters(known) or split == short:
                return Spectrum(sigma / scale, vectors)
            sigma, vectors = _refined(a, scale, split, sigma, vectors)
            start = split

    def filter(self, gains: Tensor, rest: float) -> Tensor:
        """W: of WA the first singular values are A's times their gains, the others times `rest`."""
        kept = self.vectors[:, : len(gains)]
        w = (kept * (gains - rest).to(kept.device)) @ kept.T
        w.diagonal().add_(rest)
        return w

    def orthogonality(self, b: Tensor, sizes: Tensor) -> float:
        """How far b is from having these singular values, relatively, by random vectors."""
        y = probes(b.shape[0], b.device)
        squares = sizes.to(b.device).square().unsqueeze(1)
        want = self.vectors @ (squares * (self.vectors.T @ y))
        return distance(times(b, transposed_times(b, y)), want)


def largest(a: Tensor) -> float:
    """The largest singular value, nearly: by the power method on a few vectors, from below."""
    x = probes(a.shape[0], a.device)
    most = 0.0
    for _ in range(12):
        lengths = torch.linalg.vector_norm(x, dim=0)
        if bool((lengths == 0).any()):
            break
        back = transposed_times(a, x / lengths)
        most = float(torch.linalg.vector_norm(back, dim=0).max())
        x = times(a, back)
    return most


def _guarded(a: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The first guess, checked by products; made again on the CPU should it be wrong."""
    error = math.nan
    for device in (a.device, torch.device("cpu")):
        try:
            squares, vectors = _eigen(gram(a, scale).to(device))
        except torch.linalg.LinAlgError:
            continue
        sigma, vectors = squares.clamp(min=0).sqrt().cpu(), vectors.to(a.device)
        errors = _errors(a, scale, sigma, vectors)
        if all(error <= _BOUND for error in errors):
            return sigma, vectors
        error = max(errors)
    rows, columns = a.shape
    raise RunError(
        f"a matrix of {rows} x {columns} could not be decomposed: the result is off by {error:.1e}"
    )


def _errors(a: Tensor, scale: float, sigma: Tensor, vectors: Tensor) -> list[float]:
    """How far AAᵀ is from XΣ²Xᵀ, and X from orthonormal, relatively."""
    y = probes(a.shape[0], a.device)
    inside = vectors.T @ y
    want = vectors @ (sigma.to(a.device).square().unsqueeze(1) * inside)
    found = times(a, transposed_times(a, y)) * (scale * scale)
    return [distance(found, want), distance(vectors @ inside, y)]


def _refined(
    a: Tensor, scale: float, split: int, sigma: Tensor, vectors: Tensor
) -> tuple[Tensor, Tensor]:
    """Takes the singular vectors from `split` on for themselves."""
    own = vectors[:, split:]
    dots = torch.zeros(own.shape[1], own.shape[1], dtype=torch.float64, device=a.device)
    for _, piece in panels(a):
        part = own.T @ (piece * scale)
        dots.addmm_(part, part.T)
    squares, turn = _eigen(dots)
    sigma = torch.cat((sigma[:split], squares.clamp(min=0).sqrt().cpu()))
    return sigma, torch.cat((vectors[:, :split], own @ turn), dim=1)


def _eigen(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues from the largest on, and their vectors."""
    interruption.check()
    values, vectors = torch.linalg.eigh(symmetric)
    return values.flip(0), vectors.flip(1)
