"""Isotropic merging: the sum of the task vectors, with all its singular values alike."""

from __future__ import annotations

import torch
from torch import Tensor

from mergecore.cuda.formula import Parameters
from mergecore.cuda.methods.mean import Mean
from mergecore.cuda.spectral.account import Account
from mergecore.cuda.spectral.reshape import reshape
from mergecore.cuda.vectors import Vectors


class IsoC(Mean):
    """Iso-C (Marczak et al., ICML 2025): σ̄·polar(Σδ), without what is below the floor."""

    @staticmethod
    def solve(vectors: Vectors, parameters: Parameters) -> tuple[Tensor, Account]:
        """The merged matrix, without λ; and what is known of it.

        Raises:
            RunError: The result is not certified.
        """
        weights = parameters["weight"]
        merged = vectors.sum(weights)

        def alike(sigma: Tensor, rank: int) -> Tensor:
            return torch.full_like(sigma[:rank], float(sigma[:rank].sum()) / len(sigma))

        noise = vectors.noise(weights)
        return merged, reshape(merged, parameters["rank_tol"], noise, alike, keep_rest=False)
