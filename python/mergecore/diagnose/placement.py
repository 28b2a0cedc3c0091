"""Where does a finished merge lie between its parents?

The merge's task vector is split in two: the part that is a sum of the parents' (by least squares,
from the Gram matrix) and the rest, which no weights of theirs explain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mergecore.diagnose.figures import Figures, listed


@dataclass(frozen=True)
class Placement:
    """A merge, as seen from its parents and their base."""

    merge: str
    parents: list[str]
    coefficients: list[float]
    """The cᵢ for which Σ cᵢδᵢ comes nearest to the merge's change."""
    outside: float
    """‖δ − Σ cᵢδᵢ‖ / ‖δ‖: what no weights of the parents explain."""
    rounding: float
    """How much of it rounding the merge to its dtype makes, as a share of ‖δ‖ like `outside`."""
    cosines: list[float]
    """cos(δ, δᵢ)"""
    length: float
    """‖δ‖"""
    beside_mean: float
    """‖δ‖ / ‖mean of δᵢ‖"""

    def in_words(self) -> list[str]:
        """A few lines."""
        sum_ = " + ".join(
            f"{c:.3g} {parent}" for c, parent in zip(self.coefficients, self.parents, strict=True)
        )
        return [
            f"{self.merge} is the base + {sum_.replace('+ -', '- ')}, as task vectors, and"
            f" {self.outside:.1%} of its change is outside their span (rounding to its dtype makes"
            f" about {self.rounding:.1%})",
            f"its change is {self.beside_mean:.3g} times as long as the mean of theirs",
        ]

    def as_json(self) -> dict[str, Any]:
        return dict(listed(asdict(self)))


def place(models: Sequence[str], merge: int, parents: Sequence[int], figures: Figures) -> Placement:
    """Places model number `merge` between those of the numbers `parents`."""
    among = figures.gram[np.ix_(parents, parents)]
    towards = figures.gram[list(parents), merge]
    coefficients, *_ = np.linalg.lstsq(among, towards, rcond=1e-12)
    square = figures.gram[merge, merge]
    rest = max(square - coefficients @ towards, 0.0)
    mean = np.zeros(len(models))
    mean[list(parents)] = 1 / len(parents)
    length = figures.length(mean.tolist())
    return Placement(
        merge=models[merge],
        parents=[models[parent] for parent in parents],
        coefficients=[float(c) for c in coefficients],
        outside=float(np.sqrt(rest / square)) if square else 0.0,
        rounding=float(np.sqrt(figures.noise_share[merge])) if square else 0.0,
        cosines=[float(figures.cosine[merge, parent]) for parent in parents],
        length=float(np.sqrt(square)),
        beside_mean=float(np.sqrt(square) / length) if length else float("nan"),
    )
