"""Can these models be merged, and who spoils the group? Read off their hidden states.

Cao et al. (arXiv:2603.09463) find that parameter conflicts hardly tell which merges collapse, and
that distances of hidden states do: models that make other things of the same texts have no model
between them that makes of them what each does.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from mergecore.diagnose import bounds, representation
from mergecore.diagnose.bounds import Floats
from mergecore.diagnose.figures import listed
from mergecore.errors import RecipeError

PathLike: TypeAlias = str | os.PathLike[str]


@dataclass(frozen=True)
class Mergeability:
    """What the hidden states of N models on the same texts say of merging them."""

    models: list[str]
    layer: int
    dimension: int
    """Of the hidden states."""
    texts: int
    distances: Floats
    """dᵢⱼ, the mean over texts of ‖hᵢ/‖hᵢ‖ − hⱼ/‖hⱼ‖‖; N × N."""
    squares: Floats
    """The means of its square, N × N."""
    budget: float | None = None
    """The squared distance that a merge may have from each of its parents."""
    notes: list[str] = field(default_factory=list)

    @property
    def similarity(self) -> Floats:
        """Sᵢⱼ = 1 − dᵢⱼ / max d (eq. 2); 1 where all models are the same. N × N."""
        return similarity(self.distances)

    @property
    def difficulty(self) -> Floats:
        """The merging difficulty score of each model (eq. 3): high where it stands alone. N."""
        return difficulty(self.similarity)

    @property
    def diameter(self) -> float:
        """Δ², the largest mean squared distance of two models."""
        return float(self.squares.max())

    @property
    def jung(self) -> float:
        """Theorem 1's bound on the squared distance, d / (2(d + 1)) Δ²."""
        return bounds.jung(self.diameter, self.dimension)

    @property
    def simplex(self) -> float:
        """What it is for N models, (N − 1) / (2N) Δ²."""
        return bounds.simplex(self.diameter, len(self.models))

    @property
    def radius(self) -> float:
        """The squared radius of the smallest ball around the models: no point does better."""
        return bounds.enclosing_ball(self.squares)[0]

    @property
    def center(self) -> Floats:
        """The weights of the models in that ball's center, N."""
        return bounds.enclosing_ball(self.squares)[1]

    @property
    def to_centroid(self) -> float:
        """The mean squared distance from the models' mean."""
        return bounds.to_centroid(self.squares)

    @property
    def curve(self) -> tuple[Floats, Floats]:
        """The rate–distortion curve: D, and R(D) in bits."""
        return bounds.rate_distortion(self.squares)

    @property
    def mergeable(self) -> dict[str, bool] | None:
        """Whether the budget suffices: by corollary 1 as published, and by the exact radius."""
        if self.budget is None:
            return None
        return {
            "corollary 1": self.jung <= self.budget,
            "the exact radius": self.radius <= self.budget,
        }

    def as_json(self) -> dict[str, Any]:
        """One object with all figures."""
        distortion, rate = self.curve
        return {
            "models": self.models,
            "layer": self.layer,
            "dimension": self.dimension,
            "texts": self.texts,
            "distances": self.distances.tolist(),
            "squares": self.squares.tolist(),
            "similarity": self.similarity.tolist(),
            "difficulty": listed(self.difficulty),
            "diameter": self.diameter,
            "jung": self.jung,
            "simplex": self.simplex,
            "radius": self.radius,
            "center": self.center.tolist(),
            "to_centroid": self.to_centroid,
            "curve": {"distortion": distortion.tolist(), "rate": rate.tolist()},
            "budget": self.budget,
            "mergeable": self.mergeable,
            "notes": self.notes,
        }


def mergeability(
    models: Sequence[PathLike],
    probe: str | Path,
    *,
    layer: int = -1,
    budget: float | None = None,
    dtype: str | None = None,
    device: str | None = None,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> Mergeability:
    """Compares what models make of the same texts, one model in memory at a time.

    Args:
        models: Folders or hub ids, two or more, of one hidden size; their vocabularies may differ.
        probe: A file of `{id, text, task}`.
        layer: Whose hidden states; −1 is the last, 0 the embeddings. Of encoder-decoder models
            the decoder's.
        budget: The squared distance allowed between a merge and each parent (of unit vectors: 2
            is at right angles).
        dtype: Of the arithmetic; the weights' own if None.
        device: For example `cuda:1`; a GPU if there is one, if None.
        batch_size: How many texts at once. It changes nothing but by rounding.
        progress: Called with the texts done and all of them, over all models.

    Raises:
        RecipeError: The probe file is wrong, or there are fewer than two models.
        ModelError: A model cannot be loaded, reads fewer tokens than a text has, or has another
            hidden size.
    """
    if isinstance(models, str | os.PathLike):
        raise RecipeError(f"models is a list of models, not the one name {os.fspath(models)!r}")
    if budget is not None and not 0 <= budget < math.inf:
        raise RecipeError(f"budget is {budget}: it must be a number from 0 on")
    if len(models) < 2:
        raise RecipeError("mergeability compares models: give two or more")
    states, notes = representation.of_models(
        [os.fspath(model) for model in models],
        probe,
        layer=layer,
        dtype=dtype,
        device=device,
        batch_size=batch_size,
        progress=progress,
    )
    distances, squares = pairwise(states)
    _, texts, dimension = states.shape
    names = [os.fspath(model) for model in models]
    return Mergeability(names, layer, dimension, texts, distances, squares, budget, notes)


def pairwise(states: Floats) -> tuple[Floats, Floats]:
    """Mean distances and mean squared distances of unit vectors.

    Args:
        states: N × texts × dimension.

    Returns:
        Two of N × N.
    """
    lengths = np.linalg.norm(states, axis=2, keepdims=True)
    unit = np.asarray(states, np.float64) / np.where(lengths > 0, lengths, 1)
    count = len(unit)
    distances, squares = np.zeros((count, count)), np.zeros((count, count))
    for i in range(count):
        for j in range(i + 1, count):
            apart = np.linalg.norm(unit[i] - unit[j], axis=1)
            distances[i, j] = distances[j, i] = apart.mean()
            squares[i, j] = squares[j, i] = (apart**2).mean()
    return distances, squares


def similarity(distances: Floats, largest: float | None = None) -> Floats:
    """Eq. 2, over the largest distance here or that of a larger group."""
    most = float(distances.max()) if largest is None else largest
    return 1 - distances / most if most else np.ones_like(distances)


def difficulty(similar: Floats) -> Floats:
    """Eq. 3: one over the mean similarity to the others; infinite where that is zero."""
    count = len(similar)
    mean = (similar.sum(axis=1) - np.diag(similar)) / (count - 1)
    with np.errstate(divide="ignore"):
        return np.asarray(1 / np.maximum(mean, 0))
