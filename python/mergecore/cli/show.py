"""`mergecore show`: what is in a model, or what would a recipe do?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mergecore import recipe
from mergecore._mergecore import free_space
from mergecore.cli import options, terminal
from mergecore.cli.execute import plan_facts, request_facts, value_text
from mergecore.models import anatomy, hub
from mergecore.planning import prepare


@click.command()
@click.argument("what", metavar="MODEL|RECIPE.yml")
@click.option(
    "--tensors", is_flag=True, help="List a model's tensors, or what a recipe does to each"
)
@options.as_json
def show(what: str, tensors: bool, as_json: bool) -> None:
    """Show what is in a model, or what a recipe would do.

    Reads headers only. For a recipe: the plan, the bytes, the passes over the data, the memory,
    and whether the disk has room for the output.
    """
    path = Path(what).expanduser()
    if path.suffix in recipe.SUFFIXES and not path.is_dir():
        _show_recipe(path, tensors, as_json)
        return
    description = anatomy.describe(*hub.locate_both(what, quiet=as_json))
    if as_json:
        terminal.object_as_json(description)
    else:
        _show_model(description, tensors)


def _show_model(model: dict[str, Any], tensors: bool) -> None:
    files = model["files"]
    terminal.facts(
        [
            ("model", model["path"]),
            ("architecture", model["architecture"] or "not stated"),
            ("tensors", f"{len(model['tensors']):,}"),
            ("parameters", f"{model['parameters']:,}"),
            ("dtypes", ", ".join(f"{name} ({count})" for name, count in model["dtypes"].items())),
            ("layers", model["layers"]),
            ("size", f"{terminal.size(model['bytes'])} in {terminal.plural(len(files), 'file')}"),
            ("format", model["format"]),
            ("embeddings", {True: "tied", False: "untied", None: "not stated"}[model["tied"]]),
            ("chat template", model["chat_template"] or "none"),
        ]
    )
    if tensors:
        rows = [(t["name"], t["dtype"], str(t["shape"]), t["file"]) for t in model["tensors"]]
        terminal.table(("tensor", "dtype", "shape", "file"), rows)


def _show_recipe(path: Path, tensors: bool, as_json: bool) -> None:
    prepared = prepare(recipe.load(path), from_file=True, quiet=as_json)
    summary = prepared.summary
    if tensors:
        summary = {**summary, "steps": json.loads(prepared.plan.steps())}
    free = free_space(".")
    needed = summary["bytes_to_write"]
    if as_json:
        terminal.object_as_json({**summary, "disk_free": free, "disk_needed": needed})
        return
    enough = "enough" if free > needed else "NOT enough"
    disk = f"{terminal.size(free)} free here, {terminal.size(needed)} needed: {enough}"
    terminal.facts([*request_facts(summary), *plan_facts(summary), ("disk", disk)])
    terminal.remarks(summary["notes"], summary["warnings"])
    if tensors:
        rows = [(step["name"], _sources(step), _parameters(step)) for step in summary["steps"]]
        terminal.table(("tensor", "from", "with"), rows)


def _sources(step: dict[str, Any]) -> str:
    """`base, a, b`; a tensor that is called otherwise there is named."""
    return ", ".join(
        source["model"] + ("" if source["tensor"] == step["name"] else f" {source['tensor']}")
        for source in step["sources"]
    )


def _parameters(step: dict[str, Any]) -> str:
    if step["parameters"] is None:
        return "copied"
    return ", ".join(f"{name} {value_text(value)}" for name, value in step["parameters"].items())
