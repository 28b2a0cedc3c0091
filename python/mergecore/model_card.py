"""What does the output's README.md say of where it comes from?"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mergecore import recipe
from mergecore.models.reference import each_part, split


def rendered(summary: Mapping[str, Any], out: Path) -> str:
    """The model card: front matter that the hub and later merges read, and the recipe.

    `base_model` is the model that the merge is a descendant of: the one extrapolated, else the
    base, so that merges can be merged again without naming it; without either, all the models.

    Args:
        summary: The plan's summary; `recipe`, `method`, `modifiers`, `base` and `models` are read,
            and of `documents` the same of the merges that it may name as models.
        out: Where the output will be.
    """
    documents = {document["name"]: document for document in summary.get("documents", ())}
    named = [seen_from(parent, out) for parent in dict.fromkeys(_ancestors(summary, documents))]
    front = {
        "base_model": named[0] if len(named) == 1 else named,
        "library_name": "transformers",
        "tags": ["mergecore", "merge"],
    }
    models = [
        f"* {_words(model)}"
        + (" (a document of the recipe)" if split(model)[0] in documents else "")
        for model in summary["models"]
    ]
    models += [f"* {_words(summary['base'])} (the base)"] if summary["base"] else []
    listed = "\n".join(models)
    written = as_run(summary, out)
    # A chat template in the recipe may hold a fence of its own.
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", written)), default=0))
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n"
        f"# {_words(out.resolve().name)}\n\n"
        f"Made by mergecore with the method `{summary['method']}`{_modified(summary)} from\n\n"
        f"{listed}\n\n"
        "`mergecore run mergecore_recipe.yml OUT` makes it again:\n\n"
        f"{fence}yaml\n{written}{fence}\n\n"
        "`mergecore.json` lists the inputs' fingerprints and the digests of these files; "
        "`mergecore verify` checks them.\n"
    )


def as_run(summary: Mapping[str, Any], out: Path) -> str:
    """The recipe as it was run, with the documents that it names, as a file in the folder `out`."""
    documents = summary.get("documents", ())
    recipes = [{"name": document["name"], **document["recipe"]} for document in documents]
    names = [document["name"] for document in documents]
    written = [
        recipe.with_references(run, lambda model: seen_from(model, out, names))
        for run in [*recipes, summary["recipe"]]
    ]
    return "---\n".join(map(recipe.to_yaml, written))


def seen_from(reference: str, out: Path, documents: Sequence[str] = ()) -> str:
    """A reference that holds in the folder `out`: a local neighbour's is relative to it."""
    return each_part(
        reference, lambda part: part if part in documents else _part_seen_from(part, out)
    )


def _words(name: str) -> str:
    """A name in Markdown: one line, and no markup."""
    line = "".join(letter if letter.isprintable() else " " for letter in name)
    return re.sub(r"[\\`*\[\]<>&]", r"\\\g<0>", line)


def _modified(summary: Mapping[str, Any]) -> str:
    names = [f"`{modifier['name']}`" for modifier in summary["modifiers"]]
    return f", then {', '.join(names)}," if names else ""


def _ancestors(
    said: Mapping[str, Any], documents: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """The models that a merge is a descendant of; where one is a document, that one's."""
    parent = said["recipe"].get("onto") or said["base"]
    for reference in said["models"] if parent is None else [parent]:
        document = documents.get(split(reference)[0])
        if document is None:
            yield reference
        else:
            yield from _ancestors(document, documents)


def _part_seen_from(reference: str, out: Path) -> str:
    path = Path(reference).expanduser()
    if not path.exists():
        return reference
    place, home = path.resolve(), out.resolve().parent
    if place.parent == home:
        return os.path.join(os.pardir, place.name)
    return str(place)
