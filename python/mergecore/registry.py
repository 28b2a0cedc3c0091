"""Which merge methods and modifiers are there, and which parameters does each take?

The engine's registries are the only lists of them; this file reads them once and gives them types.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal

from mergecore.errors import RecipeError


@dataclass(frozen=True)
class Parameter:
    """One parameter of a merge method or a modifier, as the registry declares it."""

    name: str
    per_model: bool
    """Whether each model may have its own value; one value then stands for all."""
    kind: Literal["number", "integer", "bool", "choice", "method", "mapping"]
    choices: tuple[str, ...]
    """The words a `choice` takes, the methods that a `method` may name, and the words that may
    stand instead of a `number`; empty if there are none."""
    flags: bool
    """Whether a `choice` takes true and false too, as mergekit's recipes say them."""
    default: float | bool | str | None
    """The value if it is left out; `"1/N"` is an equal share a model; None must be given, but for
    a `mapping`, which then is empty."""
    file_default: float | bool | str | None
    """The value if a recipe file leaves it out, where mergekit's differs; else None."""
    minimum: float | None
    maximum: float | None
    doc: str

    @property
    def keyword(self) -> str:
        """Its name as an argument of a Python function: `weights`, `lambda_`, else its own."""
        return {"weight": "weights", "lambda": "lambda_"}.get(self.name, self.name)

    @property
    def is_required(self) -> bool:
        """Whether it must be given."""
        return self.default is None and self.kind != "mapping"


@dataclass(frozen=True)
class Method:
    """One merge method, as the registry declares it."""

    name: str
    summary: str
    formula: str
    paper: str
    cost: str
    base: Literal["joins", "required", "optional", "first"]
    """`required`: deltas from a base are merged; `optional`: so they are if a base is given;
    `joins`: a base is one more input; `first`: a base, if given, is the first of the two ends."""
    min_models: int
    max_models: int | None
    parameters: tuple[Parameter, ...]
    laws: dict[str, Any] = field(hash=False)

    @property
    def takes_modifiers(self) -> bool:
        """Whether it can merge task vectors, which is what modifiers change."""
        return self.base in ("required", "optional")

    def parameter(self, name: str) -> Parameter | None:
        """The parameter of that name or Python keyword, or None."""
        return next((p for p in self.parameters if name in (p.name, p.keyword)), None)


@dataclass(frozen=True)
class Modifier:
    """What acts on the change that a method has merged, as the registry declares it."""

    name: str
    summary: str
    formula: str
    paper: str
    cost: str
    parameters: tuple[Parameter, ...]


@cache
def methods() -> dict[str, Method]:
    """Every registered merge method by name, in the registry's order."""
    from mergecore._mergecore import registry

    return {entry["name"]: _method(entry) for entry in json.loads(registry())}


@cache
def modifiers() -> dict[str, Modifier]:
    """Every registered modifier by name, in the registry's order."""
    from mergecore import _mergecore

    return {entry["name"]: _modifier(entry) for entry in json.loads(_mergecore.modifiers())}


def find(name: str) -> Method:
    """The method called `name`; hyphens and underscores, capitals and small letters are the same.

    Raises:
        RecipeError: No method has that name; the message offers the nearest.
    """
    wanted = _normal(name)
    if wanted in methods():
        return methods()[wanted]
    if wanted in modifiers():
        raise RecipeError(
            f"{wanted} is a modifier, which goes with a method: --method NAME --modifier {wanted}"
        )
    raise RecipeError(
        f'unknown merge method "{name}"{did_you_mean(wanted, methods())}'
        " (`mergecore methods` lists them)"
    )


def find_any(name: str) -> Method | Modifier:
    """The method or modifier called `name`, with the licence that `find` gives.

    Raises:
        RecipeError: Neither has that name; the message offers the nearest of both.
    """
    known: dict[str, Method | Modifier] = {**methods(), **modifiers()}
    wanted = _normal(name)
    if wanted in known:
        return known[wanted]
    raise RecipeError(
        f'unknown merge method or modifier "{name}"{did_you_mean(wanted, known)}'
        " (`mergecore methods` lists them)"
    )


def did_you_mean(given: str, known: Any) -> str:
    """`; did you mean "x"?` for the name in `known` nearest to `given`, or nothing."""
    near = get_close_matches(given, list(known), n=1, cutoff=0.55)
    return f'; did you mean "{near[0]}"?' if near else ""


def _normal(name: str) -> str:
    return name.strip().lower().replace("-", "_")


def _method(entry: dict[str, Any]) -> Method:
    return Method(
        name=entry["name"],
        summary=entry["summary"],
        formula=entry["formula"],
        paper=entry["paper"],
        cost=entry["cost"],
        base=entry["base"],
        min_models=entry["min_models"],
        max_models=entry["max_models"],
        parameters=tuple(_parameter(p) for p in entry["params"]),
        laws=entry["laws"],
    )


def _modifier(entry: dict[str, Any]) -> Modifier:
    return Modifier(
        name=entry["name"],
        summary=entry["summary"],
        formula=entry["formula"],
        paper=entry["paper"],
        cost=entry["cost"],
        parameters=tuple(_parameter(p) for p in entry["params"]),
    )


def _parameter(entry: dict[str, Any]) -> Parameter:
    return Parameter(
        name=entry["name"],
        per_model=entry["per_model"],
        kind=entry["kind"],
        choices=tuple(entry.get("choices") or ()),
        flags=bool(entry.get("flags")),
        default=None if entry["kind"] == "mapping" else entry["default"],
        file_default=entry.get("file_default"),
        minimum=entry.get("min"),
        maximum=entry.get("max"),
        doc=entry["doc"],
    )
