"""Products with a matrix that is widened to float64 piece by piece, and checks of them."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from mergecore.cuda import interruption

# How much of the long axis is widened at a time.
_PANEL = 4096
# Random vectors with which results are checked.
_PROBES = 8
_WORD = (1 << 64) - 1


def oriented(matrix: Tensor) -> Tensor:
    """A view of a matrix with its shorter axis first."""
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T


def panels(a: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Pieces of the long axis of a (short, long) matrix: which, and their numbers in float64."""
    for start in range(0, a.shape[1], _PANEL):
        interruption.check()
        span = slice(start, start + _PANEL)
        yield span, a[:, span].double()


def gram(a: Tensor, scale: float) -> Tensor:
    """The dot products of the rows of a·scale: float64 of shape (short, short)."""
    found = torch.zeros(a.shape[0], a.shape[0], dtype=torch.float64, device=a.device)
    for _, piece in panels(a):
        scaled = piece * scale
        found.addmm_(scaled, scaled.T)
    return found


def times(a: Tensor, x: Tensor) -> Tensor:
    """The product ax, of a float64 (long, columns) matrix."""
    found = torch.zeros(a.shape[0], x.shape[1], dtype=torch.float64, device=a.device)
    for span, piece in panels(a):
        found.addmm_(piece, x[span])
    return found


def transposed_times(a: Tensor, x: Tensor) -> Tensor:
    """The product aᵀx, of a float64 (short, columns) matrix."""
    return torch.cat([piece.T @ x for _, piece in panels(a)])


def transform(a: Tensor, w: Tensor) -> None:
    """Makes a ← wa in place, of a float64 (short, short) matrix; rounds to a's dtype."""
    for span, piece in panels(a):
        a[:, span] = w @ piece


def probes(rows: int, device: torch.device) -> Tensor:
    """Random numbers between -1 and 1, the engine's: float64 of shape (rows, 8).

    They are the same ones since `largest` is a guess that depends on them, and a floor on it.
    """
    count = rows * _PROBES
    return _numbers(count.bit_length())[:count].view(_PROBES, rows).T.to(device)


@cache
def _numbers(bits: int) -> Tensor:
    """The first 2ᵇ of xorshift64*: float64."""
    state, found = 0x9E3779B97F4A7C15, array("Q")
    for _ in range(1 << bits):
        state ^= state >> 12
        state ^= state << 25 & _WORD
        state ^= state >> 27
        found.append(state * 0x2545F4914F6CDD1D & _WORD)
    return torch.tensor(memoryview(found).cast("B").cast("q"), dtype=torch.float64) / 2.0**63


def distance(x: Tensor, y: Tensor) -> float:
    """‖x − y‖ / ‖y‖; 0 where both are zero."""
    largest = float(torch.cat((x, y)).abs().max()) if x.numel() else 0.0
    if largest == 0:
        return 0.0
    # Divided by the largest, so that squares neither overflow nor vanish.
    off = float(torch.linalg.vector_norm((x - y) / largest))
    size = float(torch.linalg.vector_norm(y / largest))
    if size:
        return off / size
    return float("inf") if off else 0.0
