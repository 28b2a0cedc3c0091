"""Isotropic merging in common and task-specific subspaces."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from mergecore.cuda.formula import Parameters
from mergecore.cuda.methods.mean import Mean
from mergecore.cuda.spectral import spectrum
from mergecore.cuda.spectral.account import Account
from mergecore.cuda.spectral.product import oriented
from mergecore.cuda.spectral.stack import Floor, Stack
from mergecore.cuda.vectors import Vectors


class IsoCts(Mean):
    """Iso-CTS (Marczak et al., ICML 2025): the sum's directions, and each task vector's beyond."""

    @staticmethod
    def solve(vectors: Vectors, parameters: Parameters) -> tuple[Tensor, Account]:
        """The merged matrix, without λ; and what is known of it.

        Raises:
            RunError: The result is not certified.
        """
        weights, tolerance = parameters["weight"], parameters["rank_tol"]
        total = vectors.sum(weights)
        short = min(total.shape)
        own = own_count(short, len(weights), parameters["common_space_fraction"])
        common = short - len(weights) * own
        # What rounding makes of the sum is in what is left of each task vector, too.
        floor = Floor(tolerance, vectors.noise(weights))
        stack = Stack(total)
        stack.push(total, common, floor)
        for model in range(len(weights) if own else 0):
            alone = [weight if i == model else 0.0 for i, weight in enumerate(weights)]
            rest = vectors.sum(alone).double()
            # What is left of a task vector that lies in the common space is rounding, however
            # large beside itself.
            largest = spectrum.largest(oriented(rest))
            stack.leave_out(rest, common)
            stack.push(rest, own, replace(floor, left_of=largest))
        return stack.merge(stack.mean, tolerance, total)


def own_count(short: int, models: int, fraction: float) -> int:
    """How many of `short` singular vectors each task has; halves go to the even number."""
    rest = short - int(fraction * short)
    return min(round(rest / models), short // models)
