"""DARE-TIES: DARE's drop and rescale, then TIES' election instead of its trim."""

from __future__ import annotations

from torch import Tensor

from mergecore.cuda.formula import Chunk, Facts, Formula, Parameters, Place, Sums
from mergecore.cuda.kernels.elect import disjoint
from mergecore.cuda.kernels.lanes import Term
from mergecore.cuda.kernels.thin import Thin


class DareTies(Formula):
    """DARE (Yu et al., ICML 2024), with the signs that TIES elects."""

    def __init__(self, parameters: Parameters, place: Place) -> None:
        """Takes the complete parameters."""
        super().__init__(parameters, place)
        self._thin = Thin(parameters["density"], parameters["rescale"], place.key)

    @classmethod
    def refuses(cls, parameters: Parameters) -> str | None:
        """Sums over the whole model are the engine's."""
        return "scope: model" if parameters["scope"] == "model" else None

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
        return disjoint(rows, self.parameters["weight"], self.parameters["normalize"])
