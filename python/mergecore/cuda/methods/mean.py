"""What methods that look at singular values make of tensors that are no matrices: Σ wᵢδᵢ / N."""

from __future__ import annotations

from torch import Tensor

from mergecore.cuda.formula import Chunk, Facts, Formula
from mergecore.cuda.kernels.blend import mean


class Mean(Formula):
    """The weighted mean of the task vectors."""

    def merge(self, chunk: Chunk, facts: Facts) -> Tensor:
        """The merged chunk, of shape (n,)."""
        return mean(chunk.inputs, self.parameters["weight"])
