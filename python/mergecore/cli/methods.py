"""`mergecore methods`: the registry, printed."""

from __future__ import annotations

from dataclasses import asdict

import click

from mergecore import registry
from mergecore.cli import options, terminal
from mergecore.registry import Method, Parameter


@click.command()
@click.argument("name", required=False)
@options.as_json
def methods(name: str | None, as_json: bool) -> None:
    """Show the merge methods, or one with its parameters, formula and source."""
    known = registry.methods()
    if name is None and as_json:
        terminal.object_as_json([asdict(method) for method in known.values()])
    elif name is None:
        rows = [
            (m.name.replace("_", "-"), m.summary, ", ".join(p.name for p in m.parameters))
            for m in known.values()
        ]
        terminal.table(("method", "what it does", "parameters"), rows)
        click.echo("mergecore methods NAME shows one: defaults, formula, paper, cost")
    elif as_json:
        terminal.object_as_json(asdict(registry.find(name)))
    else:
        _show(registry.find(name))


def _show(method: Method) -> None:
    most = "" if method.max_models is None else f" to {method.max_models}"
    exactly = method.min_models == method.max_models
    count = f"{method.min_models}" if exactly else f"{method.min_models}{most or ' or more'}"
    terminal.facts(
        [
            ("method", method.name),
            ("what it does", method.summary),
            ("formula", method.formula),
            ("models", count),
            ("base", _BASE[method.base]),
            ("cost", method.cost),
            ("paper", method.paper),
        ]
    )
    if method.parameters:
        rows = [(p.name, _default(p), _range(p), p.doc) for p in method.parameters]
        terminal.table(("parameter", "default", "values", "meaning"), rows)


_BASE = {
    "none": "not used",
    "joins": "not needed; --base adds it as one more input",
    "required": "needed; if left out, the one that the models' cards name",
    "optional": "not needed; with --base task vectors are merged, else weights",
    "first": "not needed; --base is the first end, else the first model is",
}


def _default(parameter: Parameter) -> str:
    if parameter.default is None:
        return "must be given"
    default = _word(parameter.default)
    if parameter.file_default is None:
        return default
    return f"{default} (in a recipe file {_word(parameter.file_default)})"


def _range(parameter: Parameter) -> str:
    low, high = parameter.minimum, parameter.maximum
    if parameter.kind == "choice":
        values = " | ".join(parameter.choices)
    elif parameter.kind == "bool":
        values = "true | false"
    elif low is not None and high is not None:
        values = f"{low:g} to {high:g}"
    else:
        values = "a number" if low is None else f"{low:g} or more"
    return values + (", one a model" if parameter.per_model else "")


def _word(value: float | bool | str) -> str:
    return f"{value:g}" if type(value) in (int, float) else str(value).lower().replace("1/n", "1/N")
