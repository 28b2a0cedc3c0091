"""The methods that decompose matrices, and the modifiers, as their formulas read.

Everything is an SVD by LAPACK in float64, of task vectors in the dtype of the arithmetic; what
comes out is rounded to that dtype once. A direction counts where its singular value is at or above
a floor: `rank_tol` times the largest singular value or, for "storage", the largest that the
rounding of the stored weights makes of nothing, noise·(√m + √n). A value of zero never counts.

`published_spectral` has the same methods without any floor, as their authors run them. On matrices
of full rank the two are one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import ml_dtypes
import numpy as np

from naive import Array, wide

RankTol = float | str

# The standard deviation of a dtype's rounding error, over the root mean square of what is rounded.
STORAGE = {
    np.dtype(np.float64): 2.0**-54.2,
    np.dtype(np.float32): 2.0**-25.2,
    np.dtype(np.float16): 2.0**-12.2,
    np.dtype(ml_dtypes.bfloat16): 2.0**-9.2,
}


class Triplets(NamedTuple):
    """Singular triplets: columns of u, values, rows of v."""

    u: Array
    s: Array
    v: Array

    def isometry(self) -> Array:
        return self.u @ self.v


def iso_c(models, base, weights=None, lambda_=1.0, matrices="linear", rank_tol=1e-6) -> Array:
    """σ̄ P(A) of A = Σ wδ, σ̄ the mean of its singular values, those that do not count being 0."""
    tasks, noises, mean = task_vectors(models, base, weights)
    if not is_matrix(base, matrices):
        return changed(base, models, mean, lambda_)
    total = sum(tasks)
    kept = triplets(total, floor(total, rank_tol, added(noises)))
    delta = kept.s.sum() / max(min(total.shape), 1) * kept.isometry()
    return changed(base, models, delta, lambda_)


def tsv(models, base, weights=None, lambda_=1.0, matrices="linear", rank_tol=1e-6) -> Array:
    """P(Ucat) S P(Vcat) of each task's top r // N triplets; the mean where that is none."""
    tasks, noises, mean = task_vectors(models, base, weights)
    if not is_matrix(base, matrices) or min(base.shape) < len(tasks):
        return changed(base, models, mean, lambda_)
    k = min(base.shape) // len(tasks)
    top = [
        triplets(task, floor(task, rank_tol, noise), k)
        for task, noise in zip(tasks, noises, strict=True)
    ]
    stacked = stack(top)
    left, right = (isometry(x, relative(rank_tol)) for x in (stacked.u, stacked.v))
    return changed(base, models, (left * stacked.s) @ right, lambda_)


def iso_cts(
    models,
    base,
    weights=None,
    lambda_=1.0,
    matrices="linear",
    rank_tol=1e-6,
    common_space_fraction=0.8,
) -> Array:
    """σ̄ P(Ucat) P(Vcat) of the sum's top c triplets and each task's top k beyond their left space.

    The floor of what is left of a task is no share of that, but of the whole task: of one that lies
    in the common space nothing is left but rounding, which is small beside the task alone. And its
    storage noise is that of the sum, from which the common space has it.
    """
    tasks, noises, mean = task_vectors(models, base, weights)
    if not is_matrix(base, matrices):
        return changed(base, models, mean, lambda_)
    total, noise, r = sum(tasks), added(noises), min(base.shape)
    common, k = split_rank(r, len(tasks), common_space_fraction)
    shared = triplets(total, floor(total, rank_tol, noise), common)
    own = [
        triplets(task - shared.u @ (shared.u.T @ task), floor(task, rank_tol, noise), k)
        for task in tasks
    ]
    stacked = stack([*own, shared])
    left, right = (isometry(x, relative(rank_tol)) for x in (stacked.u, stacked.v))
    return changed(base, models, stacked.s.sum() / max(r, 1) * left @ right, lambda_)


def boost(delta: Array, beta=0.2, rank_tol: RankTol = 1e-6, noise=0.0) -> Array:
    """Raises a matrix's singular values to the first at which a share β of their sum is reached.

    Those below the floor count in the sum and stay as they are. `noise` is the standard deviation
    of the matrix's elements by storage alone; the engine knows it, a bare matrix does not say it.
    """
    u, s, v = svd(delta.astype(np.float64))
    if not s.any():
        return delta
    running = np.cumsum(s)
    first = s[np.argmax(running >= beta * running[-1])]
    counts = s >= floor(delta.astype(np.float64), rank_tol, noise)
    return ((u * np.where(counts, np.maximum(s, first), s)) @ v).astype(delta.dtype)


def match_norm(
    deltas: Mapping[str, Array], targets: Mapping[str, Array], scope="tensor"
) -> dict[str, Array]:
    """Gives each change the norm of its target, or all of them together that of all targets."""
    names = [[name] for name in deltas] if scope == "tensor" else [list(deltas)]
    out = {}
    for group in names:
        own, wanted = (norm([of[name] for name in group]) for of in (deltas, targets))
        for name in group:
            factor = wanted / own if own else 1.0
            out[name] = (deltas[name].astype(np.float64) * factor).astype(deltas[name].dtype)
    return out


def split_rank(r: int, tasks: int, fraction: float) -> tuple[int, int]:
    """How many triplets are common, and how many are each task's: c + N·k = r."""
    k = round((r - int(fraction * r)) / tasks)  # Python rounds halves to even
    if tasks * k > r:
        k = r // tasks
    return r - tasks * k, k


def triplets(matrix: Array, least: float, most: int | None = None) -> Triplets:
    """The largest `most` singular triplets of those that count."""
    u, s, v = svd(matrix)
    count = np.count_nonzero((s[:most] >= least) & (s[:most] > 0))
    return Triplets(u[:, :count], s[:count], v[:count])


def svd(matrix: Array) -> tuple[Array, Array, Array]:
    """LAPACK's divide and conquer gives up on a rare matrix, and then not on its transpose."""
    try:
        return np.linalg.svd(matrix, full_matrices=False)
    except np.linalg.LinAlgError:
        u, s, v = np.linalg.svd(matrix.T, full_matrices=False)
        return v.T, s, u.T


def isometry(matrix: Array, rank_tol: float) -> Array:
    """The partial isometry nearest to a matrix: its polar factor where its directions count."""
    return triplets(matrix, floor(matrix, rank_tol, 0)).isometry()


def floor(matrix: Array, rank_tol: RankTol, noise: float) -> float:
    """The least singular value that counts."""
    if matrix.size == 0:
        return 0.0
    if rank_tol == "storage":
        return noise * (np.sqrt(matrix.shape[0]) + np.sqrt(matrix.shape[1]))
    return float(rank_tol) * float(svd(matrix)[1][0])


def relative(rank_tol: RankTol) -> float:
    """Singular vectors are not stored: "storage" says nothing of them."""
    return 1e-6 if rank_tol == "storage" else float(rank_tol)


def stack(parts: Sequence[Triplets]) -> Triplets:
    u, s, v = zip(*parts, strict=True)
    return Triplets(np.concatenate(u, axis=1), np.concatenate(s), np.concatenate(v, axis=0))


def task_vectors(models, base, weights) -> tuple[list[Array], list[float], Array]:
    """Each wδ in float64, its storage noise, and Σ wδ / N, which is what no matrix gets."""
    start, *wider = wide(base, *models)
    w = [1.0] * len(models) if weights is None else list(weights)
    tasks = [v * (x - start).astype(np.float64) for v, x in zip(w, wider, strict=True)]
    size = np.sqrt(np.mean(start.astype(np.float64) ** 2)) if start.size else 0.0
    noises = [abs(v) * STORAGE[x.dtype] * size for v, x in zip(w, models, strict=True)]
    return tasks, noises, sum(tasks) / len(tasks)


def changed(base: Array, models, delta: Array, lambda_: float) -> Array:
    start = wide(base, *models)[0]
    return start + (lambda_ * delta).astype(start.dtype)


def is_matrix(tensor: Array, matrices: str) -> bool:
    """Whether a tensor without a name is a matrix."""
    return tensor.ndim == 2 and matrices != "none"


def added(noises: Sequence[float]) -> float:
    """Of independent roundings the squares add up."""
    return float(np.sqrt(np.sum(np.square(noises))))


def norm(arrays: Sequence[Array]) -> float:
    return float(np.sqrt(sum(np.sum(x.astype(np.float64) ** 2) for x in arrays)))
