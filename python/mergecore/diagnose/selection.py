"""Which of many models make the best group? And which one to put in another's place."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mergecore.diagnose.bounds import Floats
from mergecore.diagnose.mergeability import difficulty, similarity
from mergecore.errors import RecipeError

_MOST_GROUPS = 200_000


@dataclass(frozen=True)
class Group:
    """Some of the candidates."""

    members: tuple[int, ...]
    scores: Floats
    """Each one's merging difficulty score in this group."""

    @property
    def worst(self) -> float:
        return float(self.scores.max())


@dataclass(frozen=True)
class Selection:
    """The group with the lowest worst score, and how the first ones come nearer to it."""

    best: Group
    exact: bool
    """Every group was looked at; else the best was sought by swaps from a greedy start."""
    given: Group
    """The first candidates, as many."""
    dropped: int
    """Whose leaving it helps the given group most."""
    replacement: int | None
    """Who is best in its place; None where there is nobody, or it is no help."""
    replaced: Group | None


def select(distances: Floats, keep: int) -> Selection:
    """Chooses among candidates by their distances.

    Similarities are taken over the largest distance of all candidates, not of each group: else the
    farthest two of any group would have a similarity of zero, however near they are.

    Args:
        distances: N × N mean distances of hidden states.
        keep: How many.

    Raises:
        RecipeError: `keep` is below 2, or above N.
    """
    count = len(distances)
    if not 2 <= keep <= count:
        raise RecipeError(f"keep is {keep}: it must be from 2 to {count}, the number of models")
    similar = similarity(distances)

    def group(members: Sequence[int]) -> Group:
        chosen = tuple(sorted(members))
        return Group(chosen, difficulty(similar[np.ix_(chosen, chosen)]))

    def better(groups: Sequence[Group] | map[Group]) -> Group:
        # Of equals the one with the lower scores together, then the first.
        return min(groups, key=lambda g: (g.worst, float(g.scores.sum()), g.members))

    exact = math.comb(count, keep) <= _MOST_GROUPS
    if exact:
        best = better(map(group, itertools.combinations(range(count), keep)))
    else:
        best = _sought(group, better, count, keep)
    given = group(range(keep))
    dropped = given.members[int(np.argmax(given.scores))]
    others = [i for i in range(count) if i not in given.members]
    stay = [i for i in given.members if i != dropped]
    replaced = better([group([*stay, other]) for other in others]) if others else None
    if replaced is not None and replaced.worst >= given.worst:
        replaced = None
    replacement = None
    if replaced is not None:
        replacement = next(i for i in replaced.members if i not in given.members)
    return Selection(best, exact, given, dropped, replacement, replaced)


def _sought(group, better, count: int, keep: int) -> Group:  # type: ignore[no-untyped-def]
    """From the nearest pair on one by one, then swaps as long as one helps."""
    best: Group = better(map(group, itertools.combinations(range(count), 2)))
    while len(best.members) < keep:
        rest = [i for i in range(count) if i not in best.members]
        best = better([group([*best.members, i]) for i in rest])
    while True:
        rest = [i for i in range(count) if i not in best.members]
        swaps = [
            group([i if i != out else new for i in best.members])
            for out in best.members
            for new in rest
        ]
        found = better([best, *swaps])
        if found.members == best.members:
            return best
        best = found
