"""What does a method say of itself, so that a tensor can be merged piece by piece?

The engine's `Method` and `Formula`, for torch: a method is bound to one tensor, says what it must
know of the whole of it (`need`), is asked for a chunk's share of that (`terms`, `magnitudes`), and
merges chunk by chunk. It never sees the base, files or other tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mergecore.cuda.kernels import philox
from mergecore.cuda.kernels.lanes import Term
from mergecore.cuda.kernels.select import Cutoff
from mergecore.cuda.spectral.account import Account
from mergecore.cuda.vectors import Vectors

Parameters = Mapping[str, Any]
"""A method's, complete, as the engine's plan has them: a list where each model has its own."""


@dataclass(frozen=True)
class Place:
    """The tensor that is merged."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    """Of the arithmetic: float32 or float64."""
    models: int
    """How many are merged."""
    name: str = ""
    seed: int = 42
    places: Sequence[int] | None = None
    """Where each model stands in the recipe's list, for masks; in the order given if None."""

    @property
    def elements(self) -> int:
        """How many there are."""
        return int(torch.Size(self.shape).numel())

    @property
    def row(self) -> int:
        """The length of the last axis; 1 without axes, or if there is nothing."""
        return max(self.shape[-1] if self.shape else 1, 1)

    def key(self, model: int) -> philox.Key:
        """A model's random stream for this tensor."""
        return philox.key(self.seed, self.name, self.places[model] if self.places else model)


@dataclass(frozen=True)
class Facts:
    """What is known of the tensor, in the order in which it was asked for."""

    sums: tuple[float, ...] = ()
    cutoffs: tuple[Cutoff, ...] = ()


@dataclass(frozen=True)
class Chunk:
    """A piece of the tensor, the same of every model."""

    inputs: Sequence[Tensor]
    """Task vectors where the method merges them, else weights: of shape (n,), in the arithmetic's
    dtype. They are not written to."""
    first: int
    """The index of its first element in the tensor."""


@dataclass(frozen=True)
class Sums:
    """So many sums over all elements are needed, by `Formula.terms`."""

    count: int


@dataclass(frozen=True)
class Largest:
    """The cutoff of so many largest magnitudes is needed, one an input."""

    keep: tuple[int, ...] = field(default=())


class Formula:
    """A method that is bound to a tensor. The least that one says is `merge`."""

    of_task_vectors = True
    """Whether models are merged less the base, and added to it again."""
    of_rows = False
    """Whether chunks are whole rows, along the last axis."""

    def __init__(self, parameters: Parameters, place: Place) -> None:
        """Takes the complete parameters."""
        self.parameters = parameters
        self.place = place

    @classmethod
    def refuses(cls, parameters: Parameters) -> str | None:
        """Why this cannot be done with such parameters, in a few words; None if it can."""
        return None

    def need(self, facts: Facts) -> Sums | Largest | None:
        """What must be known beyond `facts` before merging."""
        return None

    def terms(self, chunk: Chunk, facts: Facts) -> list[Term]:
        """What is summed over the tensor, of this chunk."""
        raise NotImplementedError

    def merge(self, chunk: Chunk, facts: Facts) -> Tensor:
        """The merged chunk, of shape (n,)."""
        raise NotImplementedError

    @staticmethod
    def solve(vectors: Vectors, parameters: Parameters) -> tuple[Tensor, Account]:
        """The merged matrix of a method that looks at singular values, without λ."""
        raise NotImplementedError
