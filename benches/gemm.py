"""How fast could it be? The operations that a method states, and those that a product of matrices
does in a second on this machine."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Sequence

import torch

_COUNTS: dict[str, Callable[[float, float, int], float]] = {
    "4m²n + 9m³": lambda m, n, _: 4 * m * m * n + 9 * m**3,
    "(N + 3)(m²n + 9m³)": lambda m, n, models: (models + 3) * (m * m * n + 9 * m**3),
    "(N + 4)(3m²n + 9m³)": lambda m, n, models: (models + 4) * (3 * m * m * n + 9 * m**3),
}
"""The formulas in the registry's words, with m ≤ n and N models."""


def operations(cost: str, short: int, long: int, models: int) -> float:
    """How many, in f64, what has this `cost` in the registry does for one matrix."""
    stated = re.search("about (.*) operations", cost)
    return _COUNTS[stated[1] if stated else cost](short, long, models)


def peak(size: int) -> float:
    """Operations a second of torch's product of two f64 matrices, at its best of five."""
    a = torch.rand(size, size, dtype=torch.float64)
    b = torch.rand(size, size, dtype=torch.float64)
    torch.mm(a, b)
    return 2 * size**3 / min(_seconds(lambda: torch.mm(a, b)) for _ in range(5))


def of_peak(operations: float, seconds: Sequence[float], peak: float) -> tuple[str, str]:
    """GFLOP/s by the median of the runs, and their share of the peak, in words."""
    rate = operations / statistics.median(seconds)
    return f"{rate / 1e9:.1f}", f"{rate / peak:.0%}"


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
