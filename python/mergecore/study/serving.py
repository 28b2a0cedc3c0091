"""How do a configuration's weights reach those who ask it? From a folder, or merged into memory.

What is merged into memory is written nowhere: transformers builds its model of it, and a vLLM
engine that runs takes it in the place of the weights it has, as long as config and tokenizer are
the same.
"""

from __future__ import annotations

import gc
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergecore.errors import RunError
from mergecore.evaluate.backends import Backend
from mergecore.planning import Prepared
from mergecore.side_files import RECIPE_AS_RUN
from mergecore.streaming import Stream

if TYPE_CHECKING:
    from mergecore.evaluate.backends.vllm import VllmEngine

Merged = Callable[[], Stream]
"""Merges anew, each time it is called, into tensors of torch."""

_OF_THE_MERGE = ("README.md", RECIPE_AS_RUN)
"""Side files that say how a merge was made: all others decide how the model is run."""


@dataclass
class Subject:
    """A model that is asked."""

    name: str
    folder: Path
    """Its config and tokenizer, and its weights unless they are merged into memory."""
    merged: Merged | None = None
    rows: int | None = None
    """Of its embedding, where the folder has no weights to look at."""
    _models: dict[str | None, Any] = field(default_factory=dict)

    def load(self, dtype: str | None) -> Any:
        """A model of transformers, merged once for all who ask it in a dtype.

        Raises:
            MergecoreError: As the merge and `loaded` say.
        """
        from mergecore.evaluate.backends.transformers import loaded

        if dtype not in self._models:
            assert self.merged is not None
            self._models[dtype] = loaded(self.folder, self.name, dtype, self.merged())
        return self._models[dtype]


def write_side_files(prepared: Prepared, place: Path) -> Path:
    """Writes what a model is run with beside its weights; the same files are the same folder.

    Args:
        prepared: The merge.
        place: Where the folder is to be.

    Raises:
        ModelError: The donor's files cannot be read.
    """
    files = {}
    for name, content in prepared.side_files(place):
        if name not in _OF_THE_MERGE:
            files[name] = content if isinstance(content, bytes) else Path(content).read_bytes()
    found = hashlib.sha256()
    for name, content in files.items():
        found.update(f"{name} {len(content)}\n".encode() + content)
    folder = place / f"{found.hexdigest()[:20]}.files"
    if folder.exists():
        return folder
    unfinished = place / f"{folder.name}.{os.getpid()}"  # other processes may be at the same
    for name, content in files.items():
        file = unfinished / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    unfinished.mkdir(parents=True, exist_ok=True)
    try:
        unfinished.replace(folder)
    except OSError:
        if not folder.exists():
            raise
    return folder


class Serving:
    """The vLLM engine that runs, if one does, and which configurations it has answered for."""

    def __init__(self) -> None:
        self.engine: VllmEngine | None = None
        self.starts = 0
        """How many engines were started."""
        self._files: Path | None = None
        self._first: Merged | None = None
        self.answered: list[str] = []
        """The configurations that the engine was given since it was started."""

    def backend(self, subject: Subject, start: Callable[[], Backend]) -> Backend:
        """Who answers for a subject: the engine that runs, if it fits, or what `start` makes.

        Raises:
            MergecoreError: As the merge, the engine's start and `swap` say.
        """
        if self.engine is not None and self._files == subject.folder:
            assert subject.merged is not None
            try:
                self.engine.swap(subject.merged())
            except BaseException:
                self.drop()  # nobody knows which weights it has
                raise
            self.answered.append(subject.name)
            return self.engine
        self.drop()
        backend = start()
        if subject.merged is not None and backend.name == "vllm":
            self.engine = backend  # type: ignore[assignment]
            self._files, self._first = subject.folder, subject.merged
            self.answered = [subject.name]
            self.starts += 1
        return backend

    def check(self) -> None:
        """Gives the engine its first weights again, which must find what they found.

        Raises:
            RunError: They do not: what was answered since its start is not to be trusted.
        """
        if self.engine is None or len(self.answered) < 2:
            return
        assert self._first is not None
        try:
            self.engine.swap(self._first())
        except RunError:
            self.drop()
            raise

    def drop(self) -> None:
        """Lets go of the engine."""
        if self.engine is not None:
            self.engine = None
            gc.collect()
