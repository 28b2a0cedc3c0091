"""`mergecore methods`: the registries of methods and modifiers, printed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import click

from mergecore import registry
from mergecore.cli import options, terminal
from mergecore.registry import Method, Modifier, Parameter


@click.command()
@click.argument("name", required=False)
@options.as_json
def methods(name: str | None, as_json: bool) -> None:
    """Show the merge methods and the modifiers, or one with its parameters, formula and source."""
    if name is None and as_json:
        terminal.object_as_json([_as_json(method) for method in registry.methods().values()])
    elif name is None:
        _list("method", registry.methods().values())
        _list("modifier", registry.modifiers().values())
        terminal.say("A modifier acts on what a method has merged: --modifier NAME:KEY=VALUE,...")
        terminal.say("mergecore methods NAME shows one: defaults, formula, paper, cost")
    elif as_json:
        terminal.object_as_json(_as_json(registry.find_any(name)))
    else:
        _show(registry.find_any(name))


def _as_json(known: Method | Modifier) -> dict[str, Any]:
    """What is known of one; a method's holds the modifiers that it goes with, so that a list of
    methods is one of methods still."""
    if isinstance(known, Modifier):
        return asdict(known)
    theirs = registry.modifiers().values() if known.takes_modifiers else ()
    return {**asdict(known), "modifiers": [asdict(modifier) for modifier in theirs]}


def _list(what: str, known: Iterable[Method | Modifier]) -> None:
    rows = [
        (k.name.replace("_", "-"), k.summary, ", ".join(p.name for p in k.parameters))
        for k in known
    ]
    terminal.table((what, "what it does", "parameters"), rows)


def _show(known: Method | Modifier) -> None:
    if isinstance(known, Method):
        what, place = "method", _inputs(known)
    else:
        what, place = "modifier", [("goes with", _modifiable())]
    terminal.facts(
        [
            (what, known.name),
            ("what it does", known.summary),
            ("formula", known.formula),
            *place,
            ("cost", known.cost),
            ("paper", known.paper),
        ]
    )
    if known.parameters:
        rows = [(p.name, _default(p), _range(p), p.doc) for p in known.parameters]
        terminal.table(("parameter", "default", "values", "meaning"), rows)


def _inputs(method: Method) -> list[tuple[str, object]]:
    most = "" if method.max_models is None else f" to {method.max_models}"
    exactly = method.min_models == method.max_models
    count = f"{method.min_models}" if exactly else f"{method.min_models}{most or ' or more'}"
    names = ", ".join(registry.modifiers()) if method.takes_modifiers else ""
    return [("models", count), ("base", _BASE[method.base]), ("modifiers", names or None)]


def _modifiable() -> str:
    known = registry.methods().values()
    needing = [method.name for method in known if method.base == "required"]
    able = [method.name for method in known if method.base == "optional"]
    return ", ".join(needing) + (f"; with a base also {', '.join(able)}" if able else "")


_BASE = {
    "none": "not used",
    "joins": "not needed; --base adds it as one more input",
    "required": "needed; if left out, the one that the models' cards name",
    "optional": "not needed; with --base task vectors are merged, else weights",
    "first": "not needed; --base is the first end, else the first model is",
}


def _default(parameter: Parameter) -> str:
    if parameter.is_required:
        return "must be given"
    if parameter.default is None:
        return "none"
    default = _word(parameter.default)
    if parameter.file_default is None:
        return default
    return f"{default} (in a recipe file {_word(parameter.file_default)})"


def _range(parameter: Parameter) -> str:
    low, high = parameter.minimum, parameter.maximum
    if parameter.kind == "choice":
        values = " | ".join(parameter.choices)
    elif parameter.kind == "method":
        values = "a method: " + ", ".join(parameter.choices)
    elif parameter.kind == "mapping":
        values = "KEY: VALUE, ..."
    elif parameter.kind == "bool":
        values = "true | false"
    elif low is not None and high is not None:
        values = f"{low:g} to {high:g}"
    else:
        values = "a number" if low is None else f"{low:g} or more"
    if parameter.kind == "number" and parameter.choices:
        values = " or ".join([values, *parameter.choices])
    return values + (", one a model" if parameter.per_model else "")


def _word(value: float | bool | str) -> str:
    return f"{value:g}" if type(value) in (int, float) else str(value).lower().replace("1/n", "1/N")
