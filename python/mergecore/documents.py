"""Which merges does a recipe file of several documents ask for, and in which order?

Each document but one has a `name`, by which the others use it as a model; the one without is the
output.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from mergecore import recipe
from mergecore.errors import RecipeError
from mergecore.recipe import Recipe

_NAME = re.compile(r"\w[\w .-]*")


@dataclass(frozen=True)
class Document:
    """One merge of a recipe file."""

    name: str | None
    """None for the one that is the output."""
    recipe: Recipe
    uses: tuple[str, ...] = ()
    """The documents that it waits for."""

    @property
    def title(self) -> str:
        return "the document without a name" if self.name is None else f"document {self.name}"


def load(path: str | os.PathLike[str]) -> list[Document]:
    """Reads a recipe file; each document comes after those that it uses, the output last.

    A lone document is the output, whether it has a name or not, as mergekit has it.

    Raises:
        RecipeError: The file cannot be read, or its documents do not make one output.
    """
    return of(recipe.load_all(Path(path)), os.fspath(path))


def of(contents: Sequence[Recipe], where: str) -> list[Document]:
    """The documents of these recipes, in the same order as `load` gives them.

    Raises:
        RecipeError: They do not make one output.
    """
    try:
        return _ordered([_document(content, contents) for content in contents])
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from error


def with_keys(documents: Sequence[Document], seed: int | None, dtype: str | None) -> list[Document]:
    """The documents with another seed, and the output with another dtype: the rest keep theirs."""
    seeds = {} if seed is None else {"seed": seed}
    dtypes = {} if dtype is None else {"dtype": dtype}
    return [
        replace(d, recipe={**d.recipe, **seeds, **({} if d.name else dtypes)}) for d in documents
    ]


def _document(content: Recipe, contents: Sequence[Recipe]) -> Document:
    names = {c["name"] for c in contents if isinstance(c.get("name"), str) and len(contents) > 1}
    request = {key: value for key, value in content.items() if key != "name"}
    used: dict[str, None] = {}

    def note(reference: str) -> str:
        used[reference.partition("+")[0]] = None
        return reference

    recipe.with_references(request, note)
    uses = tuple(name for name in used if name in names)
    if "name" not in content or len(contents) == 1:
        return Document(None, request, uses)
    _check_name(content["name"])
    return Document(content["name"], request, uses)


def _check_name(name: Any) -> None:
    usable = isinstance(name, str) and _NAME.fullmatch(name) and len(name.encode()) <= 200
    if not usable or name.endswith((".partial", " ", ".")):
        raise RecipeError(
            f"the name {name!r} of a document is a folder's, too: "
            "write it with letters, digits, - and _, and quote it if it is a number"
        )


def _ordered(documents: Sequence[Document]) -> list[Document]:
    by_name: dict[str | None, Document] = {}
    for position, document in enumerate(documents, 1):
        if document.name is None and None in by_name:
            raise RecipeError(
                f"document {position} is the second without a name; only the output has none: "
                "give the others one (name: NAME)"
            )
        same = [name for name in by_name if name and name.lower() == (document.name or "").lower()]
        if same:
            alike = "" if same[0] == document.name else f" and {same[0]}, one folder to some disks"
            raise RecipeError(f"two documents are called {document.name}{alike}; rename one")
        by_name[document.name] = document
    if None not in by_name:
        raise RecipeError(
            f"every document has a name ({', '.join(map(str, by_name))}); remove the name of the "
            "one that is the output"
        )
    uses = {document.name: document.uses for document in documents}
    try:
        order = list(TopologicalSorter(uses).static_order())
    except CycleError as error:
        circle = " uses ".join(reversed(error.args[1]))
        raise RecipeError(f"{circle}: none of these documents can be the first") from error
    used = {name for names in uses.values() for name in names}
    idle = [name for name in by_name if name is not None and name not in used]
    if idle:
        raise RecipeError(f"no document uses {idle[0]}; use it as a model, or remove it")
    return [*(by_name[name] for name in order if name is not None), by_name[None]]
