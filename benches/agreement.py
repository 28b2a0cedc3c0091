"""Is the answer right? A bench whose answer is wrong measures nothing.

mergekit computes in float32 and rounds to bf16 once, as mergecore does, so that they may differ
where float32 rounds differently, and in TIES where elements tie at its threshold. DARE draws its
mask at random, and is compared with NumPy and mergecore's exported mask instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

import mergecore
from contestants import Merge
from llama import Checkpoint, Floats, rounded, widened

_DARE_SAMPLE = ("model.norm", "model.layers.0.self_attn.k_proj", "model.layers.0.mlp.down_proj")


class DisagreementError(Exception):
    """Two merges that must agree do not."""


def check(merge: Merge, ours: Checkpoint, theirs: Checkpoint | None) -> str:
    """Asserts that a merge is right.

    Returns:
        In what sense it is.

    Raises:
        DisagreementError: It is not.
    """
    name = merge.method.name
    if name in _RANDOM:
        return with_exported_mask(merge, ours)
    if theirs is None:
        return "not compared: there is no mergekit"
    return _AGAINST_MERGEKIT[name](merge, ours, theirs)


def has_counterpart(merge: Merge) -> bool:
    """Whether mergekit has the same method."""
    return merge.method.name in (*_AGAINST_MERGEKIT, *_RANDOM)


def within_an_ulp(merge: Merge, ours: Checkpoint, theirs: Checkpoint) -> str:
    """Equal but for one bf16 ulp of the largest magnitude among results and inputs, as sums cancel.

    Returns:
        How many elements differ, in words.
    """
    differ = 0
    for name in _names(ours, theirs):
        where = np.flatnonzero(ours[name] != theirs[name])
        differ += where.size
        a, b, *inputs = (widened(x[name][where]) for x in (ours, theirs, *merge.inputs))
        near = np.abs(a - b) <= _ulp([a, b, *inputs])
        _demand(near, f"{merge.method.name}, {name}: more than an ulp from mergekit", where)
    return f"as mergekit, but for an ulp in {differ:,} elements"


def but_for_ties(merge: Merge, ours: Checkpoint, theirs: Checkpoint) -> str:
    """Equal but for elements that tie at the threshold of some model, of which mergekit keeps any
    and mergecore those with the lowest index: that is checked with NumPy.

    Returns:
        How many elements differ, in words.
    """
    differ = 0
    for name in _names(ours, theirs):
        where = np.flatnonzero(ours[name] != theirs[name])
        if where.size == 0:
            continue
        differ += where.size
        assert merge.base is not None
        start = widened(merge.base[name])
        tied = np.zeros(where.size, bool)
        votes = []
        for model in merge.models:
            delta = widened(model[name]) - start
            kept, at_threshold = _largest(np.abs(delta), merge.number("density") or 0, where)
            tied |= at_threshold
            votes.append(np.where(kept, delta[where], np.float32(0)))
        message = f"ties, {name}: unlike mergekit, and not tied at the threshold"
        _demand(tied, message, where)
        expected = rounded(start[where] + _elected(votes, normalize=True))
        _demand(expected == ours[name][where], f"ties, {name}: unlike NumPy", where)
    return f"as mergekit, but for {differ:,} elements tied at a threshold: these as NumPy"


def with_exported_mask(merge: Merge, ours: Checkpoint, seed: int = 42) -> str:
    """DARE, on some tensors, as NumPy has it with the mask that `mergecore.random_mask` exports.

    Returns:
        What was compared, in words.
    """
    assert merge.base is not None
    density = merge.number("density")
    assert density is not None
    for stem in _DARE_SAMPLE:
        name = f"{stem}.weight"
        start = widened(merge.base[name])
        votes: list[Floats] = []
        for i, model in enumerate(merge.models):
            mask = mergecore.random_mask(seed, name, i, count=start.size, density=density)
            delta = (widened(model[name]) - start) / np.float32(density)
            votes.append(np.where(mask, delta, np.float32(0)))
        if merge.method.name == "dare_ties":
            expected = start + _elected(votes, normalize=False)
        else:
            expected = start + _sum(votes) * np.float32(1 / len(votes))
        near = np.abs(widened(ours[name]) - expected) <= _ulp([expected, start])
        _demand(near, f"{merge.method.name}, {name}: unlike NumPy", np.arange(start.size))
    return f"as NumPy with the exported mask, in {len(_DARE_SAMPLE)} tensors"


_AGAINST_MERGEKIT = {
    "linear": within_an_ulp,
    "task_arithmetic": within_an_ulp,
    "slerp": within_an_ulp,
    "ties": but_for_ties,
}
_RANDOM = ("dare_linear", "dare_ties")


def _names(ours: Checkpoint, theirs: Checkpoint) -> list[str]:
    sizes = [{name: bits.size for name, bits in model.items()} for model in (ours, theirs)]
    if sizes[0] != sizes[1]:
        raise DisagreementError(f"{ours.folder} and {theirs.folder} hold different tensors")
    return list(sizes[0])


def _largest(
    magnitudes: Floats, density: float, where: NDArray[np.intp]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which elements of `where` are among the largest, and which tie at the threshold."""
    keep = max(1, int(density * magnitudes.size))
    place = magnitudes.size - keep
    threshold = np.partition(magnitudes, place)[place]
    ties = np.flatnonzero(magnitudes == threshold)
    last = ties[keep - np.count_nonzero(magnitudes > threshold) - 1]
    here = magnitudes[where]
    tied = here == threshold
    return (here > threshold) | (tied & (where <= last)), tied


def _elected(deltas: Sequence[Floats], normalize: bool) -> Floats:
    """The disjoint merge of equal weights, as TIES has it."""
    share = np.float32(1 / len(deltas))
    votes = [delta * share for delta in deltas]
    sign = np.where(_sum(votes) >= 0, np.float32(1), np.float32(-1))
    agree = [np.sign(vote) == sign for vote in votes]
    total = _sum([np.where(a, v, np.float32(0)) for v, a in zip(votes, agree, strict=True)])
    if not normalize:
        return total
    weight = _sum([a * share for a in agree])
    weight[weight == 0] = 1
    return total / weight


def _sum(arrays: Sequence[Floats]) -> Floats:
    total: Floats = np.add.reduce(arrays, axis=0, dtype=np.float32)
    return total


def _ulp(arrays: Sequence[Floats]) -> Floats:
    """The step of bf16 at the largest magnitude: bf16 has 16 bits less than float32."""
    step: Floats = np.spacing(np.max(np.abs(arrays), axis=0)) * np.float32(2**16)
    return step


def _demand(holds: NDArray[np.bool_], message: str, where: NDArray[np.intp]) -> None:
    if not holds.all():
        wrong = where[~holds]
        raise DisagreementError(f"{message}: {wrong.size} elements, the first at {wrong[0]}")
