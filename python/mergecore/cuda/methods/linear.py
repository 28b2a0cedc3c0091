"""Linear averaging: θ = Σ wᵢθᵢ / Σ wᵢ. Each product and sum is rounded once, as the engine's."""

from __future__ import annotations

import torch
from torch import Tensor

from mergecore.cuda.formula import Chunk, Facts, Formula
from mergecore.cuda.kernels.blend import divide, of, total_of
from mergecore.cuda.kernels.fused import fused


class Linear(Formula):
    """Weighted average of the models (Wortsman et al., Model soups, ICML 2022)."""

    of_task_vectors = False

    def merge(self, chunk: Chunk, facts: Facts) -> Tensor:
        """The merged chunk, of shape (n,)."""
        weights, dtype = self.parameters["weight"], self.place.dtype
        total = torch.zeros_like(chunk.inputs[0])
        for row, weight in zip(chunk.inputs, weights, strict=True):
            total = fused(row, of(weight, dtype), total)
        if self.parameters["normalize"]:
            return divide(total, total_of(weights, dtype))
        return total
