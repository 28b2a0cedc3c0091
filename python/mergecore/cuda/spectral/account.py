"""What is known of a matrix that was merged by its singular values, and may it be believed?"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mergecore.cuda.spectral.spectrum import Spectrum
from mergecore.cuda.spectral.tolerance import rank
from mergecore.errors import RunError

BOUND = 1e-5
"""What a result may differ by from what it should be, relatively: the engine's certificate."""


@dataclass(frozen=True)
class Account:
    """The figures that the engine's report has of a matrix, under the same names."""

    rank: int = 0
    """How many directions are kept."""
    stable_rank: float = 0.0
    """‖A‖²/σ₁² of what it was made of; of several matrices the least."""
    noise_share: float = 0.0
    """The share of Σσ that lies below what rounding makes; of several matrices the largest."""
    orthogonality: float = 0.0
    residual: float = 0.0
    """How far singular values and vectors, and products, are from what they should be."""

    @staticmethod
    def of(spectrum: Spectrum, noise: float, floor: float) -> Account:
        """Of a matrix with that spectrum."""
        sigma = spectrum.sigma
        if float(sigma[0]) == 0:
            return Account()
        return Account(
            rank=rank(sigma, floor),
            stable_rank=float((sigma / sigma[0]).square().sum()),
            noise_share=float(sigma[sigma < noise].sum() / sigma.sum()),
        )

    def seen(self) -> Account:
        """With no stable rank where nothing had one."""
        return self if math.isfinite(self.stable_rank) else replace(self, stable_rank=0.0)

    def and_(self, other: Account) -> Account:
        """Of several matrices that one result is made of."""
        return Account(
            rank=max(self.rank, other.rank),
            stable_rank=min(self.stable_rank, other.stable_rank),
            noise_share=max(self.noise_share, other.noise_share),
            orthogonality=_worse(self.orthogonality, other.orthogonality),
            residual=_worse(self.residual, other.residual),
        )

    def certified(self, result: Tensor) -> Account:
        """Itself, if the result is what it should be.

        One whose numbers its dtype holds to a few digits only cannot be told from a wrong one.

        Raises:
            RunError: It is not.
        """
        least = torch.finfo(result.dtype).smallest_normal * torch.finfo(result.dtype).eps
        tiny = float(result.abs().max()) < 1e8 * least
        # Each by itself: NaN is not below the bound.
        if tiny or (self.orthogonality <= BOUND and self.residual <= BOUND):
            return self
        raise RunError(
            f"its result is wrong: orthogonality {self.orthogonality:.1e}, residual"
            f" {self.residual:.1e}, {BOUND:.0e} are allowed; please report it"
        )


NONE = Account(stable_rank=math.inf)
"""Of no matrix yet: whatever comes has a smaller stable rank."""


def _worse(a: float, b: float) -> float:
    """The larger; NaN if one is."""
    return a if math.isnan(a) or a > b else b
