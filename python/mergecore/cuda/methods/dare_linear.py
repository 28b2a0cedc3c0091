"""DARE: drop elements of each task vector at random, rescale the rest, and sum."""

from __future__ import annotations

from torch import Tensor

from mergecore.cuda.formula import Chunk, Facts, Formula, Parameters, Place, Sums
from mergecore.cuda.kernels.blend import weighted_sum
from mergecore.cuda.kernels.lanes import Term
from mergecore.cuda.kernels.thin import Thin


class DareLinear(Formula):
    """DARE (Yu et al., ICML 2024), summed."""

    def __init__(self, parameters: Parameters, place: Place) -> None:
        """Takes the complete parameters."""
        super().__init__(parameters, place)
        self._thin = Thin(parameters["density"], parameters["rescale"], place.key)

    def need(self, facts: Facts) -> Sums | None:
        """Σ|δ| before and after, to restore it."""
        missing = self._thin.measured - len(facts.sums)
        return Sums(missing) if missing else None

    def terms(self, chunk: Chunk, facts: Facts) -> list[Term]:
        """What is summed over the tensor, of this chunk."""
        return self._thin.terms(chunk.inputs, chunk.first)

    def merge(self, chunk: Chunk, facts: Facts) -> Tensor:
        """The merged chunk, of shape (n,)."""
        rows = self._thin.apply(chunk.inputs, chunk.first, facts.sums)
        return weighted_sum(rows, self.parameters["weight"], self.parameters["normalize"])
