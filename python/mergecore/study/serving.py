"""How do a configuration's weights reach those who ask it? From a folder, or merged into memory.

What is merged into memory is written nowhere: transformers builds its model of it, and a vLLM
engine that runs takes it in the place of the weights it has, as long as config and tokenizer are
the same.
"""

from __future__ import annotations

import gc
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergecore.errors import MergecoreError
from mergecore.evaluate.backends import Backend, NotTakenError
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
    """What messages call it."""
    weights: str
    """Their address."""
    folder: Path
    """Its config and tokenizer, and its weights unless they are merged into memory."""
    merged: Merged | None = None
    embedding: Callable[[], int | None] | None = None
    """Tells the rows of its embedding, where the folder has no weights to look at."""
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
    place.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=place))
    for name, content in files.items():
        file = unfinished / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    try:
        unfinished.replace(folder)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not folder.exists():  # else another process was at the same
            raise
    return folder


class Serving:
    """The vLLM engine that runs, if one does, and whose weights it has been given."""

    def __init__(self, distrust: Callable[[list[str], str], Any]) -> None:
        """Begins without an engine.

        Args:
            distrust: Is told whose answers are not to be trusted, by the addresses of their
                weights, and why.
        """
        self.engine: VllmEngine | None = None
        self._distrust = distrust
        self._files: Path | None = None
        self._first: Merged | None = None
        self._answered: list[str] = []

    def backend(
        self, subject: Subject, start: Callable[[], Backend], tell: Callable[[str], Any]
    ) -> Backend:
        """Who answers for a subject: the engine that runs, if it fits, or what `start` makes.

        Args:
            subject: The model.
            start: Makes a backend.
            tell: As of `check`.

        Raises:
            NotTakenError: The engine has not taken the weights; it is let go of, and what it has
                answered is not trusted.
            MergecoreError: As the merge and the engine's start say.
        """
        if self.engine is not None and self._files == subject.folder:
            assert subject.merged is not None
            self._swap(subject.merged)
            self._answered.append(subject.weights)
            return self.engine
        self.retire(tell)
        backend = start()
        if subject.merged is not None and backend.name == "vllm":
            self.engine = backend  # type: ignore[assignment]
            self._files, self._first = subject.folder, subject.merged
            self._answered = [subject.weights]
        return backend

    def check(self, tell: Callable[[str], Any]) -> None:
        """Gives the engine its first weights again, which must find what they found.

        Args:
            tell: Is told if they could not be merged again, which says nothing of the answers.
        """
        if self.engine is None or self._first is None or len(self._answered) < 2:
            return
        try:
            self._swap(self._first)
        except NotTakenError:
            return  # who distrusts it was told
        except MergecoreError as error:
            tell(f"the last look at vLLM failed: {error}")

    def retire(self, tell: Callable[[str], Any]) -> None:
        """Lets go of the engine, after a last look at what it has answered; see `check`."""
        self.check(tell)
        self._drop()

    def _swap(self, merged: Merged) -> None:
        assert self.engine is not None
        try:
            self.engine.swap(merged())
        except NotTakenError as error:
            answered = self._answered
            self._drop()
            self._distrust(answered, str(error))
            raise
        except BaseException:
            self._drop()  # nobody knows which weights it has
            raise

    def _drop(self) -> None:
        if self.engine is not None:
            self.engine, self._answered = None, []
            gc.collect()
