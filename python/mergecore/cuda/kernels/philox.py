"""The engine's random masks, bit for bit, in integer arithmetic of any torch device.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): counter =
element index / 4, lane = element index mod 4; an element is kept where its word's upper 24 bits
are below density·2²⁴. The key is hashed from seed, model and tensor, as in the engine's `mask.rs`.
"""

from __future__ import annotations

import math
import struct

import torch
from torch import Tensor

from mergecore.cuda.kernels import blake3

Key = tuple[int, int]
"""Two numbers of 32 bits: one model's stream for one tensor."""

_MASK = 0xFFFFFFFF
_FACTORS = 0xD2511F53, 0xCD9E8D57
_STEPS = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10
# Counters in work at a time: their numbers stay in a core's cache, or are many beside a launch.
_STRIP, _STRIP_OF_GPU = 1 << 14, 1 << 22


def key(seed: int, name: str, model: int) -> Key:
    """The key of a model's mask for a tensor.

    Args:
        seed: The merge's, below 2⁶⁴.
        name: The output tensor's; "" for a bare array.
        model: The model's place in the recipe's list, from 0.
    """
    data = b"mergecore mask 1" + struct.pack("<QQ", seed, model) + name.encode()
    first, second = struct.unpack("<II", blake3.digest(data)[:8])
    return first, second


def kept(key: Key, first: int, count: int, density: float, device: torch.device | str) -> Tensor:
    """Which of the elements first..first+count of a tensor are kept.

    Args:
        key: The stream, see `key`.
        first: The index of the first element in its tensor; any number.
        count: How many elements.
        density: The share kept, from 0 to 1.
        device: Where the mask is made.

    Returns:
        bool of shape (count,).
    """
    # The upper 24 bits are below the limit where all 32 are below 256 times its ceiling.
    limit = min(max(math.ceil(density * (1 << 24)), 0), 1 << 24) << 8
    out = torch.empty(count, dtype=torch.bool, device=device)
    strip = 4 * (_STRIP if out.device.type == "cpu" else _STRIP_OF_GPU)
    start = first - first % 4
    for at in range(start, first + count, strip):
        stop = min(at + strip, first + count)
        counters = -(-(stop - at) // 4)
        below = _words(key, at // 4, counters, out.device).lt_(limit).view(-1)
        skip = max(first - at, 0)
        out[at + skip - first : stop - first] = below[skip : stop - at]
    return out


def _words(key: Key, counter: int, count: int, device: torch.device) -> Tensor:
    """The words of so many counters from `counter` on: int64 of shape (count, 4).

    A product of two numbers of 32 bits wraps around in an int64 that has a sign; its bits, which
    are all that is read, are right.
    """
    c0 = torch.arange(counter, counter + count, dtype=torch.int64, device=device)
    c1 = c0 >> 32
    c0.bitwise_and_(_MASK)
    c2, c3 = torch.zeros_like(c0), torch.zeros_like(c0)
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _FACTORS[0], c2 * _FACTORS[1]
        c0 = (p1 >> 32).bitwise_and_(_MASK).bitwise_xor_(c1).bitwise_xor_(k0)
        c2 = (p0 >> 32).bitwise_and_(_MASK).bitwise_xor_(c3).bitwise_xor_(k1)
        c1, c3 = p1.bitwise_and_(_MASK), p0.bitwise_and_(_MASK)
        k0, k1 = (k0 + _STEPS[0]) & _MASK, (k1 + _STEPS[1]) & _MASK
    return torch.stack((c0, c1, c2, c3), dim=1)
