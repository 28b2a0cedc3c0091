"""How far must one merged model be from several, in hidden states? Bounds from distances alone.

N models are N points in the space of their hidden states. What follows from their squared
distances: the smallest ball around them, which no single point can beat in the worst case; their
mean distance from the centroid, which none can beat on average; and the rate–distortion curve
between, how many bits about "which model is meant" buy how much nearness (Cao et al.,
arXiv:2603.09463, theorem 1, with what replaces its bounds).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_STEPS = 100_000
_NEAR = 1e-12


def jung(diameter_square: float, dimension: int) -> float:
    """Jung's bound on the squared radius: d / (2(d + 1)) Δ², as published."""
    return dimension / (2 * (dimension + 1)) * diameter_square


def simplex(diameter_square: float, models: int) -> float:
    """The same in the N − 1 dimensions that N points span: (N − 1) / (2N) Δ²."""
    return (models - 1) / (2 * models) * diameter_square


def enclosing_ball(squares: Floats) -> tuple[float, Floats]:
    """The smallest ball around points, from their squared distances.

    Its squared radius is the maximum of ½ aᵀ D a over the simplex (the dual of the ball's
    problem); a is found by steps towards the farthest point and away from the nearest that
    carries weight, each as long as is best (Guélat and Marcotte, 1986).

    Args:
        squares: D, N × N, squared distances of points of some Euclidean space.

    Returns:
        The squared radius; and the weights of the points in the center, N.
    """
    count = len(squares)
    weights = np.full(count, 1 / count)
    for _ in range(_STEPS):
        # To the center the squared distances are these, less one number for all.
        reach = squares @ weights
        far = int(np.argmax(reach))
        carried = np.flatnonzero(weights > 0)
        near = int(carried[np.argmin(reach[carried])])
        gap = reach[far] - reach[near]
        # Moving s from `near` to `far`: gain s·gap − s²·D.
        if gap <= _NEAR * max(float(reach.max()), 1e-300) or squares[far, near] == 0:
            break
        step = min(gap / (2 * squares[far, near]), weights[near])
        weights[far] += step
        weights[near] = 0 if step == weights[near] else weights[near] - step
    return float(weights @ squares @ weights) / 2, weights


def to_centroid(squares: Floats) -> float:
    """The mean squared distance from the centroid."""
    return float(squares.mean()) / 2


def rate_distortion(squares: Floats, points: int = 40) -> tuple[Floats, Floats]:
    """The curve R(D) of the models, each equally often meant, under mean squared distance.

    Blahut (1972) and Arimoto (1972), with reproductions that move to the centroids of what they
    stand for, as Rose (1994) shows is optimal for squared distances; along falling temperatures.

    Args:
        squares: N × N.
        points: Of the curve.

    Returns:
        D from 0 to the mean squared distance from the centroid, where one point serves all; and
        R in bits, from log2 of the number of different models to 0.
    """
    count, largest = len(squares), float(squares.max())
    if largest == 0:
        return np.zeros(1), np.zeros(1)
    scaled = squares / largest
    slopes = np.geomspace(2000, 0.25, points)
    # Row j: the weights of the models in reproduction j; at first each is a model.
    centers, shares = np.eye(count), np.full(count, 1 / count)
    distortions, rates = [], []
    for slope in slopes:
        for _ in range(3000):
            beside = scaled @ centers.T
            beside -= np.einsum("jk,kl,jl->j", centers, scaled, centers) / 2
            logs = np.log(np.maximum(shares, 1e-300)) - slope * beside
            logs -= logs.max(axis=1, keepdims=True)
            given = np.exp(logs)
            given /= given.sum(axis=1, keepdims=True)
            new = given.mean(axis=0)
            held = new > 1e-12
            moved = given.T / np.maximum(new, 1e-300)[:, None] / count
            moved = np.where(held[:, None], moved, centers)
            change = max(np.abs(moved - centers).max(), np.abs(new - shares).max())
            centers, shares = moved, new
            if change < 1e-9:
                break
        distortions.append(float((given * beside).sum(axis=1).mean()))
        with np.errstate(divide="ignore", invalid="ignore"):
            bits = np.where(given > 0, given * np.log2(given / np.maximum(shares, 1e-300)), 0)
        rates.append(float(bits.sum(axis=1).mean()))
    top = to_centroid(squares)
    d = np.array([0.0, *(x * largest for x in distortions), top])
    kinds = len(np.unique(np.round(scaled, 12), axis=0))
    r = np.array([np.log2(kinds), *rates, 0.0])
    order = np.argsort(d, kind="stable")
    # What iterations leave of a convex curve's slope is noise: it never rises.
    return d[order], np.minimum.accumulate(np.maximum(r[order], 0))
