"""Where do the rows of a task come from? A file of the user's, or the hub."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergecore.errors import RecipeError
from mergecore.evaluate import rows as files
from mergecore.evaluate.backends import need
from mergecore.evaluate.rows import Row
from mergecore.evaluate.tasks import GROUPS, OPEN
from mergecore.evaluate.tasks.task import Task

_ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Data:
    """The rows of one task."""

    rows: list[Row]
    source: str
    """The file, or the data set on the hub."""

    @property
    def digest(self) -> str:
        """Tells other rows from these, wherever the file lies."""
        text = json.dumps(self.rows, sort_keys=True, ensure_ascii=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def load(task: Task, given: dict[str, str]) -> Data:
    """The rows of a task.

    Args:
        task: Which.
        given: Files by the names of tasks; folders by the names of groups, with a file a task, and
            for tasks like `exact:NAME` by `exact`, with a file a name.

    Raises:
        RecipeError: They are neither here nor to be had; a file cannot be read, or a row lacks a
            key.
    """
    paths = [given[task.name]] if task.name in given else _in_folder(task, given)
    if paths:
        return Data(_checked(task, paths), ", ".join(paths))
    if task.repository is None:
        raise RecipeError(f"{task.name}: has no data set of its own; give --data {task.name}=FILE")
    need("pyarrow", "tasks")
    return Data(
        _checked(task, [_fetched(task, name) for name in task.files]), f"hub:{task.repository}"
    )


def _in_folder(task: Task, given: dict[str, str]) -> list[str]:
    """The task's file in the folder of its group."""
    kind, _, own = task.name.partition(":")
    groups = {**GROUPS, **({kind: (own,)} if own and kind in OPEN else {})}
    for group, names in groups.items():
        mine = own if group == kind and own else task.name
        if group in given and mine in names:
            folder = Path(given[group]).expanduser()
            found = [folder / f"{mine}{ending}" for ending in _ENDINGS]
            there = [str(path) for path in found if path.is_file()]
            if not there:
                raise RecipeError(f"{folder}: has no {found[0].name}, nor .csv, .tsv or .parquet")
            return there[:1]
    return []


def _checked(task: Task, paths: Sequence[str]) -> list[Row]:
    """The rows of all files, each with what the task needs, and with an id of its own."""
    rows = [row for path in paths for row in read(path, *task.needs)]
    known: set[str] = set()
    for number, row in enumerate(rows):
        if row["id"] in known:  # of several files, each counts from 0
            row["id"] = str(number)
        known.add(row["id"])
    return rows


def read(path: str | Path, *needs: str) -> list[Row]:
    """Reads JSON Lines, a JSON array, CSV or TSV with a header, or parquet.

    Raises:
        RecipeError: As `rows.read` does; or the file is of another kind.
    """
    path = Path(path).expanduser()
    kind = path.suffix.lower()
    if kind not in _ENDINGS:
        raise RecipeError(f"{path}: is none of {', '.join(_ENDINGS)}")
    if kind in (".jsonl", ".json"):
        return files.read(path, *needs)
    rows = []
    for number, row in enumerate(_parquet(path) if kind == ".parquet" else _table(path, kind)):
        for wanted in needs:
            if all(row.get(key) in (None, "") for key in wanted.split("|")):
                missing = " or ".join(wanted.split("|"))
                raise RecipeError(f"{path}: row {number + 1} has no {missing}")
        rows.append({**row, "id": str(number)})
    if not rows:
        raise RecipeError(f"{path}: has no rows")
    return rows


def _table(path: Path, kind: str) -> Iterator[dict[str, Any]]:
    """CSV with quotes; TSV without, as GLUE's files are written."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if kind == ".csv":
                yield from csv.DictReader(file)
            else:
                yield from csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or f"cannot be read as {kind[1:]}: {error}"
        raise RecipeError(f"{path}: {reason}") from error


def _parquet(path: Path) -> list[dict[str, Any]]:
    need("pyarrow", "tasks")
    from pyarrow import ArrowException, parquet

    try:
        return list(parquet.read_table(str(path)).to_pylist())
    except (OSError, ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise RecipeError(f"{path}: cannot be read as parquet: {reason}") from error


def _fetched(task: Task, name: str) -> str:
    from huggingface_hub import hf_hub_download

    assert task.repository is not None
    try:
        return str(hf_hub_download(task.repository, name, repo_type="dataset"))
    except Exception as error:  # the client's errors have no ancestor of their own
        raise RecipeError(
            f"{task.name}: {name} of the data set {task.repository} is not to be had"
            f" ({type(error).__name__}); download it and give --data {task.name}=FILE"
        ) from error
