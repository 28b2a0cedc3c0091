"""What did a model answer? Whether always the same, whether anything, and what chance would reach.

A loss of 30 % may be a task half forgotten or one label given to everything: the rows tell.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mergecore.study.results import Results, Row

_FEW = 4
"""Items a label, from which on a task is taken to be one of labels."""


@dataclass(frozen=True)
class Answers:
    """A configuration's answers in one task."""

    count: int
    constant: bool
    """All are the same, though the references are not."""
    unusable: float
    """The share of those that are empty, or in a task of labels none of them."""
    chance: float
    """What the commonest reference alone would reach."""


def of(rows: Sequence[Row]) -> Answers | None:
    """What rows of one task tell; None if there are none."""
    if not rows:
        return None
    said = [_text(row["prediction"]) for row in rows]
    wanted = [_references(row["reference"]) for row in rows]
    often = Counter(one for several in wanted for one in set(several))
    labels = set(often) if len(often) * _FEW <= len(rows) else None
    unusable = sum(not text or (labels is not None and text not in labels) for text in said)
    chance = max(often.values()) / len(rows)
    constant = len(rows) > 1 and len(set(said)) == 1 and chance < 1
    return Answers(len(rows), constant, unusable / len(rows), chance)


def by_task(results: Results, part: str, configuration: str) -> dict[str, Answers]:
    """A configuration's answers by task; of those tasks that it was given."""
    found: dict[str, list[Row]] = {}
    for row in results.rows(part, configuration, "tasks"):
        found.setdefault(str(row["task"]), []).append(row)
    told = {task: of(rows) for task, rows in found.items()}
    return {task: answers for task, answers in told.items() if answers is not None}


def adjusted(merged: float | None, tuned: float | None, chance: float | None) -> float | None:
    """Eq. 1 of what is above chance, in percent; None where the task's own model has none."""
    if merged is None or tuned is None or chance is None or tuned <= chance:
        return None
    return ((merged - chance) / (tuned - chance) - 1) * 100


def _references(reference: Any) -> list[str]:
    return [_text(one) for one in (reference if isinstance(reference, list) else [reference])]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return " ".join(value.split()) if isinstance(value, str) else json.dumps(value, sort_keys=True)
