"""How sure is a figure? Intervals and tests, each where it fits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

Interval: TypeAlias = tuple[float, float]

_Z = 1.959963984540054  # 97.5 % of the normal distribution
RESAMPLES = 10_000


def wilson(hits: int, count: int) -> Interval | None:
    """The 95 % interval of a rate (Wilson 1927); None of nothing.

    Unlike the plain normal interval it stays within 0 and 1 and holds for few hits.
    """
    if count == 0:
        return None
    rate, z2 = hits / count, _Z * _Z
    middle = (rate + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z / (1 + z2 / count) * math.sqrt(rate * (1 - rate) / count + z2 / (4 * count**2))
    low = 0.0 if hits == 0 else max(0.0, middle - half)
    return low, 1.0 if hits == count else min(1.0, middle + half)


def bootstrap(
    values: Sequence[float] | np.ndarray,
    statistic: Callable[[np.ndarray], Any],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """The 95 % percentile interval of a statistic over resampled rows (Efron 1979).

    Args:
        values: (rows,) or (rows, columns).
        statistic: Takes resamples, (some, rows) or (some, rows, columns); gives a number for each.
        seed: Of the resampling: the same values give the same interval.
        resamples: How many.

    Returns:
        The interval; None of fewer than two rows.
    """
    import numpy as np

    table = np.asarray(values, dtype=float)
    if len(table) < 2:
        return None
    rng = np.random.default_rng(seed)
    chunk = max(1, 2_000_000 // table.size)
    found = [
        statistic(table[rng.integers(0, len(table), (min(chunk, resamples - first), len(table)))])
        for first in range(0, resamples, chunk)
    ]
    low, high = np.percentile(np.concatenate(found), [2.5, 97.5])
    return float(low), float(high)


def mean_interval(values: Sequence[float], *, seed: int = 0) -> Interval | None:
    """The bootstrap interval of a mean."""
    return bootstrap(values, lambda sample: sample.mean(axis=1), seed=seed)


def mcnemar(first_only: int, second_only: int) -> float:
    """The two-sided exact p-value that two rates over the same rows differ (McNemar 1947).

    Args:
        first_only: Rows that are hits of the first alone.
        second_only: Rows that are hits of the second alone.
    """
    count = first_only + second_only
    if count == 0:
        return 1.0
    tail = sum(math.comb(count, k) for k in range(min(first_only, second_only) + 1))
    return min(1.0, float(2 * tail / 2**count))
