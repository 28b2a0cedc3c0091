"""Which tests are made? Of methods against tasks, of trends, and of many comparisons at once.

scipy's, but for the analyses of variance, whose few sums are written here as Maxwell and Delaney
have them, and Holm's, both tested against statsmodels; and for permutations, of which a study's
eight models have few enough to count them all. What the data cannot tell is NaN.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mergecore.diagnose import association
from mergecore.diagnose.association import Association, scipy_stats, standard

Floats = NDArray[np.float64]

_NOISE = 1e-24
"""Of the sum of squares: what is below is left by rounding."""
_COUNTED = 8
"""Of so many models every order is counted: 40,320."""
_DRAWN = 9999
_NAN = float("nan")


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
    grand, (count_rows, count_columns) = values.mean(), values.shape
    of_rows, of_columns = values.mean(axis=1) - grand, values.mean(axis=0) - grand
    rest = values - grand - of_rows[:, None] - of_columns
    squares = (
        count_columns * float((of_rows**2).sum()),
        count_rows * float((of_columns**2).sum()),
        float((rest**2).sum()),
    )
    floor = _NOISE * float((values**2).sum())
    left = (count_rows - 1) * (count_columns - 1)
    return TwoWay(
        _effect(squares[0], count_rows - 1, squares[2], left, sum(squares), floor),
        _effect(squares[1], count_columns - 1, squares[2], left, sum(squares), floor),
    )


def one_way(groups: Sequence[Sequence[float]] | Floats) -> Effect:
    """Analysis of variance of one factor."""
    each = [np.asarray(group, np.float64) for group in groups]
    every = np.concatenate(each)
    between = sum(len(group) * float((group.mean() - every.mean()) ** 2) for group in each)
    within = sum(float(((group - group.mean()) ** 2).sum()) for group in each)
    floor = _NOISE * float((every**2).sum())
    left = len(every) - len(each)
    return _effect(between, len(each) - 1, within, left, between + within, floor)


def friedman(table: Floats) -> Effect:
    """Friedman's test of the rows (methods), the columns (tasks) being the blocks."""
    values = np.asarray(table, np.float64)
    if len(values) < 3:
        return Effect(_NAN, _NAN)  # scipy wants three
    if (values == values[0]).all():
        return Effect(0.0, 1.0)  # it divides by the ranks' variance, which is 0
    found = scipy_stats().friedmanchisquare(*values)
    return Effect(float(found.statistic), float(found.pvalue))


def kruskal(groups: Sequence[Sequence[float]] | Floats) -> Effect:
    """Kruskal and Wallis' test of whether groups are of one distribution."""
    if np.ptp(np.concatenate([np.asarray(group, np.float64) for group in groups])) == 0:
        return Effect(0.0, 1.0)  # scipy refuses values that are all the same
    found = scipy_stats().kruskal(*groups)
    return Effect(float(found.statistic), float(found.pvalue))


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979); NaN stays NaN and does not count.

    As statsmodels' `multipletests`, which collects garbage at every call: most of a page's time.
    """
    values = np.array(p, np.float64)
    order = np.argsort(values)[: int((~np.isnan(values)).sum())]
    steps = values[order] * np.arange(len(order), 0, -1)
    values[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return [float(value) for value in values]


def linear_fit(x: Sequence[float], y: Sequence[float]) -> float:
    """R² of a straight line through the points; NaN where y is constant."""
    if len(set(x)) < 2 or len(set(y)) < 2:
        return _NAN
    return float(scipy_stats().linregress(x, y).rvalue ** 2)


@dataclass(frozen=True)
class Trend:
    """Whether two things rise and fall together, by three tests."""

    count: int
    """Of the points at which both are known."""
    pearson: Association
    spearman: Association
    permuted: float
    """The p-value of Pearson's r by permutation, which assumes no distribution."""


def trend(x: Sequence[float | None], y: Sequence[float | None]) -> Trend:
    """Correlations over the points at which both are known.

    Pearson's needs finite numbers; Spearman's takes an infinite one for the largest.
    """
    pairs = [
        (float(one), float(other))
        for one, other in zip(x, y, strict=True)
        if one is not None and other is not None and one == one and other == other
    ]
    nothing = Association(_NAN, _NAN)
    first, second = [one for one, _ in pairs], [other for _, other in pairs]
    if len(pairs) < 3 or len(set(first)) < 2 or len(set(second)) < 2:
        return Trend(len(pairs), nothing, nothing, _NAN)
    ranks = association.spearman(first, second)
    if not np.isfinite([*first, *second]).all():
        return Trend(len(pairs), nothing, ranks, _NAN)
    return Trend(len(pairs), association.pearson(first, second), ranks, permuted(first, second))


def permuted(x: Sequence[float], y: Sequence[float], seed: int = 42) -> float:
    """How many orders of y correlate with x as strongly: all are counted of up to eight values."""
    one, other = standard(np.asarray(x, np.float64)), standard(np.asarray(y, np.float64))
    r = abs(float(one @ other))
    return float((np.abs(other[_orders(len(one), seed)] @ one) >= r - 1e-12).mean())


def mantel(a: Floats, b: Floats, seed: int = 42) -> Association:
    """Mantel's test as `association.mantel`, but of up to eight models every order is counted."""
    upper = np.triu_indices(len(a), 1)
    x, y = np.asarray(a, np.float64)[upper], np.asarray(b, np.float64)
    known = np.isfinite(x).all() and np.isfinite(y[upper]).all()
    if not known or not np.ptp(x) or not np.ptp(y[upper]):
        return Association(_NAN, _NAN)
    orders = _orders(len(y), seed)
    # The permuted pairs are the same numbers in another order: mean and length stay.
    others = y[orders[:, upper[0]], orders[:, upper[1]]] - y[upper].mean()
    one = standard(x)
    every = others @ one / np.linalg.norm(y[upper] - y[upper].mean())
    r = float(one @ standard(y[upper]))
    return Association(r, float((np.abs(every) >= abs(r) - 1e-12).mean()))


@lru_cache(maxsize=8)
def _orders(count: int, seed: int) -> NDArray[np.intp]:
    """All orders of so many, or some drawn at random and the one that is there."""
    if count <= _COUNTED:
        return np.array(list(itertools.permutations(range(count))), np.intp)
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(count) for _ in range(_DRAWN)]
    return np.array([np.arange(count), *drawn], np.intp)


def _effect(
    squares: float, freedom: int, error: float, left: int, total: float, floor: float
) -> Effect:
    """F of a factor, with what is rounding alone taken for none."""
    if total <= floor:
        return Effect(_NAN, _NAN)
    if left < 1 or freedom < 1:
        return Effect(_NAN, _NAN, squares / total)
    if error <= floor:
        found = (0.0, 1.0) if squares <= floor else (float("inf"), 0.0)
        return Effect(*found, squares / total)
    f = squares / freedom / (error / left)
    return Effect(f, float(scipy_stats().f.sf(f, freedom, left)), squares / total)
