"""How does a stage's work survive? A file that is only added to, and goes on where it ended.

Each row is one line, written whole before the next, and synced within the next quarter of a second
of work: a kill loses no row, a power failure the last few. A line that was cut off is taken away
when the file is opened again; ids that are there are not done again. Beside OUT lies
OUT.stage.json, which says what the rows were made with: other settings would mix two experiments
in one file, and are refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mergecore import __version__
from mergecore.errors import OutputExistsError, RecipeError
from mergecore.evaluate.rows import Row

_UNSYNCED = 0.25
"""Seconds that rows may wait for their sync. Each row's own took 4 ms, and half the time of small
models that answer in large batches."""


class Stage:
    """The file of one stage, open for more rows. Safe to add to from several threads."""

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        """Use `open_stage`."""
        self.path = path
        self.done: dict[str, Row] = {}
        """The rows that are there, by id."""
        self._lock = threading.Lock()
        self._synced = time.monotonic()
        self._file = _locked(path)
        try:
            if overwrite:
                self._file.truncate(0)
            self._load()
        except BaseException:
            self._file.close()
            raise

    def add(self, *rows: Row) -> None:
        """Writes rows, all of them at once; they are synced soon, or when the stage is closed."""
        with self._lock:
            for row in rows:
                if row["id"] in self.done:
                    raise RecipeError(f"{self.path}: the id {row['id']!r} is there already")
            self._file.write(b"".join(map(_line, rows)))
            self._file.flush()
            if time.monotonic() - self._synced > _UNSYNCED:
                self._sync()
            self.done.update((row["id"], row) for row in rows)

    def left(self, wanted: Sequence[Row], of: Callable[[Row], str]) -> list[Row]:
        """Those that have no row yet.

        Args:
            wanted: What rows are made of.
            of: Its digest, which rows keep under `of`; a row without one is taken as it is.

        Raises:
            OutputExistsError: A row was made of something else that had the same id.
        """
        found = []
        for row in wanted:
            there = self.done.get(row["id"])
            if there is None:
                found.append(row)
            elif there.get("of") not in (None, of(row)):
                raise OutputExistsError(
                    f"{self.path}: the row {row['id']!r} was made of another text that had this id;"
                    " give --overwrite, or another --out"
                )
        return found

    def forget(self, which: Callable[[Row], bool]) -> None:
        """Takes out rows that are to be made again, by another file in the place of this one."""
        kept = [row for row in self.done.values() if not which(row)]
        if len(kept) == len(self.done):
            return
        replace(self.path, b"".join(map(_line, kept)))
        self._file.close()
        self._file = _locked(self.path)
        self.done = {row["id"]: row for row in kept}

    def close(self) -> None:
        """Syncs the file and lets go of it."""
        try:
            self._sync()
        finally:
            self._file.close()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def _load(self) -> None:
        """Reads the rows that are there; what a kill left of a line is cut off."""
        self._file.seek(0)
        content: bytes = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
            try:
                row = json.loads(line)
                self.done[row["id"]] = row
            except (ValueError, KeyError, TypeError) as error:
                raise OutputExistsError(
                    f"{self.path}: line {number} is no row of a stage; move the file away, or give"
                    " another --out"
                ) from error
        if len(whole) < len(content):
            self._file.truncate(len(whole))
        self._file.seek(0, os.SEEK_END)


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
        RecipeError: It cannot be written.
    """
    path = Path(path).expanduser()
    about = {"stage": kind, **settings}
    beside = path.with_name(path.name + ".stage.json")
    with contextlib.closing(Stage(path, overwrite=overwrite)) as stage:
        if stage.done:
            _check_same(path, beside, about)
        else:
            said = {"mergecore": __version__, **about}
            replace(beside, (json.dumps(said, indent=2, ensure_ascii=False) + "\n").encode())
        yield stage


def _locked(path: Path) -> Any:
    """The file, open for reading and adding, for this process alone."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+", buffering=1 << 20)  # rows of a batch are one write
    except OSError as error:
        raise RecipeError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise OutputExistsError(
            f"{path}: another process is writing it; wait for it, or give another --out"
        ) from error
    return file


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


def replace(path: Path, content: bytes) -> None:
    """Puts a file in the place of another, whole."""
    unfinished = path.with_name(path.name + ".partial")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def _line(row: Row) -> bytes:
    """A row as its line. A lone surrogate is no UTF-8, but JSON can write it as an escape."""
    try:
        return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n").encode()
