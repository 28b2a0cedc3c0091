"""Every merge method as its formula reads, in obvious NumPy: what the engine is tested against.

Arrays in, one array out. Arithmetic is float32, or float64 if any input is; the caller rounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

import mergecore

Array = np.ndarray
State = Mapping[str, Array]


def wide(*arrays: Array) -> list[Array]:
    """The arrays in the dtype of the arithmetic."""
    double = any(a.dtype == np.float64 for a in arrays)
    return [a.astype(np.float64 if double else np.float32) for a in arrays]


def shares(weights: Sequence[float] | None, n: int) -> list[float]:
    return [1 / n] * n if weights is None else list(weights)


def linear(models: Sequence[Array], weights=None, normalize=True) -> Array:
    models, w = wide(*models), shares(weights, len(models))
    total = sum(x * x.dtype.type(v) for x, v in zip(models, w, strict=True))
    return total / total.dtype.type(sum(w)) if normalize else total


def task_arithmetic(models, base, weights=None, lambda_=1.0, normalize=False) -> Array:
    base, deltas = _deltas(models, base)
    return base + _sum(deltas, shares(weights, len(deltas)), normalize) * base.dtype.type(lambda_)


def ties(models, base, weights=None, density=0.2, lambda_=1.0, normalize=True) -> Array:
    base, deltas = _deltas(models, base)
    densities = [density] * len(deltas) if np.isscalar(density) else density
    kept = [keep_largest(d, count_kept(r, d.size)) for d, r in zip(deltas, densities, strict=True)]
    merged = elect(kept, shares(weights, len(deltas)), normalize)
    return base + merged * base.dtype.type(lambda_)


def ties_whole_model(
    models: Sequence[State], base: State, weights=None, density=0.2, lambda_=1.0, normalize=True
) -> dict[str, Array]:
    """TIES as its paper has it: one threshold over all tensors, and one majority for zero sums."""
    names = list(base)
    flat = [np.concatenate(list(map(np.ravel, wide(*(m[k] for k in names))))) for m in models]
    start = np.concatenate(list(map(np.ravel, wide(*(base[k] for k in names)))))
    deltas = [x - start for x in flat]
    kept = [keep_largest(d, count_kept(density, d.size)) for d in deltas]
    w = shares(weights, len(deltas))
    total = sum(d * d.dtype.type(v) for d, v in zip(kept, w, strict=True))
    majority = 1 if np.sign(total).sum() >= 0 else -1
    merged = elect(kept, w, normalize, zero=majority)
    out, result, at = start + merged * start.dtype.type(lambda_), {}, 0
    for name in names:
        size = base[name].size
        result[name] = out[at : at + size].reshape(base[name].shape)
        at += size
    return result


def dare_linear(
    models, base, weights=None, density=0.5, lambda_=1.0, normalize=False, rescale="inverse", **key
) -> Array:
    base, deltas = _deltas(models, base)
    dropped = [drop(d, i, density, rescale, **key) for i, d in enumerate(deltas)]
    return base + _sum(dropped, shares(weights, len(deltas)), normalize) * base.dtype.type(lambda_)


def dare_ties(
    models, base, weights=None, density=0.5, lambda_=1.0, normalize=False, rescale="inverse", **key
) -> Array:
    base, deltas = _deltas(models, base)
    dropped = [drop(d, i, density, rescale, **key) for i, d in enumerate(deltas)]
    merged = elect(dropped, shares(weights, len(deltas)), normalize)
    return base + merged * base.dtype.type(lambda_)


def breadcrumbs(
    models,
    base,
    weights=None,
    density=0.1,
    gamma=0.01,
    lambda_=1.0,
    normalize=False,
    rescale="none",
) -> Array:
    base, deltas = _deltas(models, base)
    kept = [crumbs(d, density, gamma, rescale) for d in deltas]
    return base + _sum(kept, shares(weights, len(deltas)), normalize) * base.dtype.type(lambda_)


def breadcrumbs_ties(
    models,
    base,
    weights=None,
    density=0.1,
    gamma=0.01,
    lambda_=1.0,
    normalize=False,
    rescale="none",
) -> Array:
    base, deltas = _deltas(models, base)
    kept = [crumbs(d, density, gamma, rescale) for d in deltas]
    merged = elect(kept, shares(weights, len(deltas)), normalize)
    return base + merged * base.dtype.type(lambda_)


def della(
    models, base, weights=None, density=0.5, epsilon=0.15, lambda_=1.0, normalize=True, **options
) -> Array:
    base, deltas = _deltas(models, base)
    pruned = [prune(d, i, density, epsilon, **options) for i, d in enumerate(deltas)]
    merged = elect(pruned, shares(weights, len(deltas)), normalize)
    return base + merged * base.dtype.type(lambda_)


def della_linear(
    models, base, weights=None, density=0.5, epsilon=0.15, lambda_=1.0, normalize=False, **options
) -> Array:
    base, deltas = _deltas(models, base)
    pruned = [prune(d, i, density, epsilon, **options) for i, d in enumerate(deltas)]
    return base + _sum(pruned, shares(weights, len(deltas)), normalize) * base.dtype.type(lambda_)


def sce(models, base, select_topk=1.0, lambda_=1.0) -> Array:
    base, deltas = _deltas(models, base)
    d = np.array(deltas)
    if select_topk < 1:
        variance = np.var(d.astype(np.float64) - d[0], axis=0).astype(d.dtype)
        k = int(np.float32(np.count_nonzero(variance)) * np.float32(select_topk))
        d = np.where(keep_largest(variance, k) != 0, d, d.dtype.type(0))
    square = [(x.astype(np.float64) ** 2).mean() if x.size else 0 for x in d]
    w = np.array(square) / sum(square) if sum(square) >= 1e-6 else np.full(len(d), 1 / len(d))
    w = w.astype(d.dtype).reshape(-1, *[1] * base.ndim)
    agree = np.where(d.sum(axis=0) >= 0, d > 0, d < 0)
    total, divisor = (w * d * agree).sum(axis=0), (w * agree).sum(axis=0)
    return base + total / np.maximum(divisor, d.dtype.type(1e-6)) * d.dtype.type(lambda_)


def ram(models, base, epsilon=1e-5, lambda_=1.0) -> Array:
    return ramplus_tl(models, base, 0.0, 0.0, epsilon, lambda_)


def ramplus_tl(models, base, r=0.1, alpha=0.2, epsilon=1e-5, lambda_=1.0) -> Array:
    base, deltas = _deltas(models, base)
    one = base.dtype.type
    active = [np.abs(d) > one(epsilon) for d in deltas]
    count = sum(a.astype(int) for a in active)
    total = np.zeros_like(base)
    for d, a in zip(deltas, active, strict=True):
        shared, own = np.count_nonzero(a & (count > 1)), np.count_nonzero(a & (count == 1))
        factor = 1 + r * np.clip(shared / max(own, epsilon), 0, alpha)
        total += np.where(a, d * np.where(count == 1, one(factor), one(1)), one(0))
    return base + total / np.maximum(count, 1).astype(base.dtype) * one(lambda_)


def nearswap(models, base, t=0.0001, lambda_=1.0) -> Array:
    base, (delta,) = _deltas(models, base)
    share = np.clip(t / np.maximum(np.abs(delta), 1e-6), 0, 1).astype(delta.dtype)
    return base + delta * share * delta.dtype.type(lambda_)


def arcee_fusion(models, base, lambda_=1.0) -> Array:
    base, (delta,) = _deltas(models, base)
    if delta.size == 0:
        return base
    start = np.atleast_1d(base.astype(np.float64))
    p, q = (softmax(x) + 1e-8 for x in (start + delta, start))
    moved = (p * np.log(p / q)).sum(axis=-1, keepdims=True)
    importance = (np.abs(delta) * np.maximum(moved, 0)).astype(delta.dtype).reshape(delta.shape)
    low, middle, high = (
        np.sort(importance.ravel())[int(q * (delta.size - 1))] for q in (0.25, 0.5, 0.75)
    )
    kept = importance >= middle + delta.dtype.type(1.5) * (high - low)
    return base + np.where(kept, delta, delta.dtype.type(0)) * delta.dtype.type(lambda_)


def passthrough(models, scale=1.0) -> Array:
    (x,) = wide(*models)
    return x * x.dtype.type(scale)


def slerp(first: Array, second: Array, t=0.5) -> Array:
    a, b = wide(first, second)
    one = a.dtype.type
    x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    length = [n if n > 1e-8 else 1.0 for n in (np.sqrt(x @ x), np.sqrt(y @ y))]
    cosine = np.clip((x @ y) / (length[0] * length[1]), -1, 1)
    if abs(cosine) > 0.9995:
        return one(1 - t) * a + one(t) * b
    angle = np.arccos(cosine)
    return (
        one(np.sin((1 - t) * angle) / np.sin(angle)) * a
        + one(np.sin(t * angle) / np.sin(angle)) * b
    )


def nuslerp(models, base=None, weights=None, nuslerp_flatten=True, nuslerp_row_wise=False) -> Array:
    start, (a, b) = _from(models, base)
    w = shares(weights, 2)
    t = w[1] / (w[0] + w[1]) if abs(w[0] + w[1]) >= 1e-6 else 0.5
    whole = nuslerp_flatten or a.ndim == 0
    axis = None if whole else (0 if nuslerp_row_wise else -1)
    x, y = a.astype(np.float64), b.astype(np.float64)
    norms = [np.maximum(np.sqrt(np.sum(v * v, axis, keepdims=True)), 1e-7) for v in (x, y)]
    cosine = np.clip(np.sum(x * y, axis, keepdims=True) / (norms[0] * norms[1]), -1, 1)
    straight = 1 - np.abs(cosine) < np.finfo(a.dtype).eps / 4
    angle = np.where(straight, 1.0, np.arccos(cosine))
    one = np.where(straight, 1 - t, np.sin((1 - t) * angle) / np.sin(angle))
    two = np.where(straight, t, np.sin(t * angle) / np.sin(angle))
    return start + (one * x + two * y).astype(a.dtype)


def multislerp(models, base=None, weights=None, normalize_weights=True, eps=1e-8) -> Array:
    start, deltas = _from(models, base)
    w = np.array(shares(weights, len(deltas)))
    w = w / w.sum() if normalize_weights else w
    flat = [d.astype(np.float64) for d in deltas]
    norms = np.array([np.sqrt(np.sum(x * x)) for x in flat])
    mean = sum(x * v / (n + eps) for x, v, n in zip(flat, w, norms, strict=True))
    length = np.sqrt(np.sum(mean * mean))
    plain = sum(x * v for x, v in zip(flat, w, strict=True))
    merged = plain if length < max(eps, 1e-7) else mean / length * (w @ norms)
    return start + np.asarray(merged).astype(deltas[0].dtype)


def karcher(models, max_iter=10, tol=1e-5) -> Array:
    models = wide(*models)
    flat = [x.astype(np.float64) for x in models]
    norms = [np.sqrt(np.sum(x * x)) for x in flat]
    directions = [x / n for x, n in zip(flat, norms, strict=True) if n > tol]
    if not directions:
        return np.zeros_like(models[0])
    mean = sum(directions) / len(directions)
    mean = directions[0] if np.linalg.norm(mean) < tol else mean / np.linalg.norm(mean)
    for _ in range(max_iter):
        cosines = [np.clip(np.sum(u * mean), -1, 1) for u in directions]
        arcs = [
            (u - c * mean) * np.arccos(c) / np.sqrt(1 - c * c)
            for u, c in zip(directions, cosines, strict=True)
            if np.arccos(c) >= tol and 1 - c * c > 1e-12
        ]
        step = sum(arcs) / len(directions)
        length = np.linalg.norm(step)
        if length < tol:
            break
        mean = np.cos(length) * mean + np.sin(length) / length * step
        mean = mean / np.linalg.norm(mean)
    return (np.mean(norms) * mean).astype(models[0].dtype)


def model_stock(models, base, filter_wise=False, clamp=True) -> Array:
    base, deltas = _deltas(models, base)
    n, axis = len(deltas), (-1 if filter_wise and base.ndim else None)
    x = [d.astype(np.float64) for d in deltas]
    norms = [np.sqrt(np.sum(d * d, axis, keepdims=True)) for d in x]
    least = 5e-324 if clamp else 1e-6
    cosines = [
        np.sum(x[i] * x[j], axis, keepdims=True) / np.maximum(norms[i] * norms[j], least)
        for i in range(n)
        for j in range(i + 1, n)
    ]
    cosine = np.clip(cosines, -1, 1).mean(axis=0)
    divisor = 1 + (n - 1) * cosine
    flat = np.abs(divisor) < 1e-6
    t = np.where(flat, 0, n * cosine / np.where(flat, 1, divisor))
    t = np.clip(t, 0, 1) if clamp else t
    return base + (t * sum(x) / n).astype(base.dtype)


def count_kept(density: float, size: int) -> int:
    return 0 if density <= 0 or size == 0 else max(1, int(density * size))


def keep_largest(delta: Array, k: int) -> Array:
    """The k largest by magnitude; of equal ones those with the lowest index."""
    order = np.argsort(-np.abs(delta.ravel()), kind="stable")
    kept = np.zeros(delta.size, bool)
    kept[order[:k]] = True
    return np.where(kept.reshape(delta.shape), delta, delta.dtype.type(0))


def elect(deltas: Sequence[Array], weights: Sequence[float], normalize: bool, zero=1) -> Array:
    """Sums what agrees with the sign of the weighted sum; `zero` is the sign where that is zero."""
    weighted = [d * d.dtype.type(w) for d, w in zip(deltas, weights, strict=True)]
    sign = np.sign(sum(weighted))
    sign = np.where(sign == 0, zero, sign)
    agree = [np.sign(x) == sign for x in weighted]
    total = sum(np.where(m, x, x.dtype.type(0)) for x, m in zip(weighted, agree, strict=True))
    if not normalize:
        return total
    divisor = sum(m * total.dtype.type(w) for m, w in zip(agree, weights, strict=True))
    return total / np.where(divisor == 0, 1, divisor).astype(total.dtype)


def drop(delta: Array, model: int, density: float, rescale: str, name="", seed=42) -> Array:
    """DARE: keeps each element with the probability `density`, and makes up for the rest."""
    if density >= 1:
        return delta
    if density <= 0:
        return np.zeros_like(delta)
    mask = mergecore.random_mask(seed, name, model, count=delta.size, density=density)
    kept = np.where(mask.reshape(delta.shape), delta, delta.dtype.type(0))
    return rescaled(delta, kept, rescale, density)


def crumbs(delta: Array, density: float, gamma: float, rescale: str) -> Array:
    """Of the elements from the largest down: drops gamma of them, keeps density, drops the rest."""
    if density >= 1:
        return delta
    count = int(density * delta.size)
    outliers = min(int(gamma * delta.size), delta.size - count)
    both, largest = keep_largest(delta, count + outliers), keep_largest(delta, outliers)
    return rescaled(delta, np.where(largest != 0, delta.dtype.type(0), both), rescale, density)


def prune(delta, model, density, epsilon, rescale="inverse", name="", seed=42) -> Array:
    """DELLA: keeps each element with a probability that grows with its rank in its row."""
    if density >= 1 or density <= 0:
        return delta if density >= 1 else np.zeros_like(delta)
    rows = np.atleast_1d(delta)
    if rows.shape[-1] == 1:
        chance = np.full(delta.shape, density, delta.dtype)
    else:
        # Of equal magnitudes the lowest index is the largest: ascending from the far end.
        order = rows.shape[-1] - 1 - np.argsort(np.abs(rows[..., ::-1]), axis=-1, kind="stable")
        rank = np.argsort(order, axis=-1).astype(delta.dtype) / delta.dtype.type(rows.shape[-1] - 1)
        chance = delta.dtype.type(density - epsilon) + rank * delta.dtype.type(2 * epsilon)
    kept = np.zeros(delta.shape, bool)
    for p in np.unique(chance):
        mask = mergecore.random_mask(seed, name, model, count=delta.size, density=float(p))
        kept |= mask.reshape(delta.shape) & (chance == p)
    dropped = np.where(kept, delta, delta.dtype.type(0))
    return rescaled(delta, dropped, rescale, chance)


def rescaled(delta: Array, kept: Array, rescale: str, chance: float | Array) -> Array:
    """What is left of a delta, made up for: over its chance, or to the same sum of magnitudes."""
    if rescale == "inverse":
        return kept / np.asarray(chance, delta.dtype)
    if rescale == "l1":
        before, after = (np.abs(d).astype(np.float64).sum() for d in (delta, kept))
        return kept if min(before, after) < 1e-7 else kept * delta.dtype.type(before / after)
    return kept


def softmax(x: Array) -> Array:
    """Of each vector along the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _deltas(models: Sequence[Array], base: Array) -> tuple[Array, list[Array]]:
    base, *models = wide(base, *models)
    return base, [x - base for x in models]


def _from(models: Sequence[Array], base: Array | None) -> tuple[Array | float, list[Array]]:
    """Zero and the models; or the base, and the models as changes from it."""
    return (0, wide(*models)) if base is None else _deltas(models, base)


def _sum(deltas: Sequence[Array], weights: Sequence[float], normalize: bool) -> Array:
    total = sum(d * d.dtype.type(w) for d, w in zip(deltas, weights, strict=True))
    divisor = sum(weights)
    return total / total.dtype.type(divisor) if normalize and abs(divisor) >= 1e-8 else total
