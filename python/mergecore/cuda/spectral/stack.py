"""Singular vectors of several matrices side by side, and the nearest orthonormal ones.

All vectors are kept in float64: of models that are nearly alike the difference counts, and what is
left when a space is projected out. The engine's `stack.rs`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mergecore.cuda.spectral import tolerance as tolerances
from mergecore.cuda.spectral.account import NONE, Account
from mergecore.cuda.spectral.product import (
    distance,
    oriented,
    panels,
    probes,
    times,
    transform,
    transposed_times,
)
from mergecore.cuda.spectral.spectrum import Spectrum
from mergecore.cuda.spectral.tolerance import Tolerance


@dataclass(frozen=True)
class Floor:
    """What is no direction of a matrix."""

    tolerance: Tolerance
    noise: float
    """The largest singular value that rounding makes."""
    left_of: float | None = None
    """The largest singular value of the matrix that this one is what is left of, if it is."""


class Stack:
    """Singular triplets of matrices of one shape, those of each from its largest on."""

    def __init__(self, matrix: Tensor) -> None:
        """An empty stack for matrices of that shape (m, n), dtype and device."""
        self._dtype = matrix.dtype
        self._is_flipped = matrix.shape[0] > matrix.shape[1]
        short, long = oriented(matrix).shape
        kind = {"dtype": torch.float64, "device": matrix.device}
        # Along the short axis a column a triplet, along the long one a row; zeros where none is.
        self._near = torch.zeros(short, short, **kind)
        self._far = torch.zeros(short, long, **kind)
        self._sigma: list[float] = []
        self._account = NONE

    @property
    def mean(self) -> float:
        """Σσ over the length of the short axis."""
        return sum(self._sigma) / int(self._near.shape[0])

    def push(self, matrix: Tensor, count: int, floor: Floor) -> None:
        """Adds a matrix's first `count` triplets; those below the floor as zeros."""
        a = oriented(matrix)

        def least(sigma: Tensor) -> float:
            largest = max(float(sigma[0]), floor.left_of or 0.0)
            return tolerances.floor(floor.tolerance, largest, floor.noise)

        spectrum = Spectrum.of(a, lambda sigma: min(tolerances.rank(sigma, least(sigma)), count))
        account = Account.of(spectrum, floor.noise, least(spectrum.sigma))
        kept, first = min(account.rank, count), len(self._sigma)
        sigma, vectors = spectrum.sigma[:kept], spectrum.vectors[:, :kept]
        self._near[:, first : first + kept] = vectors
        turned = (vectors / sigma.to(a.device)).T
        for span, piece in panels(a):
            self._far[first : first + kept, span] = turned @ piece
        self._sigma += [*sigma.tolist(), *[0.0] * (count - kept)]
        # What is left of a matrix beside others is small by construction, and a model that has
        # not changed has no figures.
        told = account if floor.left_of is None and account.rank else NONE
        off = self._far_from_right_angles(first, kept)
        self._account = self._account.and_(replace(told, orthogonality=off))

    def leave_out(self, matrix: Tensor, count: int) -> None:
        """Leaves in a matrix, in place, what is outside the first `count` vectors' span.

        Those of its rows' side, whichever axis is the longer one.
        """
        if self._is_flipped:
            far = self._far[:count].T
            matrix -= far @ (far.T @ matrix)
        else:
            near = self._near[:, :count]
            outside = -(near @ near.T)
            outside.diagonal().add_(1.0)
            transform(matrix, outside)

    def merge(
        self, alike: float | None, tolerance: Tolerance, like: Tensor
    ) -> tuple[Tensor, Account]:
        """The matrix with the nearest orthonormal vectors, and the triplets' singular values.

        Args:
            alike: What all singular values are, if they are one number.
            tolerance: What is no direction.
            like: A matrix of the shape and dtype that are wanted; not written to.

        Raises:
            RunError: The result is not what it should be.
        """
        count = len(self._sigma)
        # Vectors have length 1, whatever the checkpoints' types.
        tolerance = tolerances.of_arithmetic(tolerance)
        near, far = self._near[:, :count].T, self._far[:count]
        near_turn, near_account = _right_angles(near, tolerance)
        far_turn, far_account = _right_angles(far, tolerance)
        sizes = torch.tensor(self._sigma, dtype=torch.float64, device=near.device)
        if alike is not None:
            sizes = torch.full_like(sizes, alike)
        whole = near.T @ ((near_turn * sizes) @ far_turn)
        merged = torch.empty_like(like, memory_format=torch.contiguous_format)
        out = oriented(merged)
        for span, piece in panels(far):
            out[:, span] = whole @ piece
        z = probes(out.shape[1], out.device)
        account = self._account.seen().and_(near_account).and_(far_account)
        account = replace(
            account,
            rank=min(near_account.rank, far_account.rank),
            residual=distance(times(out, z), whole @ times(far, z)),
        )
        return merged, account.certified(out)

    def _far_from_right_angles(self, first: int, count: int) -> float:
        """How far the vectors along the long axis from `first` on are from orthonormal."""
        far = self._far[first : first + count]
        y = probes(count, far.device)
        return distance(times(far, transposed_times(far, y)), y)


def _right_angles(a: Tensor, tolerance: Tolerance) -> tuple[Tensor, Account]:
    """W, by which the rows of A become the nearest orthonormal ones, WA = polar(A)."""

    def floor(sigma: Tensor) -> float:
        return tolerances.floor(tolerance, float(sigma[0]), 0.0)

    spectrum = Spectrum.of(a, lambda sigma: tolerances.rank(sigma, floor(sigma)))
    kept = tolerances.rank(spectrum.sigma, floor(spectrum.sigma))
    w = spectrum.filter(1.0 / spectrum.sigma[:kept], 0.0)
    # WAAᵀWᵀ is the projector onto what is kept.
    y = probes(a.shape[0], a.device)
    found = w @ times(a, transposed_times(a, w @ y))
    span = spectrum.vectors[:, :kept]
    return w, replace(NONE, rank=kept, orthogonality=distance(found, span @ (span.T @ y)))
