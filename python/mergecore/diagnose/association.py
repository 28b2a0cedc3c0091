"""Do merging difficulty and merging loss go together? Tests for a few models, and for their pairs.

Correlations and their p-values are scipy's. Pairs of N models share the models, so that the
p-value of a correlation over pairs, which takes them for independent, is too small; the Mantel test
permutes the models instead (Mantel, 1967).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mergecore.diagnose.bounds import Floats
from mergecore.errors import RecipeError


@dataclass(frozen=True)
class Association:
    """A correlation, and how likely one as strong is by chance alone (two-sided)."""

    statistic: float
    p: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def merging_loss(merged: Sequence[float], tuned: Sequence[float]) -> Floats:
    """(Pᵢ(merged) / Pᵢ(fine-tuned on i) − 1) · 100 %, of each task (Cao et al., eq. 1).

    Args:
        merged: The merge's performance on each task.
        tuned: That of the model which was tuned on the task; above zero.
    """
    return (np.asarray(merged, np.float64) / np.asarray(tuned, np.float64) - 1) * 100


def mean_and_deviation(losses: Sequence[float]) -> tuple[float, float]:
    """The mean loss, as a positive number, and its population standard deviation (ddof 0)."""
    values = -np.asarray(losses, np.float64)
    return float(values.mean()), float(values.std())


def pearson(x: Sequence[float], y: Sequence[float]) -> Association:
    """Pearson's r with its p-value.

    Raises:
        RecipeError: scipy is not installed.
    """
    found = scipy_stats().pearsonr(x, y)
    return Association(float(found.statistic), float(found.pvalue))


def spearman(x: Sequence[float], y: Sequence[float]) -> Association:
    """Spearman's ρ with its p-value.

    Raises:
        RecipeError: scipy is not installed.
    """
    found = scipy_stats().spearmanr(x, y)
    return Association(float(found.statistic), float(found.pvalue))


def mantel(a: Floats, b: Floats, permutations: int = 9999, seed: int = 42) -> Association:
    """Pearson's r of two symmetric matrices' pairs, and its p by permuting the models of one.

    Args:
        a: N × N; the diagonal is not looked at.
        b: N × N.
        permutations: How many, drawn at random; the order as it is counts as one more.
        seed: Of the draw.
    """
    upper = np.triu_indices(len(a), 1)
    x, y = standard(np.asarray(a)[upper]), np.asarray(b, np.float64)
    if np.isnan(x).any() or np.isnan(y[upper]).any():
        return Association(float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    r = float(x @ standard(y[upper]))
    as_strong = 1
    for _ in range(permutations):
        order = rng.permutation(len(y))
        permuted = float(x @ standard(y[np.ix_(order, order)][upper]))
        as_strong += abs(permuted) >= abs(r) - 1e-12
    return Association(r, as_strong / (permutations + 1))


def standard(values: Floats) -> Floats:
    """The values less their mean, of length 1; zeros where they are all the same."""
    centered = values - values.mean()
    length = np.linalg.norm(centered)
    return np.asarray(centered / length if length else centered, np.float64)


def scipy_stats() -> Any:
    """scipy.stats.

    Raises:
        RecipeError: scipy is not installed.
    """
    try:
        from scipy import stats
    except ImportError as error:
        raise RecipeError("correlations need scipy: pip install 'mergecore[report]'") from error
    return stats
