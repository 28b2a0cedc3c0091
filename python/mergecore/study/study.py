"""What is a study? A paper's experiments as data: parts that are sweeps, over a family of models.

A study's file (`papers/NAME.yml`) has `values` (models, tasks, settings) and `parts`. In a part
`$name` is a value, `$name.key` a part of it; what is left is a sweep (`spec.py`). A family's file
gives other values: the same study on other models.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from mergecore import recipe as recipes
from mergecore.errors import RecipeError
from mergecore.models.reference import each_part
from mergecore.study import grid, likeness

PAPER = "paper"
"""The family of the paper's own models."""
_PAPERS = Path(__file__).with_name("papers")
_FAMILIES = Path(__file__).with_name("families")
_STORED = frozenset("answers rewards verdicts tasks merges recipes weights measures".split())
"""Folders of a run beside those of its parts."""
_PART = ("about", "for", "needs", "measure", "merges", "stages")


@dataclass(frozen=True)
class Study:
    """A study on a family of models."""

    name: str
    title: str
    paper: str
    url: str
    about: str
    family: str
    written: dict[str, Any]
    """The values, with `./` as it is written."""
    parts: dict[str, dict[str, Any]] = field(repr=False)
    """As the file has them."""
    root: Path = Path()
    """What `./` in the values is relative to."""
    made_by: str | None = None
    """How the family's models are come by, if they are not on the hub."""
    jobs: int = 1
    """Configurations at a time, for models so small that they leave a machine idle."""

    @cached_property
    def values(self) -> dict[str, Any]:
        """The values, with `./` put under the root."""
        found: dict[str, Any] = _placed(self.written, self.root)
        return found


@dataclass(frozen=True)
class Part:
    """One of a study's experiments."""

    name: str
    about: str
    sweep: dict[str, Any]
    """A sweep's contents."""
    measures: list[dict[str, Any]]
    """What is measured of models as they are: `{of, compare, mergeability}`."""


def names() -> list[str]:
    """The studies that mergecore has."""
    return sorted(path.stem for path in _PAPERS.glob("*.yml"))


def families() -> list[str]:
    """The families that mergecore has."""
    return [PAPER, *sorted(path.stem for path in _FAMILIES.glob("*.yml"))]


def load(name: str, family: str = PAPER, root: str | Path | None = None) -> Study:
    """Reads a study, and the family that it is to be run on.

    Args:
        name: Of a study that mergecore has, or a file.
        family: Of a family that mergecore has, or a file.
        root: The folder of the family's models; what the family says, if None.

    Raises:
        RecipeError: There is none of that name, or a file cannot be read.
    """
    path = _file(name, _PAPERS, names(), "study")
    content = recipes.load_mapping(path)
    if odd := sorted(_STORED & set(content.get("parts") or ())):
        raise RecipeError(f"{path}: a part cannot be called {odd[0]}: a run's results lie there")
    for key in ("title", "values", "parts"):
        if not content.get(key):
            raise RecipeError(f"{path}: has no {key}")
    values, place, made_by, jobs = dict(content["values"]), Path(), content.get("made_by"), 1
    if family != PAPER:
        file = _file(family, _FAMILIES, families(), "family")
        other = recipes.load_mapping(file)
        given = other.get(path.stem)
        if not isinstance(given, dict):
            raise RecipeError(f"{file}: has no models for {path.stem}")
        if odd := sorted(set(given) - set(values)):
            near = get_close_matches(odd[0], values, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else f" ({', '.join(values)})"
            raise RecipeError(f"{file}: {path.stem}: {odd[0]!r} is no value of the study{hint}")
        likeness.values(_expanded(given), _expanded(values), f"{file}: {path.stem}")
        values |= given
        variable = os.environ.get(str(other.get("variable")))
        # The file's own folder is relative to the file, what the environment says to this one.
        place = Path(variable or file.parent / Path(other.get("root") or "").expanduser())
        place = place.expanduser()
        made_by, jobs = other.get("made_by"), other.get("jobs", 1)
        for key, value, kind in (("root", other.get("root", ""), str), ("jobs", jobs, int)):
            if not isinstance(value, kind) or value == 0:
                raise RecipeError(f"{file}: {key} is {value!r}, and is to be {kind.__name__}")
    # Absolute, lest `./sft` become `sft`, which may read as a hub id.
    place = (place if root is None else Path(root).expanduser()).absolute()
    return Study(
        path.stem, content["title"], str(content.get("paper", "")), str(content.get("url", "")),
        str(content.get("about", "")), family, _expanded(values),
        content["parts"], place, made_by, jobs,
    )  # fmt: skip


def part(study: Study, name: str, more: Mapping[str, Any] | None = None) -> Part:
    """One part of a study, ready to be swept.

    Args:
        study: Of which.
        name: Of the part.
        more: Values that were found on the way, for a part that `needs` them.

    Raises:
        RecipeError: There is no such part, or it names a value that is not there.
    """
    said = study.parts.get(name)
    if said is None:
        near = get_close_matches(name, study.parts, n=1)
        hint = f'; did you mean "{near[0]}"?' if near else f" ({', '.join(study.parts)})"
        raise RecipeError(f"{study.name}: has no part {name!r}{hint}")
    where = f"{study.name}: {name}"
    if odd := sorted(set(said) - set(_PART)):
        raise RecipeError(f"{where}: {odd[0]!r} is not known ({', '.join(_PART)})")
    values = {**study.values, **(more or {})}
    loop = said.get("for") or {None: None}
    (variable, over), *_ = loop.items()
    each = [None] if variable is None else _resolved(over, values, where)
    if not isinstance(each, list):
        raise RecipeError(f"{where}: for: {over} is to be a list")
    merges, measures = [], []
    for value in each:
        own = values if variable is None else {**values, variable: value}
        for entry in said.get("merges", []):
            found = _resolved(copy.deepcopy(entry), own, where)
            if variable is not None:
                found["labels"] = {variable: value, **found.get("labels", {})}
            merges.append(found)
        if "measure" in said:
            measured = _resolved(said["measure"], own, where)
            measures.append({"of": "" if value is None else grid.text(value), **measured})
    sweep = {
        "name": f"{study.name} {name}",
        "merges": merges,
        "stages": _resolved(said.get("stages", {}), values, where),
    }
    return Part(name, str(said.get("about", "")), sweep, measures)


def limited(sweep: Mapping[str, Any], limit: int | None) -> dict[str, Any]:
    """A sweep of no more than so many prompts, and items of each task."""
    found = copy.deepcopy(dict(sweep))
    for stage in ("generate", "tasks"):
        said = found["stages"].get(stage)
        if limit is not None and isinstance(said, dict):
            said["limit"] = min(limit, said.get("limit") or limit)
    return found


def _file(name: str, folder: Path, known: list[str], kind: str) -> Path:
    path = folder / f"{name}.yml"
    if path.is_file():
        return path
    given = Path(name).expanduser()
    if given.is_file():
        return given
    near = get_close_matches(name, known, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else f" ({', '.join(known)}, or a file)"
    raise RecipeError(f"there is no {kind} {name!r}{hint}")


def _expanded(value: Any) -> Any:
    """Writes out `{each: [a, b], as: ...{each}...}`: one for each."""
    if isinstance(value, list):
        return [_expanded(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"each", "as"}:
        return [grid.filled(value["as"], {"each": one}, "each") for one in _expanded(value["each"])]
    return {key: _expanded(entry) for key, entry in value.items()}


def _placed(value: Any, root: Path) -> Any:
    """Puts `./name` under the family's folder."""

    def place(text: str) -> str:
        return str(root / text[2:]) if text.startswith("./") else text

    return _changed(value, lambda text: each_part(text, place))


def _resolved(value: Any, values: Mapping[str, Any], where: str) -> Any:
    """Puts values in the place of `$name`."""

    def look(text: str) -> Any:
        if not text.startswith("$"):
            return text
        return copy.deepcopy(grid.filled(f"{{{text[1:]}}}", values, where))

    return _changed(value, look)


def _changed(value: Any, change: Callable[[str], Any]) -> Any:
    if isinstance(value, dict):
        return {key: _changed(entry, change) for key, entry in value.items()}
    if isinstance(value, list):
        return [_changed(entry, change) for entry in value]
    return change(value) if isinstance(value, str) else value
