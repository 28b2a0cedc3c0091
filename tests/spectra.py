"""Matrices made to order, and how the changes that merges make of them are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ml_dtypes
import numpy as np

Array = np.ndarray
BF16 = ml_dtypes.bfloat16

# Where the engine takes its turns: vectors, squares, either orientation, odd sizes.
SHAPES = [
    *((1, 1), (1, 7), (7, 1), (2, 2), (3, 5), (5, 3), (8, 8), (17, 8), (9, 33)),
    *((64, 63), (127, 65), (65, 127), (129, 129)),
]
LARGE = [(211, 697), (697, 211), (256, 256)]


def orthogonal(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """Orthonormal columns, as many as asked for, or else rows."""
    q, _ = np.linalg.qr(rng.normal(size=(max(rows, columns), min(rows, columns))))
    return q if rows >= columns else q.T


def with_spectrum(rng: np.random.Generator, shape: tuple[int, int], values: Array) -> Array:
    r = len(values)
    return (orthogonal(rng, shape[0], r) * values) @ orthogonal(rng, r, shape[1])


def power_law(r: int, condition: float) -> Array:
    """r values from 1 down to 1/condition, each σ_j = j^-p."""
    return np.arange(1, r + 1) ** -(np.log(condition) / np.log(max(r, 2)))


def geometric(r: int, condition: float) -> Array:
    return condition ** -(np.arange(r) / max(r - 1, 1))


def low_rank(rng: np.random.Generator, shape: tuple[int, int], rank: int) -> Array:
    return rng.normal(size=(shape[0], rank)) @ rng.normal(size=(rank, shape[1]))


def gaussian(rng: np.random.Generator, shape: tuple[int, int], tasks: int) -> list[Array]:
    return [rng.normal(size=shape) for _ in range(tasks)]


def near_duplicates(rng, shape: tuple[int, int], tasks: int, cosine=0.95) -> list[Array]:
    """Siblings: what they share and what each has alone, at this cosine."""
    shared = rng.normal(size=shape)
    own = gaussian(rng, shape, tasks)
    return [np.sqrt(cosine) * shared + np.sqrt(1 - cosine) * x for x in own]


def models(
    rng: np.random.Generator, deltas: Sequence[Array], dtype=np.float64, size=1.0
) -> tuple[Array, list[Array]]:
    """A base of that size, and the models that the deltas lead to."""
    base = (size * rng.normal(size=deltas[0].shape)).astype(dtype)
    return base, [(base.astype(np.float64) + d).astype(dtype) for d in deltas]


def change(merged: Array, base: Array) -> Array:
    return merged.astype(np.float64) - base.astype(np.float64)


def distance(actual: Array, expected: Array) -> float:
    """‖x − y‖ / ‖y‖; 0 if both are zero, and infinite if only y is."""
    off, size = np.linalg.norm(actual - expected), np.linalg.norm(expected)
    return float(off / size) if size else (0.0 if off == 0 else np.inf)


def assert_same_change(merged: Array, expected: Array, base: Array, tolerance=1e-5) -> None:
    """Equal as changes of the base, which the weights' own size would hide."""
    assert merged.shape == expected.shape
    assert np.isfinite(merged.astype(np.float64)).all()
    assert distance(change(merged, base), change(expected, base)) <= tolerance


def assert_equal_matrices(actual: Array, expected: Array, tolerance=1e-8) -> None:
    assert actual.shape == expected.shape
    assert distance(actual, expected) <= tolerance


def of_zero(method: Callable[..., Array]) -> Callable[..., Array]:
    """A method as a function of task vectors alone."""
    return lambda deltas, **options: method(list(deltas), np.zeros_like(deltas[0]), **options)
