"""TIES: trim each task vector to its largest elements, elect signs, merge what agrees."""

from __future__ import annotations

from torch import Tensor

from mergecore.cuda.formula import Chunk, Facts, Formula, Largest, Parameters, Sums
from mergecore.cuda.kernels.elect import disjoint
from mergecore.cuda.kernels.lanes import Term
from mergecore.cuda.kernels.thin import rescaled


class Ties(Formula):
    """TIES-Merging (Yadav et al., NeurIPS 2023), a threshold a tensor."""

    @classmethod
    def refuses(cls, parameters: Parameters) -> str | None:
        """Thresholds of the whole model are the engine's."""
        return "scope: model" if parameters["scope"] == "model" else None

    def need(self, facts: Facts) -> Sums | Largest | None:
        """Thresholds; and Σ|δ| before and after them, to restore it."""
        density = self.parameters["density"]
        if not facts.cutoffs:
            return Largest(tuple(_count(share, self.place.elements) for share in density))
        if self.parameters["rescale"] == "l1" and not facts.sums:
            return Sums(2 * len(density))
        return None

    def terms(self, chunk: Chunk, facts: Facts) -> list[Term]:
        """What is summed over the tensor, of this chunk."""
        trimmed = zip(chunk.inputs, self._trimmed(chunk, facts), strict=True)
        return [(x, None) for pair in trimmed for x in pair]

    def merge(self, chunk: Chunk, facts: Facts) -> Tensor:
        """The merged chunk, of shape (n,)."""
        density, rescale = self.parameters["density"], self.parameters["rescale"]
        rows = [
            rescaled(row, rescale, density[model], facts.sums[2 * model : 2 * model + 2])
            for model, row in enumerate(self._trimmed(chunk, facts))
        ]
        return disjoint(rows, self.parameters["weight"], self.parameters["normalize"])

    @staticmethod
    def _trimmed(chunk: Chunk, facts: Facts) -> list[Tensor]:
        pairs = zip(facts.cutoffs, chunk.inputs, strict=True)
        return [cutoff.trim(row, chunk.first) for cutoff, row in pairs]


def _count(density: float, elements: int) -> int:
    """How many a density keeps: rounded down, but at least one where it is not zero."""
    if density <= 0:
        return 0
    return min(max(int(density * elements), min(1, elements)), elements)
