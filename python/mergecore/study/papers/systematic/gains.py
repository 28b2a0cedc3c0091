"""How much better than its base is each merge? In percentage points of the mean over the tasks.

A score is the unweighted mean over the tasks. The paper calls its gains relative; its numbers are
differences (tables 1 and 2 differ by the best fine-tune's score less the base's).
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mergecore.evaluate.intervals import mean_interval, wilson
from mergecore.study import results as read
from mergecore.study.grid import text
from mergecore.study.results import Results, Row

METHODS = ("TA", "Model Stock", "TIES", "TA+SB", "TIES+SB", "TSV-M", "Iso-C")
PARTS = ("subsets", "matched", "scale", "density", "boost", "separation")
"""Those of the study that have merges."""


@dataclass(frozen=True)
class Family:
    """A base and its fine-tunes."""

    name: str
    configuration: str
    """The base's."""
    base: dict[str, float]
    """Its scores, 0 to 1."""
    items: dict[str, int]
    alone: dict[str, float]
    """What each fine-tune scores, in percent; those that could be tested."""

    @property
    def score(self) -> float:
        """In percent."""
        return 100 * float(np.mean(list(self.base.values())))

    @property
    def noise(self) -> float:
        """Half of the 95 % interval of the base's score, in points: what the items leave open."""
        return 1.96 * math.sqrt(self.variance(self.base))

    def variance(self, scores: dict[str, float]) -> float:
        """The sampling variance of a mean over the tasks, in squared points."""
        each = [p * (1 - p) / self.items[task] for task, p in scores.items() if self.items[task]]
        return 1e4 * sum(each) / len(scores) ** 2

    def best(self, members: Iterable[str]) -> float | None:
        """The score of the best of them; None if one could not be tested."""
        found = [self.alone.get(member) for member in members]
        known = [value for value in found if value is not None]
        return max(known) if known and len(known) == len(found) else None


@dataclass(frozen=True)
class Merge:
    """One merge and what it scores."""

    part: str
    name: str
    family: str
    method: str
    members: tuple[str, ...]
    score: float
    """In percent, as all that follows."""
    gain: float
    """Over the base."""
    tasks: dict[str, float]
    """Gain over the base in each."""
    over_best: float | None
    """Gain over the best of the fine-tunes that were merged."""
    over_all: float | None
    """Gain over the best of all of the family."""
    beyond_noise: bool
    """Whether the gain is more than the items leave open (unpaired, 95 %)."""
    length: float | None
    """‖output − base‖₂."""
    parameters: int | None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many were merged."""
        return len(self.members)

    @property
    def matched(self) -> bool:
        return self.part == "matched"

    @property
    def rms(self) -> float | None:
        """The length over the square root of the number of parameters."""
        return self.length / math.sqrt(self.parameters) if self.length and self.parameters else None


@dataclass(frozen=True)
class Found:
    """All merges of a run."""

    families: dict[str, Family]
    merges: list[Merge]
    notes: list[str]
    """What is left out, and why."""

    def part(self, name: str) -> list[Merge]:
        return [merge for merge in self.merges if merge.part == name]


@dataclass(frozen=True)
class Summary:
    """Gains over the same subsets."""

    count: int
    share: float
    """Above zero."""
    share_interval: tuple[float, float]
    mean: float
    deviation: float | None
    """Over subsets (ddof 1)."""
    interval: tuple[float, float] | None
    """Of the mean: bootstrap over subsets."""


def summary(gains: Sequence[float]) -> Summary:
    """Of one gain or more."""
    hits = sum(gain > 0 for gain in gains)
    interval = wilson(hits, len(gains))
    assert interval is not None
    deviation = float(np.std(gains, ddof=1)) if len(gains) > 1 else None
    share, mean = hits / len(gains), float(np.mean(gains))
    return Summary(len(gains), share, interval, mean, deviation, mean_interval(gains))


def of(results: Results) -> Found:
    """Every merge whose gain can be told."""
    notes: list[str] = []
    families = {family.name: family for family in _families(results.table("models"))}
    merges = []
    for part in PARTS:
        table = results.table(part)
        if not table:
            notes.append(f"The part {part} was not run.")
            continue
        made = [_merge(part, row, families) for row in table]
        merges += [merge for merge in made if merge is not None]
        if lost := sum(merge is None for merge in made):
            notes.append(f"{part}: {lost} of {len(table)} merges have no gain and are left out.")
    for name in sorted({_family(row) for row in results.table("subsets")} - set(families)):
        notes.append(f"{name}: its base was not tested, so no gain can be told.")
    for family in families.values():
        rows = [row for row in results.table("models") if _family(row) == family.name]
        untested = [str(row["grid.expert"]) for row in rows if _is_expert(row)]
        if gone := [name for name in untested if name not in family.alone]:
            notes.append(f"{family.name}: not tested alone: {', '.join(gone)}.")
    return Found(families, merges, notes)


def shared(merges: Sequence[Merge]) -> tuple[list[Merge], int]:
    """The merges of those subsets that every method has, and how many merges are left out.

    Shares of subsets that beat the base can be compared if the subsets are the same.
    """
    sets: dict[Any, dict[Any, set[tuple[str, ...]]]] = defaultdict(lambda: defaultdict(set))
    for merge in merges:
        sets[merge.family, merge.size][merge.method, merge.part].add(merge.members)
    common = {where: set.intersection(*of.values()) for where, of in sets.items()}
    kept = [merge for merge in merges if merge.members in common[merge.family, merge.size]]
    counts = Counter((m.family, m.size, m.method, m.part) for m in kept)
    for (family, size, method, part), count in counts.items():
        assert count == len(common[family, size]), f"{family} {method} {part}: other subsets"
    return kept, len(merges) - len(kept)


def _families(table: Sequence[Row]) -> Iterable[Family]:
    for row in table:
        if row.get("grid.method") != "base" or not (base := read.scores(row)):
            continue
        items = {task: int(row[f"task.{task}_n"] or 0) for task in base}
        alone = {}
        for other in table:
            scores = read.scores(other)
            if _is_expert(other) and _family(other) == _family(row) and set(scores) == set(base):
                alone[str(other["grid.expert"])] = 100 * float(np.mean(list(scores.values())))
        yield Family(_family(row), row["configuration"], base, items, alone)


def _merge(part: str, row: Row, families: dict[str, Family]) -> Merge | None:
    family, scores = families.get(_family(row)), read.scores(row)
    if family is None or row["status"] != "done" or set(scores) != set(family.base):
        return None
    point = json.loads(row["point"])
    members = tuple(sorted(text(m) for m in point.get("subset") or point["family"]["experts"]))
    score = 100 * float(np.mean(list(scores.values())))
    best, of_all = family.best(members), max(family.alone.values(), default=None)
    noise = 1.96 * math.sqrt(family.variance(family.base) + family.variance(scores))
    gain = score - family.score
    return Merge(
        part,
        row["configuration"],
        family.name,
        str(row["grid.method"]),
        members,
        score,
        gain,
        {task: 100 * (scores[task] - base) for task, base in family.base.items()},
        None if best is None else score - best,
        None if of_all is None else score - of_all,
        abs(gain) > noise,
        row["delta_norm"],
        row["parameter_count"],
        {key: value for key, value in point.items() if key not in ("family", "subset", "method")},
    )


def _family(row: Row) -> str:
    return str(row.get("grid.family") or "models")


def _is_expert(row: Row) -> bool:
    return row.get("grid.method") == "fine-tune"
