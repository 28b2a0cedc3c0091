"""What has a study left? Its parts' tables and rows, and what was measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mergecore.errors import RecipeError
from mergecore.study import measures, report
from mergecore.study.measures import Measured
from mergecore.study.report import Run

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Results:
    """A study's run."""

    folder: Path
    about: dict[str, Any]

    @cached_property
    def parts(self) -> dict[str, Run]:
        """Those that were run, by name."""
        names = [entry["name"] for entry in self.about["parts"]]
        return {name: report.load(self.folder / name) for name in names}

    def table(self, part: str) -> list[Row]:
        """The rows of a part; none if it was not run."""
        return self.parts[part].table if part in self.parts else []

    def measured(self, part: str) -> list[Measured]:
        """What a part has measured."""
        entries = {entry["name"]: entry for entry in self.about["parts"]}
        told = entries.get(part, {}).get("measures", [])
        return [measures.load(entry, self.folder) for entry in told]

    def rows(self, part: str, configuration: str, stage: str) -> list[Row]:
        """A configuration's rows of a stage."""
        return self.parts[part].rows(configuration, stage)

    def everything(self) -> Iterator[tuple[str, Row]]:
        """Every row of every table, with its part."""
        for name in self.parts:
            for row in self.table(name):
                yield name, row


def load(folder: str | Path) -> Results:
    """Reads a study's run.

    Raises:
        RecipeError: It is none.
    """
    place = Path(folder).expanduser()
    try:
        about = json.loads((place / "study.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{folder}: is no run of `mergecore study run` (study.json)") from error
    return Results(place, about)


def score(row: Row, task: str) -> float | None:
    """A configuration's score in a task."""
    value = row.get(f"task.{task}")
    return None if value is None else float(value)


def scores(row: Row) -> dict[str, float]:
    """Its scores in all tasks that it was given."""
    names = [key[len("task.") :] for key in row if key.startswith("task.") and f"{key}_n" in row]
    found = {name: score(row, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}
