"""Which magnitudes are the k largest? Chunk by chunk, with ties kept from the lowest index.

A magnitude's bits, read as an integer, order like the magnitude (NaN is above infinity). Sixteen
of them at a time are counted, the upper ones first: two passes for float32, four for float64, and
one more over a single chunk where some of the elements tied at the threshold are kept and some
are not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_DIGIT = 16


@dataclass(frozen=True)
class Cutoff:
    """Keeps magnitudes whose bits are above `threshold`, and those equal to it before `end`."""

    threshold: int
    end: int
    """An index in the tensor."""

    def trim(self, x: Tensor, first: int) -> Tensor:
        """Keeps x where it is kept, 0 elsewhere; `first` is the index of its first element."""
        if self == NONE:
            return torch.zeros_like(x)
        bits = magnitudes(x)
        at = min(max(self.end - first, 0), x.numel())
        kept = torch.empty(x.shape, dtype=torch.bool, device=x.device)
        torch.ge(bits[:at], self.threshold, out=kept[:at])
        torch.gt(bits[at:], self.threshold, out=kept[at:])
        return torch.where(kept, x, 0)


NONE = Cutoff(-1, -1)
"""Keeps nothing."""


def magnitudes(x: Tensor) -> Tensor:
    """The bits without their sign: int32 of float32, int64 of float64, of x's shape."""
    kind = torch.int32 if x.dtype == torch.float32 else torch.int64
    return x.view(kind) & torch.iinfo(kind).max


Seen = tuple[range | int, Tensor]
"""Of a chunk: its place and how many are in each bin; or the last tie, see `Selection._ties`."""


class Selection:
    """Finds one tensor's cutoff: `look` at what is `wanted`, `note` it, `conclude`, and again.

    The chunks of a pass come in the order of the tensor, each once.
    """

    def __init__(self, keep: int, total: int, dtype: torch.dtype) -> None:
        """Seeks the `keep` largest of `total` elements of that dtype (float32 or float64)."""
        self._total = total
        self._rank = keep
        self._left = 31 if dtype == torch.float32 else 63
        self._prefix = 0
        self._span = range(total)
        self._counts: dict[range, Tensor] = {}
        self._tied = False
        self.cutoff: Cutoff | None = None
        """The answer, once it is known."""
        if keep <= 0:
            self.cutoff = NONE
        elif keep >= total:
            self.cutoff = Cutoff(0, total)

    @property
    def wanted(self) -> range | None:
        """The elements that must be looked at next; None when the cutoff is known."""
        return None if self.cutoff else self._span

    def look(self, x: Tensor, first: int) -> Seen | None:
        """What there is to see from element `first` on; x is of shape (n,). Changes nothing."""
        if self.cutoff or first + x.numel() <= self._span.start or first >= self._span.stop:
            return None
        bits = magnitudes(x)
        if self._tied:
            return self._ties(bits, first)
        digit = min(_DIGIT, self._left)
        rest = self._left - digit
        if rest + digit < torch.iinfo(bits.dtype).bits - 1:
            bits = bits[bits >> self._left == self._prefix]
        found = torch.bincount(bits >> rest & ((1 << digit) - 1), minlength=1 << digit)
        return range(first, first + x.numel()), found.cpu()

    def note(self, seen: Seen | None) -> None:
        """Takes down what was seen."""
        if seen is None or self.cutoff:
            return
        place, found = seen
        if isinstance(place, range):
            self._counts[place] = found
        elif place < 0:
            self._rank -= int(found)
        else:
            self.cutoff = Cutoff(self._prefix, place + 1)

    def conclude(self) -> None:
        """Draws the conclusion of a pass."""
        if self.cutoff or self._tied:
            return
        digit = min(_DIGIT, self._left)
        # How many are in this bin and those above it.
        total = torch.stack(list(self._counts.values())).sum(dim=0)
        above = total.flip(0).cumsum(0).flip(0)
        bin_ = int((above >= self._rank).sum()) - 1
        among = int(total[bin_])
        self._rank -= int(above[bin_]) - among
        self._prefix = self._prefix << digit | bin_
        self._left -= digit
        if not self._left:
            self._end(bin_, among)
        self._counts = {}

    def _end(self, bin_: int, among: int) -> None:
        """All bits are known: where is the last tie that is kept?"""
        if self._rank == among:
            self.cutoff = Cutoff(self._prefix, self._total)
            return
        for span, counts in sorted(self._counts.items(), key=lambda item: item[0].start):
            here = int(counts[bin_])
            if here >= self._rank:
                self._span, self._tied = span, True
                return
            self._rank -= here

    def _ties(self, bits: Tensor, first: int) -> Seen:
        """Where the last tie is that is kept; -1 and how many there are, if it comes later."""
        before = max(self._span.start - first, 0)
        tied = bits[before:] == self._prefix
        count = tied.sum().cpu()
        if int(count) < self._rank:
            return -1, count
        return first + before + int(torch.nonzero(tied)[self._rank - 1]), count
