"""Sums, norms and dot products over the engine's own tree, so that they are its very numbers.

A block is summed in float64 over sixteen lanes, each from its first element to its last; lanes and
blocks are added over a fixed binary tree (the engine's `angle.rs`). On a GPU this takes a launch a
row of lanes, a thousand a chunk however large it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

BLOCK = 16 * 1024
"""Elements that the engine sums at once; what is summed in chunks is cut at multiples of it."""

Term = tuple[Tensor, Tensor | None]
"""Σ aᵢbᵢ of two rows; Σ |aᵢ| of one and None."""

_LANES = 16
# Rows of lanes that are in float64 at a time.
_STRIP = 64


def sums(terms: Sequence[Term], length: int = BLOCK) -> Tensor:
    """Each term's sum over each piece of so many elements.

    Args:
        terms: What is summed; float32 or float64 rows of one shape (n,).
        length: Elements of a piece; the last may have less.

    Returns:
        float64 of shape (terms, pieces), on the rows' device.
    """
    count = terms[0][0].numel()
    whole = count // length * length
    pieces = []
    if whole:
        pieces.append(_of_pieces([_cut(term, 0, whole) for term in terms], length))
    if whole < count:
        pieces.append(_of_pieces([_cut(term, whole, count) for term in terms], count - whole))
    empty = torch.zeros(len(terms), 0, dtype=torch.float64, device=terms[0][0].device)
    return torch.cat(pieces, dim=1) if pieces else empty


def tree(x: Tensor) -> Tensor:
    """Sums over the last axis, by halves and halves of halves; zero of nothing.

    The left half is the largest power of two that leaves something to the right.
    """
    length = x.shape[-1]
    if length == 0:
        return x.sum(dim=-1)
    # Adding zero changes no sum of the engine's: none is -0.
    x = pad(x, (0, (1 << (length - 1).bit_length()) - length))
    while x.shape[-1] > 1:
        x = x[..., 0::2] + x[..., 1::2]
    return x[..., 0]


def _cut(term: Term, start: int, stop: int) -> Term:
    a, b = term
    return a[start:stop], None if b is None else b[start:stop]


def _of_pieces(terms: Sequence[Term], length: int) -> Tensor:
    rows = -(-length // _LANES)

    def shaped(x: Tensor) -> Tensor:
        pieces = x.reshape(-1, length)
        filled = pad(pieces, (0, rows * _LANES - length)) if length % _LANES else pieces
        return filled.view(-1, rows, _LANES)

    shapes = [(shaped(a), None if b is None else shaped(b)) for a, b in terms]
    first = shapes[0][0]
    found = torch.zeros(
        len(terms), first.shape[0], _LANES, dtype=torch.float64, device=first.device
    )
    for start in range(0, rows, _STRIP):
        strip = torch.stack([_products(a, b, start) for a, b in shapes])
        for row in range(strip.shape[2]):
            found += strip[:, :, row]
    return tree(found)


def _products(a: Tensor, b: Tensor | None, start: int) -> Tensor:
    part = a[:, start : start + _STRIP].double()
    return part.abs() if b is None else part * b[:, start : start + _STRIP].double()
