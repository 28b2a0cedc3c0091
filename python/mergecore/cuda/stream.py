"""How is a tensor merged that is larger than the device's memory? Chunk by chunk, facts first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mergecore.cuda.formula import Chunk, Facts, Formula, Sums
from mergecore.cuda.kernels import lanes
from mergecore.cuda.kernels.blend import attach
from mergecore.cuda.kernels.select import Selection


class Stream:
    """One tensor's merge by one method.

    While `wanted` is not None, every chunk of those elements is shown to `observe`, and `conclude`
    is called. Then any chunk may be given to `merge`, in any order. Chunks of a pass come in the
    order of the tensor; the first element of each is a multiple of `step`, and so is its size, but
    for the tensor's last. One that ran out of memory may come again as two smaller ones, in either
    stage: it has left no trace.

    Chunks are flat: element i of the tensor in row-major order. Models and base may be of any float
    dtype, on any one device; they are widened there to the arithmetic's, and are not written to.
    """

    def __init__(self, formula: Formula) -> None:
        """Takes a method that is bound to its tensor."""
        self._formula = formula
        self._place = formula.place
        self._lambda = float(formula.parameters.get("lambda", 1.0))
        self._facts = Facts()
        self._sums: dict[int, Tensor] = {}
        self._selections: list[Selection] = []
        self._need = formula.need(self._facts)
        self._begin()

    @property
    def step(self) -> int:
        """What chunks are multiples of."""
        return self._place.row if self._formula.of_rows else lanes.BLOCK

    @property
    def wanted(self) -> range | None:
        """The elements that the next pass looks at; None when the tensor can be merged."""
        if isinstance(self._need, Sums):
            return range(self._place.elements)
        spans = [selection.wanted for selection in self._selections]
        some = [span for span in spans if span is not None]
        if not some:
            return None
        return range(min(s.start for s in some), max(s.stop for s in some))

    def observe(self, models: Sequence[Tensor], base: Tensor | None, first: int) -> None:
        """Looks at a chunk.

        Args:
            models: One of shape (n,) each, in the order of the parameters.
            base: The same elements of the base, where the method merges task vectors.
            first: The index of the first element.
        """
        chunk = Chunk(self._inputs(models, base), first)
        if isinstance(self._need, Sums):
            self._sums[first] = lanes.sums(self._formula.terms(chunk, self._facts)).cpu()
        else:
            # All that may run out of memory comes before anything is noted.
            pairs = zip(self._selections, chunk.inputs, strict=True)
            seen = [selection.look(row, first) for selection, row in pairs]
            for selection, some in zip(self._selections, seen, strict=True):
                selection.note(some)

    def conclude(self) -> None:
        """Draws the conclusion of a pass: all that was `wanted` has been seen."""
        if isinstance(self._need, Sums):
            seen = [self._sums[first] for first in sorted(self._sums)]
            blocks = torch.cat(seen, dim=1) if seen else torch.zeros(self._need.count, 0)
            found = tuple(lanes.tree(blocks.double()).tolist())
            self._facts = replace(self._facts, sums=self._facts.sums + found)
        else:
            for selection in self._selections:
                selection.conclude()
            if self.wanted is not None:
                return
        self._advance()

    def merge(
        self,
        models: Sequence[Tensor],
        base: Tensor | None,
        first: int,
        *,
        onto: Tensor | None = None,
    ) -> Tensor:
        """The merged chunk, in the arithmetic's dtype, of shape (n,).

        Args:
            models: As for `observe`.
            base: As for `observe`.
            first: The index of the first element.
            onto: What the merged task vector is added to, where that is not the base.
        """
        delta = self.delta(models, base, first)
        if base is None:
            return delta
        return attach(delta, (base if onto is None else onto).to(self._place.dtype), self._lambda)

    def delta(self, models: Sequence[Tensor], base: Tensor | None, first: int) -> Tensor:
        """The merged task vector of a chunk, without λ, before it is added to the base.

        See `merge`.
        """
        return self._formula.merge(Chunk(self._inputs(models, base), first), self._facts)

    def survey(self, models: Sequence[Tensor], base: Tensor | None) -> None:
        """Makes all passes over a tensor that is shown in one chunk."""
        while self.wanted is not None:
            self.observe(models, base, 0)
            self.conclude()

    def _inputs(self, models: Sequence[Tensor], base: Tensor | None) -> list[Tensor]:
        if self._formula.of_task_vectors is not (base is not None):
            raise ValueError("a base is given where the method merges task vectors, and only there")
        rows = [model.to(self._place.dtype) for model in models]
        if base is None:
            return rows
        start = base.to(self._place.dtype)
        return [row - start for row in rows]

    def _begin(self) -> None:
        """Prepares the next pass; one that has nothing to look at is concluded at once."""
        need, place = self._need, self._place
        self._sums, self._selections = {}, []
        if need is None or isinstance(need, Sums):
            return
        self._selections = [Selection(keep, place.elements, place.dtype) for keep in need.keep]
        if self.wanted is None:
            self._advance()

    def _advance(self) -> None:
        cutoffs = tuple(s.cutoff for s in self._selections if s.cutoff is not None)
        self._facts = replace(self._facts, cutoffs=self._facts.cutoffs + cutoffs)
        self._need = self._formula.need(self._facts)
        self._begin()
