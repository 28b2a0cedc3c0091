"""The task vectors of one matrix, summed as they are asked for; and what rounding is in them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mergecore.cuda import interruption
from mergecore.cuda.spectral.tolerance import ROUNDING
from mergecore.errors import RunError

# Elements that are in float64 at a time.
_PIECE = 1 << 22


class Vectors:
    """One matrix of every model and of the base."""

    def __init__(
        self,
        models: Sequence[Tensor],
        base: Tensor,
        dtype: torch.dtype,
        stored: Sequence[str],
        sources: Sequence[str],
    ) -> None:
        """Takes matrices of shape (m, n), of any float dtype, on one device.

        Args:
            models: One each.
            base: What they are task vectors from.
            dtype: Of the arithmetic.
            stored: The dtype that each model was rounded to.
            sources: What messages call the base, then each model.
        """
        self._models = models
        self._base = base
        self._dtype = dtype
        self._stored = stored
        self._sources = sources
        self._lengths: float | None = None
        self._finite: set[int] = set()

    def sum(self, weights: Sequence[float]) -> Tensor:
        """Σ wᵢδᵢ in the arithmetic's dtype, of shape (m, n); summed in float64.

        Raises:
            RunError: What is read holds NaN or infinities, or the sum is too large.
        """
        read = [i for i, weight in enumerate(weights) if weight]
        self._check_finite(0, self._base)
        for i in read:
            self._check_finite(1 + i, self._models[i])
        found = torch.empty(self._base.shape, dtype=self._dtype, device=self._base.device)
        for rows, base in self._pieces():
            total = torch.zeros(base.shape, dtype=torch.float64, device=base.device)
            for i in read:
                delta = self._models[i][rows].to(self._dtype) - base
                total += delta.double() * weights[i]
            found[rows] = total
        if not torch.isfinite(found).all():
            raise RunError(
                "the change is too large for float32: give --dtype float64 (in a recipe, dtype)"
            )
        return found

    def noise(self, weights: Sequence[float]) -> float:
        """The largest singular value that rounding is expected to have made in Σ wᵢδᵢ.

        Rounding errors are as good as independent, each of a share of its number: the longest
        row and the longest column of the base, added.
        """
        if self._lengths is None:
            columns = torch.zeros(
                self._base.shape[1], dtype=torch.float64, device=self._base.device
            )
            rows = []
            for _, base in self._pieces():
                squares = base.double().square()
                columns += squares.sum(dim=0)
                rows.append(squares.sum(dim=1))
            self._lengths = math.sqrt(_long(torch.cat(rows))) + math.sqrt(_long(columns))
        pairs = zip(weights, self._stored, strict=True)
        return self._lengths * math.sqrt(sum((w * ROUNDING[name]) ** 2 for w, name in pairs))

    def _pieces(self) -> Iterator[tuple[slice, Tensor]]:
        """Some rows at a time: which, and the base's, in the arithmetic's dtype."""
        step = max(_PIECE // max(self._base.shape[1], 1), 1)
        for start in range(0, self._base.shape[0], step):
            interruption.check()
            rows = slice(start, start + step)
            yield rows, self._base[rows].to(self._dtype)

    def _check_finite(self, source: int, matrix: Tensor) -> None:
        if source not in self._finite and not torch.isfinite(matrix).all():
            raise NotFiniteError(self._sources[source])
        self._finite.add(source)


class NotFiniteError(RunError):
    """A matrix holds NaN or infinities, and so has no singular values."""

    def __init__(self, source: str) -> None:
        """Takes what messages call whose it is."""
        super().__init__(
            f"{source} holds NaN or infinite values there, and a matrix with them has no singular"
            " values: mend it"
        )

    def of_tensor(self, name: str) -> str:
        """The message, with the way out that a named tensor has."""
        way_out = (
            " the model, or merge this tensor as no matrix (in a recipe, matrices: [{filter:"
            f" {name}, value: none}}, {{value: linear}}])"
        )
        return str(self).removesuffix(" it") + way_out if name else str(self)


def _long(squares: Tensor) -> float:
    """The longest but for one in a hundred: a single large weight makes one direction, not all."""
    place = len(squares) - 1 - len(squares) // 100
    return float(squares.sort().values[place]) if place >= 0 else 0.0
