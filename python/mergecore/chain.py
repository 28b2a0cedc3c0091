"""How are the documents of a recipe file merged, one after the other, and none twice?

Those with a name are merged into OUT.partial, each a whole output with a journal of its own, and go
before OUT is there. One that a stopped run has left is used again only if its manifest says that
this very merge made it; if not, it is made again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from mergecore import planning, recipe
from mergecore._mergecore import __version__, claim, free_space
from mergecore.documents import Document
from mergecore.errors import MergecoreError, OutputExistsError, SpaceError

Bars: TypeAlias = Callable[[str], AbstractContextManager[planning.Progress | None]]
"""Gives the progress of one document by its name, and of the output by the output's."""

FOLDER = ".mergecore-documents"  # the engine's word


@dataclass(frozen=True)
class Checked:
    """Documents that the engine has understood, and whose models outside the file are here."""

    documents: Sequence[Document]
    plans: Mapping[str | None, planning.Prepared]
    """By name, of those that wait for no other: the others' inputs have no headers yet."""
    inputs: Sequence[str]
    """Where the models are that are no documents."""
    notes: Sequence[str]
    limits: Mapping[str, Any]

    def bytes_to_write(self, without: Path | None = None) -> int:
        """At least as much the disk must hold, but for documents that the folder `without` has."""
        return sum(
            prepared.summary["bytes_to_write"]
            for name, prepared in self.plans.items()
            if not (without and name and _begun(without / name))
        )

    def run(self, out: str | os.PathLike[str], overwrite: bool, bars: Bars) -> dict[str, Any]:
        """Merges one after the other; the output's report, with all the others as `documents`."""
        place = Path(planning.checked_name(out))
        folder = place.with_name(f"{place.name}.partial") / FOLDER if place.name else place
        self._check_space(place, folder)
        done: list[dict[str, Any]] = []
        with _held(place, self.inputs, _identity(self.documents), overwrite):
            for document in self.documents[:-1]:
                with _speaking_of(document):
                    done.append(self._make(document, folder, done, overwrite, bars))
            prepared = self._prepared(self.documents[-1], folder, done)
            with bars(place.name) as progress:
                report = prepared.run(out, overwrite, progress)
        for key in ("notes", "warnings"):
            said = [f"document {d['name']}: {text}" for d in done for text in d[key]]
            report[key] = [*said, *report[key]]
        report["notes"] = [*self.notes, *_what_was_done(done), *report["notes"]]
        return {**report, "documents": done}

    def _make(
        self,
        document: Document,
        folder: Path,
        done: list[dict[str, Any]],
        overwrite: bool,
        bars: Bars,
    ) -> dict[str, Any]:
        assert document.name is not None
        prepared, place = self._prepared(document, folder, done), folder / document.name
        reused = prepared.is_made(place)
        report = prepared.summary
        if not reused:
            if not overwrite:
                _check_not_in_vain(place)
            with bars(document.name) as progress:
                # What is there belongs to this output alone, and is of another recipe or input.
                report = prepared.run(place, True, progress)
        said = {key: report[key] for key in ("method", "base", "models", "notes", "warnings")}
        about = {"name": document.name, "reused": reused, "recipe": prepared.summary["recipe"]}
        return {**about, **said}

    def _prepared(
        self, document: Document, folder: Path, done: Sequence[dict[str, Any]]
    ) -> planning.Prepared:
        places = {d["name"]: folder / d["name"] for d in done}
        prepared = self.plans.get(document.name) or _planned(document, self.limits, places)
        prepared.summary["documents"] = list(done)
        return prepared

    def _check_space(self, place: Path, folder: Path) -> None:
        needed, free = self.bytes_to_write(without=folder), free_space(os.path.abspath(place))
        if free < needed:
            raise SpaceError(
                f"{place}: not enough space on the disk: the documents need at least "
                f"{needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; free some, or choose "
                "another --out"
            )


def check(documents: Sequence[Document], *, notes: Sequence[str] = (), **limits: Any) -> Checked:
    """Checks all that can be known before the first document is merged, and writes nothing.

    First every recipe, before anything is downloaded; then the models outside the file.

    Args:
        documents: In order, as `load` gives them.
        notes: What the report is to say first.
        **limits: What `planning.prepare` takes.

    Raises:
        MergecoreError: As `planning.prepare` does; the message names the document.
    """
    names = {d.name: Path(d.name) for d in documents if d.name is not None}
    outside: dict[str | None, list[str]] = {}
    for document in documents:
        with _speaking_of(document):
            outside[document.name] = planning.outside(document.recipe, names)
    plans, inputs = {}, []
    for document in documents:
        with _speaking_of(document):
            inputs += planning.locate_outside(outside[document.name], limits.get("quiet", True))
            planning.locate_lender(document.recipe, names, limits.get("quiet", True))
            if not document.uses:
                plans[document.name] = _planned(document, limits, {})
    hidden = [
        f"{name} is the document of that name, and not the folder"
        for name in names
        if os.path.exists(name)
    ]
    return Checked(documents, plans, inputs, [*notes, *hidden], limits)


def _planned(
    document: Document, limits: Mapping[str, Any], places: Mapping[str, Path]
) -> planning.Prepared:
    # The shards are the output's: a document need not be made again for another size of them.
    own = {**limits, "shard_size": None} if document.name else limits
    return planning.prepare(document.recipe, from_file=True, documents=places, **own)


def _begun(place: Path) -> bool:
    return place.exists() or place.with_name(f"{place.name}.partial").exists()


def _check_not_in_vain(place: Path) -> None:
    """The output that was begun with another document there would refuse this one, hours later."""
    partial = place.parent.parent
    if place.exists() and (partial / ".mergecore-journal.jsonl").exists():
        raise OutputExistsError(
            f"{partial}: holds an unfinished merge whose inputs have changed since; delete it, or "
            "give --overwrite or another --out"
        )


@contextmanager
def _held(out: Path, inputs: Sequence[str], request: str, overwrite: bool) -> Iterator[None]:
    held = claim(os.fspath(out), list(inputs), request, overwrite)
    try:
        yield
    finally:
        del held


def _identity(documents: Sequence[Document]) -> str:
    """Tells one request from another, as far as it is known before the models are."""
    words = [__version__, *(f"{d.name} {recipe.to_json(d.recipe)}" for d in documents)]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


@contextmanager
def _speaking_of(document: Document) -> Iterator[None]:
    try:
        yield
    except MergecoreError as error:
        raise type(error)(f"{document.title}: {error}") from error


def _what_was_done(done: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for reused, words in ((False, "made first"), (True, "used again from an interrupted run")):
        names = [d["name"] for d in done if d["reused"] == reused]
        if names:
            yield f"documents {words}: {', '.join(names)}"
