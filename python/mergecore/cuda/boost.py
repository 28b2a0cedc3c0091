"""Subspace Boosting: raises the small singular values of a merged task vector.

Skorobogat et al. (2025), arXiv:2506.16506; the engine's modifier of that name.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mergecore.cuda.formula import Parameters
from mergecore.cuda.spectral.account import Account
from mergecore.cuda.spectral.reshape import reshape
from mergecore.cuda.spectral.tolerance import Tolerance


def boost(matrix: Tensor, parameters: Parameters, tolerance: Tolerance, noise: float) -> Account:
    """Raises σⱼ to the first at which a share β of Σσ is reached, in place.

    Args:
        matrix: A merged task vector, finite, of shape (m, n); overwritten.
        parameters: The modifier's, complete.
        tolerance: What is no direction, and stays as it is.
        noise: The largest singular value that rounding makes.

    Raises:
        RunError: The result is not certified.
    """
    beta = parameters["beta"]

    def sizes(sigma: Tensor, rank: int) -> Tensor:
        reached = torch.nonzero(sigma.cumsum(0) / sigma.sum() >= beta)
        least = float(sigma[reached[0]]) if len(reached) else 0.0
        return sigma[:rank].clamp(min=least)

    return reshape(matrix, tolerance, noise, sizes, keep_rest=True)
