"""Where are models made and merged? In a folder that has room for them."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contestants import FailedError
from llama import Size


@contextmanager
def workspace(given: Path | None) -> Iterator[Path]:
    """The folder that was given, or a temporary one."""
    if given:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
    else:
        with tempfile.TemporaryDirectory(prefix="mergecore-bench-") as temporary:
            yield Path(temporary)


def check_space(folder: Path, size: Size, models: int) -> None:
    """Raises FailedError unless so many models fit."""
    needed = 2 * size.parameters * models
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise FailedError(f"{folder}: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")


def say(words: str) -> None:
    """Tells how far the bench is."""
    print(words, file=sys.stderr, flush=True)
