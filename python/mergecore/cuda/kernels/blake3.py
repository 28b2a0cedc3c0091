"""BLAKE3, by which a mask's key is made: a few hundred bytes at most, once a tensor and model.

O'Connor, Aumasson, Neves, Wilcox-O'Hearn, "BLAKE3: one function, fast everywhere" (2020). Only the
plain hash, of 32 bytes. No package is asked for it: one would be one more to install for a
hundred bytes a tensor.
"""

from __future__ import annotations

import struct

_IV = (
    *(0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A),
    *(0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19),
)
_PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
_MASK = 0xFFFFFFFF
_CHUNK, _BLOCK = 1024, 64
_CHUNK_START, _CHUNK_END, _PARENT, _ROOT = 1, 2, 4, 8
# Columns, then diagonals.
_MIXED = (
    *((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)),
    *((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)),
)

# What is compressed last: chaining value, block, counter, length, flags.
_Node = tuple[tuple[int, ...], bytes, int, int, int]


def digest(data: bytes) -> bytes:
    """The 32 bytes of BLAKE3(data)."""
    value, block, _, length, flags = _tree(data, 0)
    return struct.pack("<8I", *_compress(value, block, 0, length, flags | _ROOT))


def _tree(data: bytes, number: int) -> _Node:
    """The node over `data`, whose first chunk has that number."""
    if len(data) <= _CHUNK:
        return _chunk(data, number)
    chunks = -(-len(data) // _CHUNK)
    left = 1 << ((chunks - 1).bit_length() - 1)
    parts = (_tree(data[: left * _CHUNK], number), _tree(data[left * _CHUNK :], number + left))
    values = [word for part in parts for word in _compress(*part)]
    return _IV, struct.pack("<16I", *values), 0, _BLOCK, _PARENT


def _chunk(data: bytes, number: int) -> _Node:
    blocks = [data[at : at + _BLOCK] for at in range(0, len(data), _BLOCK)] or [b""]
    value: tuple[int, ...] = _IV
    flags = _CHUNK_START
    for block in blocks[:-1]:
        value, flags = _compress(value, block, number, _BLOCK, flags), 0
    return value, blocks[-1].ljust(_BLOCK, b"\0"), number, len(blocks[-1]), flags | _CHUNK_END


def _compress(
    value: tuple[int, ...], block: bytes, number: int, length: int, flags: int
) -> tuple[int, ...]:
    words = struct.unpack("<16I", block)
    low, high = number & _MASK, number >> 32
    state = [*value, *_IV[:4], low, high, length, flags]
    for _ in range(7):
        for at, (a, b, c, d) in enumerate(_MIXED):
            _mix(state, a, b, c, d, words[2 * at], words[2 * at + 1])
        words = tuple(words[i] for i in _PERMUTATION)
    return tuple(state[i] ^ state[i + 8] for i in range(8))


def _mix(state: list[int], a: int, b: int, c: int, d: int, x: int, y: int) -> None:
    for word, first, second in ((x, 16, 12), (y, 8, 7)):
        state[a] = (state[a] + state[b] + word) & _MASK
        state[d] = _turned(state[d] ^ state[a], first)
        state[c] = (state[c] + state[d]) & _MASK
        state[b] = _turned(state[b] ^ state[c], second)


def _turned(x: int, by: int) -> int:
    return (x >> by | x << (32 - by)) & _MASK
