"""DARE's first half: drop elements at random, and make up for them. The engine's `thin.rs`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mergecore.cuda.kernels import philox
from mergecore.cuda.kernels.blend import divide, of
from mergecore.cuda.kernels.lanes import Term


def rescaled(row: Tensor, rescale: str, density: float, sums: Sequence[float]) -> Tensor:
    """What makes up for the dropped elements of a row.

    Args:
        row: One model's, thinned out.
        rescale: `inverse` divides by the density, `l1` restores Σ|δ|, `none` does nothing.
        density: The share kept.
        sums: Σ|δ| of the whole tensor before and after, for `l1`.
    """
    if rescale == "inverse" and density > 0:
        return divide(row, density)
    # Sums this small would scale what rounding left (the engine's guard).
    if rescale == "l1" and sums[0] >= 1e-7 and sums[1] >= 1e-7:
        return row * of(sums[0] / sums[1], row.dtype)
    return row


class Thin:
    """How each task vector is thinned out."""

    def __init__(
        self, density: Sequence[float], rescale: str, key: Callable[[int], philox.Key]
    ) -> None:
        """Takes the shares kept, one a model; what makes up for it; each model's random stream."""
        self.density = density
        self.rescale = rescale
        self._key = key

    @property
    def measured(self) -> int:
        """How many sums over the tensor `apply` wants."""
        return 2 * len(self.density) if self.rescale == "l1" else 0

    def terms(self, rows: Sequence[Tensor], first: int) -> list[Term]:
        """Σ|δ| and Σ|δ∘m| of each row, to be summed; `first` is their first element's index."""
        return [
            (x, None)
            for model, row in enumerate(rows)
            for x in (row, self._masked(model, row, first))
        ]

    def apply(self, rows: Sequence[Tensor], first: int, sums: Sequence[float]) -> list[Tensor]:
        """Each row masked and rescaled; one with density 1 as it is."""
        return [
            row
            if self.density[model] >= 1
            else rescaled(
                self._masked(model, row, first),
                self.rescale,
                self.density[model],
                sums[2 * model : 2 * model + 2],
            )
            for model, row in enumerate(rows)
        ]

    def _masked(self, model: int, row: Tensor, first: int) -> Tensor:
        density = self.density[model]
        mask = philox.kept(self._key(model), first, row.numel(), density, row.device)
        return torch.where(mask, row, 0)
