"""Task arithmetic: Δ = Σ wᵢδᵢ."""

from __future__ import annotations

from torch import Tensor

from mergecore.cuda.formula import Chunk, Facts, Formula
from mergecore.cuda.kernels.blend import weighted_sum


class TaskArithmetic(Formula):
    """Weighted sum of the task vectors (Ilharco et al., ICLR 2023)."""

    def merge(self, chunk: Chunk, facts: Facts) -> Tensor:
        """The merged chunk, of shape (n,)."""
        parameters = self.parameters
        return weighted_sum(chunk.inputs, parameters["weight"], parameters["normalize"])
