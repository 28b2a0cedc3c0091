"""How does a stage's work survive? A file that is only added to, and goes on where it ended.

Each row is one line, written whole and synced before the next. A line that a kill cut off is taken
away when the file is opened again; ids that are there are not done again. Beside OUT lies
OUT.stage.json, which says what the rows were made with: other settings would mix two experiments
in one file, and are refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mergecore import __version__
from mergecore.errors import OutputExistsError, RecipeError
from mergecore.evaluate.rows import Row


class Stage:
    """The file of one stage, open for more rows. Safe to add to from several threads."""

    def __init__(self, path: Path, file: Any, done: dict[str, Row]) -> None:
        """Use `open_stage`."""
        self.path = path
        self.done = done
        """The rows that are there, by id."""
        self._file = file
        self._lock = threading.Lock()

    def add(self, row: Row) -> None:
        """Writes a row and syncs it."""
        line = json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
        # A lone surrogate is no UTF-8; JSON can write it as an escape.
        encoded = line.encode("utf-8", errors="strict") if _is_utf8(line) else _escaped(row)
        with self._lock:
            if row["id"] in self.done:
                raise RecipeError(f"{self.path}: the id {row['id']!r} is there already")
            self._file.write(encoded)
            self._file.flush()
            os.fsync(self._file.fileno())
            self.done[row["id"]] = row


@contextlib.contextmanager
def open_stage(
    path: str | Path, kind: str, settings: Mapping[str, Any], *, overwrite: bool = False
) -> Iterator[Stage]:
    """Opens a stage's file, new or begun.

    Args:
        path: The file of JSON Lines.
        kind: The stage, for example `generate`.
        settings: Whatever decides what a row holds.
        overwrite: Begin anew.

    Raises:
        OutputExistsError: The file was made with other settings, or by another stage; or another
            process is at work on it.
        RecipeError: It cannot be written, or holds something else.
    """
    path = Path(path).expanduser()
    about = {"stage": kind, **settings}
    beside = path.with_name(path.name + ".stage.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+")
    except OSError as error:
        raise RecipeError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutputExistsError(
                f"{path}: another process is writing it; wait for it, or give another --out"
            ) from error
        if overwrite:
            file.truncate(0)
        done = _whole_rows(path, file)
        if done:
            _check_same(path, beside, about)
        else:
            _write(beside, about)
        yield Stage(path, file, done)


def _whole_rows(path: Path, file: Any) -> dict[str, Row]:
    """The rows that are there; what a kill left of a line is cut off."""
    file.seek(0)
    content: bytes = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    rows = {}
    for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
            rows[row["id"]] = row
        except (ValueError, KeyError, TypeError) as error:
            raise OutputExistsError(
                f"{path}: line {number} is no row of a stage; move the file away, or give another"
                " --out"
            ) from error
    if len(whole) < len(content):
        file.truncate(len(whole))
    file.seek(0, os.SEEK_END)
    return rows


def _check_same(path: Path, beside: Path, about: Mapping[str, Any]) -> None:
    try:
        before = json.loads(beside.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise OutputExistsError(
            f"{path}: has rows, and {beside.name} does not say what they were made with; give"
            " --overwrite, or another --out"
        ) from error
    now = json.loads(json.dumps(about))
    for key in dict.fromkeys([*now, *before]):
        if key == "mergecore":
            continue  # a newer version goes on with an older one's work
        if before.get(key) != now.get(key):
            raise OutputExistsError(
                f"{path}: was begun with {key} {before.get(key)!r}, not {now.get(key)!r}; give"
                " --overwrite, or another --out"
            )


def _write(path: Path, about: Mapping[str, Any]) -> None:
    text = json.dumps({"mergecore": __version__, **about}, indent=2, ensure_ascii=False) + "\n"
    unfinished = path.with_name(path.name + ".partial")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _escaped(row: Row) -> bytes:
    return (json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n").encode()
