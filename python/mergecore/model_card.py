"""What does the output's README.md say of where it comes from?"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mergecore import recipe
from mergecore.models.reference import each_part


def rendered(summary: Mapping[str, Any], out: Path) -> str:
    """The model card: front matter that the hub and later merges read, and the recipe.

    `base_model` is the model that the merge is a descendant of: the one extrapolated, else the
    base, so that merges can be merged again without naming it; without either, all the models.

    Args:
        summary: The plan's summary; `recipe`, `method`, `base` and `models` are read.
        out: Where the output will be.
    """
    run = recipe.with_references(summary["recipe"], lambda model: seen_from(model, out))
    parents = [run.get("onto") or summary["base"]]
    if parents == [None]:
        parents = list(summary["models"])
    named = [seen_from(parent, out) for parent in parents]
    front = {
        "base_model": named[0] if len(named) == 1 else named,
        "library_name": "transformers",
        "tags": ["mergecore", "merge"],
    }
    models = [f"* {model}" for model in summary["models"]]
    models += [f"* {summary['base']} (the base)"] if summary["base"] else []
    listed = "\n".join(models)
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n"
        f"# {out.resolve().name}\n\n"
        f"Made by mergecore with the method `{summary['method']}` from\n\n{listed}\n\n"
        "`mergecore run mergecore_recipe.yml OUT` makes it again:\n\n"
        f"```yaml\n{recipe.to_yaml(run)}```\n\n"
        "`mergecore.json` lists the inputs' fingerprints and the digests of these files; "
        "`mergecore verify` checks them.\n"
    )


def seen_from(reference: str, out: Path) -> str:
    """A reference that holds in the folder `out`: a local neighbour's is relative to it."""
    return each_part(reference, lambda part: _part_seen_from(part, out))


def _part_seen_from(reference: str, out: Path) -> str:
    path = Path(reference).expanduser()
    if not path.exists():
        return reference
    place, home = path.resolve(), out.resolve().parent
    if place.parent == home:
        return os.path.join(os.pardir, place.name)
    return str(place)
