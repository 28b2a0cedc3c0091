"""What did each merge lose? Every group of models that was merged, read off the run's tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from mergecore.diagnose.association import merging_loss
from mergecore.diagnose.bounds import Floats
from mergecore.study.papers.collapse.published import METHODS
from mergecore.study.results import Results, Row, score

CORRECTED = ("TIES, norm of TA", "DARE, norm of TA", "TA, sum")
"""The paper's methods at another length."""
Losses = list[float | None]


@dataclass(frozen=True)
class Group:
    """Models of one base, what each reaches in its task, and what their merges reach."""

    name: str
    part: str
    members: list[str]
    tasks: list[str]
    """Each member's."""
    own: list[Row | None]
    """The row of each member's own model."""
    merges: dict[str, Row]
    """By method."""
    base: Row | None = None

    @property
    def tuned(self) -> Losses:
        """What each member's own model reaches."""
        return [_score(row, task) for row, task in zip(self.own, self.tasks, strict=True)]

    @property
    def before(self) -> Losses:
        """What the base reaches in each task."""
        return [_score(self.base, task) for task in self.tasks]

    def merged(self, method: str) -> Losses:
        """What the merge reaches in each task."""
        return [_score(self.merges.get(method), task) for task in self.tasks]

    def loss(self, method: str) -> Losses:
        """Eq. 1 of each task, in percent; None where a model failed or its own scores nothing."""
        return [
            None if now is None or not tuned else float(merging_loss([now], [tuned])[0])
            for now, tuned in zip(self.merged(method), self.tuned, strict=True)
        ]

    def methods(self, among: Iterable[str] | None = None) -> list[str]:
        """Those that some loss is known of, the paper's first."""
        wanted = [*METHODS, *CORRECTED] if among is None else list(among)
        return [m for m in wanted if any(one is not None for one in self.loss(m))]

    def table(self, among: Sequence[str]) -> tuple[Floats, list[str]] | None:
        """The losses of methods in the tasks that all of them have one of, and the methods.

        None where fewer than two of either are left.
        """
        methods = self.methods(among)
        if len(methods) < 2:
            return None
        found = np.array([self.loss(method) for method in methods], np.float64)
        found = found[:, ~np.isnan(found).any(axis=0)]
        return (found, methods) if found.shape[1] > 1 else None

    def over(self, among: Sequence[str], how: str) -> Losses:
        """Each task's `best`, `mean` or `worst` loss over methods."""
        ways: dict[str, Callable[[list[float]], float]] = {"best": max, "mean": fmean, "worst": min}
        take = ways[how]
        columns = zip(*(self.loss(method) for method in self.methods(among)), strict=True)
        found = [[one for one in column if one is not None] for column in columns]
        return [take(column) if column else None for column in found] or [None] * len(self.tasks)

    def undefined(self) -> list[str]:
        """Members whose own models score nothing, so that no loss is defined."""
        pairs = zip(self.members, self.tuned, strict=True)
        return [name for name, tuned in pairs if tuned is not None and tuned <= 0]


def known(losses: Iterable[float | None]) -> list[float]:
    """Those that there are."""
    return [loss for loss in losses if loss is not None]


def families(results: Results) -> list[Group]:
    """The eight experts of each base."""
    found: dict[str, list[Row]] = {}
    for row in results.table("eight"):
        found.setdefault(_point(row)["family"]["name"], []).append(row)
    groups = []
    for name, rows in found.items():
        experts = _point(rows[0])["family"]["experts"]
        own = {_point(row)["expert"]["name"]: row for row in rows if "expert" in _point(row)}
        base = next((row for row in rows if _point(row)["method"] == "base"), None)
        merges = {_point(row)["method"]: row for row in rows if row["kind"] == "merge"}
        groups.append(_group(name, "eight", experts, own, merges, base))
    return groups


def pairs(results: Results) -> list[Group]:
    """All pairs of one base's experts; `of` in their points says whose."""
    table = results.table("pairs")
    own = {_point(row)["expert"]["name"]: row for row in table if "expert" in _point(row)}
    return _grouped("pairs", [row for row in table if "pair" in _point(row)], "pair", own)


def paired(results: Results) -> str | None:
    """The name of the family whose pairs were merged."""
    rows = results.table("pairs")
    return str(_point(rows[0])["of"]["name"]) if rows else None


def adapters(results: Results) -> list[Group]:
    """The groups of adapters, called (a), (b) and so on in their order."""
    table = results.table("adapters")
    rows = [row for row in table if "group" in _point(row)]
    base = next((row for row in table if _point(row)["method"] == "base"), None)
    found = _grouped("adapters", rows, "group", _of_adapters(results))
    return [replace(g, name=letter(number), base=base) for number, g in enumerate(found)]


def replaced(results: Results) -> list[Group]:
    """The group of which an adapter is replaced, and what becomes of it."""
    found: dict[str, dict[str, Row]] = {}
    members: dict[str, list[dict[str, Any]]] = {}
    for row in results.table("replacement"):
        group = _point(row)["group"]
        found.setdefault(group["name"], {})[_point(row)["method"]] = row
        members[group["name"]] = group["members"]
    own = _of_adapters(results)
    return [
        _group(name, "replacement", members[name], own, merges) for name, merges in found.items()
    ]


def letter(number: int) -> str:
    """(a) to (z), then (27) and so on."""
    return f"({chr(ord('a') + number) if number < 26 else number + 1})"


def _of_adapters(results: Results) -> dict[str, Row]:
    rows = [row for row in results.table("adapters") if "member" in _point(row)]
    return {_point(row)["member"]["name"]: row for row in rows}


def _grouped(part: str, rows: Iterable[Row], key: str, own: dict[str, Row]) -> list[Group]:
    """Groups by the members that their points name."""
    found: dict[str, dict[str, Row]] = {}
    members: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        point = _point(row)
        name = "+".join(str(entry["name"]) for entry in point[key])
        found.setdefault(name, {})[point["method"]] = row
        members[name] = point[key]
    return [_group(name, part, members[name], own, merges) for name, merges in found.items()]


def _group(
    name: str,
    part: str,
    members: Sequence[dict[str, Any]],
    own: dict[str, Row],
    merges: dict[str, Row],
    base: Row | None = None,
) -> Group:
    names = [str(entry["name"]) for entry in members]
    tasks = [str(entry["task"]) for entry in members]
    return Group(name, part, names, tasks, [own.get(one) for one in names], merges, base)


def _point(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(row["point"])
    return found


def _score(row: Row | None, task: str) -> float | None:
    return None if row is None or row["error"] else score(row, task)
