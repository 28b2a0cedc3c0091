"""What follows from the sums over some tensors? Norms, angles, and how far task vectors disagree.

Task vectors are the models' changes from their base, δᵢ = θᵢ − θ₀. The engine sums tensor by
tensor; these add up to the sums of a layer, of a kind of module, of the model. The conflict metrics
are those of Cao et al. (arXiv:2603.09463, section 3.2); where two weights count as of differing
sign, neither is zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Figures:
    """Sums over some tensors of a base and N models, and what follows from them.

    Elements at which the base or any model is NaN or infinite are in none of the sums but in
    `nan` and `inf`.
    """

    elements: int
    """Those that were summed."""
    left_out: int
    """Elements at which something is not finite."""
    base_square: float
    """‖θ₀‖²"""
    gram: Floats
    """⟨δᵢ, δⱼ⟩, N × N."""
    l1: Floats
    """Σ|δᵢ|, N."""
    zeros: Floats
    """How many elements of δᵢ are exactly zero, N."""
    noise_square: Floats
    """The square that rounding alone gives δᵢ where it has changed at all, N."""
    nan: Floats
    """NaN in each model, N."""
    inf: Floats
    """Infinite values in each model, N."""
    apart: Floats
    """Σ|δᵢ − δⱼ|, N × N."""
    conflicts: Floats
    """How many elements of δᵢ and δⱼ have differing signs, N × N."""
    conflicting: Floats
    """Σ|δᵢ − δⱼ| of those, N × N."""

    @classmethod
    def of(cls, told: dict[str, Any]) -> Figures:
        """Those of one tensor, in the engine's words; a sum that is not finite is null there."""
        told = {key: _numbers(value) for key, value in told.items()}
        models = len(told["l1"])
        upper, pairs = _triangle(models, 0), _triangle(models, 1)
        touched = np.array(told["touched_square"], np.float64)
        left_out = int(told["left_out"])
        return cls(
            elements=int(np.prod(told["shape"], dtype=np.int64)) - left_out,
            left_out=left_out,
            base_square=float(told["base_square"]),
            gram=_symmetric(models, upper, told["dots"]),
            l1=np.array(told["l1"], np.float64),
            zeros=np.array(told["zeros"], np.float64),
            noise_square=np.array(told["rounding"], np.float64) ** 2 * touched,
            nan=np.array(told["nan"], np.float64),
            inf=np.array(told["inf"], np.float64),
            apart=_symmetric(models, pairs, told["apart"]),
            conflicts=_symmetric(models, pairs, told["conflicts"]),
            conflicting=_symmetric(models, pairs, told["conflicting"]),
        )

    @classmethod
    def total(cls, parts: Iterable[Figures]) -> Figures:
        """Those of several tensors together; there must be one at least."""
        first, *others = parts
        sums = {field.name: getattr(first, field.name) for field in fields(cls)}
        for part in others:
            for name in sums:
                sums[name] = sums[name] + getattr(part, name)
        return cls(**sums)

    @property
    def norms(self) -> Floats:
        """‖δᵢ‖, the L2 distance from the base; N."""
        return np.sqrt(np.diag(self.gram))

    @property
    def base_norm(self) -> float:
        """‖θ₀‖"""
        return float(np.sqrt(self.base_square))

    @property
    def relative(self) -> Floats:
        """‖δᵢ‖ / ‖θ₀‖; NaN where the base is zero and the model is, too. N."""
        return _over(self.norms, self.base_norm)

    @property
    def cosine(self) -> Floats:
        """cos(δᵢ, δⱼ); NaN beside a model that has not changed. N × N."""
        # One root of a product: the cosine of equal vectors is 1 to the last bit.
        squares = np.diag(self.gram)
        with np.errstate(over="ignore", invalid="ignore"):
            lengths = np.sqrt(np.outer(squares, squares))
        return np.clip(_over(self.gram, lengths), -1, 1)

    @property
    def distances(self) -> Floats:
        """‖θᵢ − θⱼ‖, N × N. By the Gram matrix: below 1e-8 of the norms it is zero."""
        squares = np.diag(self.gram)
        with np.errstate(invalid="ignore"):
            apart = np.maximum(squares[:, None] + squares - 2 * self.gram, 0)
            return np.asarray(np.sqrt(apart), np.float64)

    @property
    def zero_share(self) -> Floats:
        """The share of weights that have not moved, N."""
        return _over(self.zeros, self.elements)

    @property
    def noise_share(self) -> Floats:
        """The share of ‖δᵢ‖² that rounding θᵢ to its dtype explains, at most 1. N."""
        return np.minimum(_over(self.noise_square, np.diag(self.gram)), 1)

    @property
    def magnitude_change(self) -> Floats:
        """Σ|δᵢ − δⱼ| / Σ(|δᵢ| + |δⱼ|), N × N."""
        return _over(self.apart, self.l1[:, None] + self.l1)

    @property
    def sign_change(self) -> Floats:
        """The share of elements whose signs differ, N × N."""
        return _over(self.conflicts, self.elements)

    @property
    def conflicting_magnitude_change(self) -> Floats:
        """Σ|δᵢ − δⱼ| where signs differ, over Σ(|δᵢ| + |δⱼ|) of all; N × N."""
        return _over(self.conflicting, self.l1[:, None] + self.l1)

    def length(self, weights: Sequence[float]) -> float:
        """‖Σ wᵢδᵢ‖"""
        w = np.asarray(weights, np.float64)
        square = float(w @ self.gram @ w)
        return math.sqrt(max(square, 0.0))

    def as_json(self, with_pairs: bool = True) -> dict[str, Any]:
        """All of it, lists for arrays and None for what has no value."""
        names = ("norms", "relative", "zero_share", "noise_share", "nan", "inf")
        pairs = ["gram", "distances", "cosine", "magnitude_change", "sign_change"]
        pairs = [*pairs, "conflicting_magnitude_change"] if with_pairs else []
        plain = {"elements": self.elements, "left_out": self.left_out, "base_norm": self.base_norm}
        return plain | {name: listed(getattr(self, name)) for name in (*names, *pairs)}


def mean_cosine(tensors: Iterable[Figures]) -> Floats:
    """The mean of the tensors' cosines, over those in which both models have changed; N × N."""
    cosines = np.array([tensor.cosine for tensor in tensors])
    known = ~np.isnan(cosines)
    return _over(np.where(known, cosines, 0).sum(axis=0), known.sum(axis=0))


def listed(values: Any) -> Any:
    """Numbers as JSON has them, in arrays, lists and dicts: None for what is not finite."""
    if isinstance(values, dict):
        return {key: listed(value) for key, value in values.items()}
    if isinstance(values, np.ndarray) and values.dtype.kind == "f" and np.isfinite(values).all():
        return values.tolist()
    if isinstance(values, np.ndarray | list | tuple):
        return [listed(value) for value in values]
    if isinstance(values, float | np.floating):
        return float(values) if np.isfinite(values) else None
    return values


def _numbers(value: Any) -> Any:
    """Infinity for null, in numbers and lists of them."""
    if isinstance(value, list):
        return [np.inf if entry is None else entry for entry in value]
    return value


@cache
def _triangle(models: int, first: int) -> tuple[Any, Any]:
    """Rows and columns of a square matrix's diagonal number `first` and what is above it."""
    return np.triu_indices(models, first)


def _symmetric(models: int, place: tuple[Any, Any], values: Sequence[float]) -> Floats:
    matrix = np.zeros((models, models))
    rows, columns = place
    matrix[rows, columns] = matrix[columns, rows] = values
    return matrix


def _over(a: Any, b: Any) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.divide(a, b), np.float64)
