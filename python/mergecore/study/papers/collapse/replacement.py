"""Which adapter is replaced, and by which? Table 6 of Cao et al., chosen from what was measured.

The paper takes a group with one task that collapses, drops the task of the highest merging
difficulty score, and puts two others in its place that are nearer to the rest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mergecore.diagnose.mergeability import difficulty, similarity
from mergecore.errors import RecipeError
from mergecore.study import results
from mergecore.study.measures import Measured
from mergecore.study.study import Study

NAME = "replacement"
_METHOD = "TIES"
_TITLES = ("(a)", "(a1)", "(a2)")


def groups(asked: Study, place: Path) -> list[dict[str, Any]]:
    """Group (a), the one in which TIES loses most of a task, and (a1) and (a2).

    Returns:
        `{name, members}` each; members as the study's values have them.

    Raises:
        RecipeError: The part `adapters` was not run.
    """
    found = results.load(place)
    measured = found.measured("adapters")
    if not measured or measured[0].states is None:
        raise RecipeError(f"{asked.name}: replacement needs the part adapters: run it, too")
    members = {str(entry["name"]): entry for entry in asked.values["adapters"]["members"]}
    worst = _worst_group(found.table("adapters"), members)
    if worst is None:
        raise RecipeError(f"{asked.name}: no group of adapters has results: run adapters again")
    chosen = [worst, *replaced(measured[0], worst)]
    return [
        {"name": title, "members": [members[name] for name in names]}
        for title, names in zip(_TITLES, chosen, strict=False)
    ]


def unchosen(asked: Study) -> list[dict[str, Any]]:
    """As many groups, before anything was measured: to count and check what will be run."""
    members = asked.values["adapters"]["members"][:8]
    return [{"name": title, "members": members} for title in _TITLES]


def replaced(measured: Measured, group: list[str]) -> list[list[str]]:
    """The group with its member of the highest score replaced by each of the two best others."""

    def worst_score(names: list[str]) -> float:
        return float(scores(measured, names).max())

    dropped = group[int(np.argmax(scores(measured, group)))]
    others = [name for name in measured.names if name not in group]
    swapped = [[other if name == dropped else name for name in group] for other in others]
    return sorted(swapped, key=worst_score)[:2]


def scores(measured: Measured, names: list[str]) -> Any:
    """Each member's merging difficulty score within the group, as the paper takes it."""
    assert measured.states is not None
    places = [measured.place(name) for name in names]
    return difficulty(similarity(measured.states.distances[np.ix_(places, places)]))


def _worst_group(table: list[dict[str, Any]], members: dict[str, Any]) -> list[str] | None:
    alone = {
        row["grid.member"]: results.scores(row) for row in table if row.get("grid.member")
    }  # fmt: skip
    worst: tuple[float, list[str]] | None = None
    for row in table:
        if row.get("grid.method") != _METHOD or row["error"]:
            continue
        names = [str(entry["name"]) for entry in json.loads(row["point"])["group"]]
        ratios = []
        for name in names:
            task = members[name]["task"]
            own, now = alone.get(name, {}).get(task), results.score(row, task)
            if own and now is not None:
                ratios.append(now / own)
        if ratios and (worst is None or min(ratios) < worst[0]):
            worst = min(ratios), names
    return None if worst is None else worst[1]
