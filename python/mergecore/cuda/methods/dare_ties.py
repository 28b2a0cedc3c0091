"""DARE-TIES: DARE's drop and rescale, then TIES' election instead of its trim."""

from __future__ import annotations

from torch import Tensor

from mergecore.cuda.formula import Chunk, Facts, Parameters
from mergecore.cuda.kernels.elect import disjoint
from mergecore.cuda.methods.dare_linear import DareLinear


class DareTies(DareLinear):
    """DARE (Yu et al., ICML 2024), with the signs that TIES elects."""

    @classmethod
    def refuses(cls, parameters: Parameters) -> str | None:
        """Sums over the whole model are the engine's."""
        return "scope: model" if parameters["scope"] == "model" else None

    def merge(self, chunk: Chunk, facts: Facts) -> Tensor:
        """The merged chunk, of shape (n,)."""
        rows = self._thin.apply(chunk.inputs, chunk.first, facts.sums)
        return disjoint(rows, self.parameters["weight"], self.parameters["normalize"])
