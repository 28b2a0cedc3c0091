"""Which tests are made? Of methods against tasks, of trends, and of many comparisons at once.

scipy's and statsmodels', but for the analysis of variance of a table with one value a cell, whose
few sums are written here as Maxwell and Delaney have them, and tested against statsmodels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergecore.diagnose.association import scipy_stats
from mergecore.evaluate.backends import need

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Effect:
    """How much of the variance a factor explains, and how likely as much is by chance."""

    statistic: float
    p: float
    eta_squared: float | None = None
    """The factor's share of the sum of squares."""


@dataclass(frozen=True)
class TwoWay:
    """The two factors of a table."""

    rows: Effect
    columns: Effect


def two_way(table: Floats) -> TwoWay:
    """Analysis of variance of two factors without replication.

    Args:
        table: (methods, tasks), one value each; no NaN.
    """
    values = np.asarray(table, np.float64)
    grand = values.mean()
    count_rows, count_columns = values.shape
    of_rows = count_columns * float(((values.mean(axis=1) - grand) ** 2).sum())
    of_columns = count_rows * float(((values.mean(axis=0) - grand) ** 2).sum())
    total = float(((values - grand) ** 2).sum())
    left = (count_rows - 1) * (count_columns - 1)
    error = max(total - of_rows - of_columns, 0.0) / left

    def effect(squares: float, freedom: int) -> Effect:
        f = squares / freedom / error if error else float("inf") if squares else float("nan")
        p = float(scipy_stats().f.sf(f, freedom, left))
        return Effect(f, p, squares / total if total else None)

    return TwoWay(effect(of_rows, count_rows - 1), effect(of_columns, count_columns - 1))


def one_way(groups: Sequence[Sequence[float]]) -> Effect:
    """Analysis of variance of one factor."""
    found = scipy_stats().f_oneway(*groups)
    every = np.concatenate([np.asarray(group, np.float64) for group in groups])
    total = float(((every - every.mean()) ** 2).sum())
    between = sum(len(g) * float((np.mean(g) - every.mean()) ** 2) for g in groups)
    return Effect(float(found.statistic), float(found.pvalue), between / total if total else None)


def friedman(table: Floats) -> Effect:
    """Friedman's test of the rows (methods), the columns (tasks) being the blocks."""
    found = scipy_stats().friedmanchisquare(*np.asarray(table, np.float64))
    return Effect(float(found.statistic), float(found.pvalue))


def kruskal(groups: Sequence[Sequence[float]]) -> Effect:
    """Kruskal and Wallis' test of whether groups are of one distribution."""
    if np.ptp(np.concatenate([np.asarray(group, np.float64) for group in groups])) == 0:
        return Effect(0.0, 1.0)  # scipy refuses values that are all the same
    found = scipy_stats().kruskal(*groups)
    return Effect(float(found.statistic), float(found.pvalue))


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979); NaN stays NaN and does not count.

    Raises:
        RecipeError: statsmodels is not installed.
    """
    need("statsmodels", "report")
    from statsmodels.stats.multitest import multipletests

    values = np.asarray(p, np.float64)
    known = ~np.isnan(values)
    if known.any():
        values[known] = multipletests(values[known], method="holm")[1]
    return [float(value) for value in values]


def linear_fit(x: Sequence[float], y: Sequence[float]) -> float:
    """R² of a straight line through the points; NaN where y is constant."""
    if len(set(x)) < 2 or len(set(y)) < 2:
        return float("nan")
    return float(scipy_stats().linregress(x, y).rvalue ** 2)
