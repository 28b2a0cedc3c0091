"""Model Stock: as far from the base towards the models' mean as their angles say."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mergecore.cuda.formula import Chunk, Facts, Formula, Parameters, Place, Sums
from mergecore.cuda.kernels import lanes
from mergecore.cuda.kernels.lanes import Term

Floats = np.ndarray[Any, np.dtype[np.float64]]


class ModelStock(Formula):
    """Model Stock (Jang et al., ECCV 2024), a t for the tensor or for each row of it."""

    def __init__(self, parameters: Parameters, place: Place) -> None:
        """Takes the complete parameters."""
        super().__init__(parameters, place)
        self.of_rows = parameters["filter_wise"]

    def need(self, facts: Facts) -> Sums | None:
        """The dot products of all task vectors; of rows, they are taken as they are merged."""
        known = self.of_rows or facts.sums
        return None if known else Sums(len(_pairs(self.place.models)))

    def terms(self, chunk: Chunk, facts: Facts) -> list[Term]:
        """What is summed over the tensor, of this chunk."""
        return [(chunk.inputs[i], chunk.inputs[j]) for i, j in _pairs(self.place.models)]

    def merge(self, chunk: Chunk, facts: Facts) -> Tensor:
        """The merged chunk, of shape (n,)."""
        models = self.place.models
        length = self.place.row if self.of_rows else max(chunk.inputs[0].numel(), 1)
        if self.of_rows:
            dots = lanes.sums(self.terms(chunk, facts), length).cpu().numpy()
        else:
            dots = np.array(facts.sums).reshape(-1, 1)
        factors = torch.from_numpy(share(dots, models, self.parameters["clamp"]) / models)
        factor = factors.to(self.place.dtype).to(chunk.inputs[0].device).view(-1, 1)
        total = torch.zeros_like(chunk.inputs[0]).view(-1, length)
        for row in chunk.inputs:
            total += row.view(-1, length) * factor
        return total.view(-1)


def share(dots: Floats, models: int, clamp: bool) -> Floats:
    """How far from the base to the mean; 0 where there is no angle.

    In NumPy: torch's square root is MKL's on some processors, which is off by a last digit.

    Args:
        dots: Shape (pairs, rows), each model with itself and those after it.
        models: How many there are.
        clamp: Keep it between 0 and 1, and take short task vectors as they are.

    Returns:
        Shape (rows,).
    """
    of_pair = dict(zip(_pairs(models), dots, strict=True))
    total = np.zeros_like(dots[0])
    with np.errstate(all="ignore"):  # what is no number is told below
        for i, j in itertools.combinations(range(models), 2):
            # One root of a product: the cosine of equal vectors is 1 to the last bit.
            lengths = np.sqrt(of_pair[i, i] * of_pair[j, j])
            lengths = lengths if clamp else np.maximum(lengths, 1e-6)
            cosine = np.clip(of_pair[i, j] / lengths, -1.0, 1.0)
            total += np.where(lengths > 0, cosine, 0.0)
        cosine = total / (models * (models - 1.0) / 2.0)
        divisor = 1.0 + (models - 1.0) * cosine
        t = models * cosine / divisor
    t = np.clip(t, 0.0, 1.0) if clamp else t
    known = np.isfinite(dots).all(axis=0) & ~(np.abs(divisor) < 1e-6)
    return np.where(known, t, 0.0)


def _pairs(models: int) -> list[tuple[int, int]]:
    return list(itertools.combinations_with_replacement(range(models), 2))
