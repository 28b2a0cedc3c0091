"""TSV-Merge: each task vector's leading singular vectors, at right angles with the others'."""

from __future__ import annotations

from torch import Tensor

from mergecore.cuda.formula import Parameters
from mergecore.cuda.methods.mean import Mean
from mergecore.cuda.spectral.account import Account
from mergecore.cuda.spectral.stack import Floor, Stack
from mergecore.cuda.vectors import Vectors


class Tsv(Mean):
    """TSV-Merge (Gargiulo et al., CVPR 2025); duplicates give one model's."""

    @staticmethod
    def solve(vectors: Vectors, parameters: Parameters) -> tuple[Tensor, Account]:
        """The merged matrix, without λ; and what is known of it.

        Raises:
            RunError: The result is not certified.
        """
        weights, tolerance = parameters["weight"], parameters["rank_tol"]
        stack: Stack | None = None
        delta: Tensor | None = None
        for model in range(len(weights)):
            del delta  # one matrix at a time, and the stack
            own = [weight if i == model else 0.0 for i, weight in enumerate(weights)]
            delta = vectors.sum(own)
            stack = stack or Stack(delta)
            count = min(delta.shape) // len(weights)
            stack.push(delta, count, Floor(tolerance, vectors.noise(own)))
        if stack is None or delta is None:
            raise ValueError("there is no model")
        return stack.merge(None, tolerance, delta)
