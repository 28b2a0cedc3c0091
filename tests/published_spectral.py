"""The spectral methods as their authors compute a matrix's change: no floor, no weights, no λ.

Written from the formulas and the code's order of steps, for comparison on matrices of full rank.
There `naive_spectral` gives the same; where rank is lacking, these fill the missing directions with
whatever orthonormal vectors LAPACK happens to give.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from naive import Array


def polar(matrix: Array) -> Array:
    u, _, v = np.linalg.svd(matrix, full_matrices=False)
    return u @ v


def iso_c(deltas: Sequence[Array]) -> Array:
    mean = sum(deltas) / len(deltas)
    u, s, v = np.linalg.svd(mean * len(deltas), full_matrices=False)
    return (u * np.full_like(s, s.mean())) @ v


def tsv(deltas: Sequence[Array]) -> Array:
    """Buffers of r columns; those that no task fills stay zero, and the polar factor fills them."""
    (m, n), r = deltas[0].shape, min(deltas[0].shape)
    k = r // len(deltas)
    left, values, right = np.zeros((m, r)), np.zeros(r), np.zeros((r, n))
    for i, delta in enumerate(deltas):
        u, s, v = np.linalg.svd(delta, full_matrices=False)
        part = slice(i * k, (i + 1) * k)
        left[:, part], values[part], right[part] = u[:, :k], s[:k], v[:k]
    return (polar(left) * values) @ polar(right)


def iso_cts(deltas: Sequence[Array], fraction=0.8) -> Array:
    r, tasks = min(deltas[0].shape), len(deltas)
    own = round((r - int(r * fraction)) / tasks) * tasks
    common, k = r - own, own // tasks
    u, s, v = np.linalg.svd(sum(deltas), full_matrices=False)
    shared = u[:, :common]
    left, values, right = [], [], []
    for delta in deltas:
        a, b, c = np.linalg.svd(delta - shared @ shared.T @ delta, full_matrices=False)
        left, values, right = [*left, a[:, :k]], [*values, b[:k]], [*right, c[:k]]
    left, right = np.hstack([*left, shared]), np.vstack([*right, v[:common]])
    values = np.concatenate([*values, s[:common]])
    return (polar(left) * np.full_like(values, values.mean())) @ polar(right)


def boost(delta: Array, beta=0.2) -> Array:
    u, s, v = np.linalg.svd(delta, full_matrices=False)
    shares = np.cumsum(s) / np.sum(s)
    first = int(np.flatnonzero(shares >= beta)[0])
    return (u * np.maximum(s, s[first])) @ v
