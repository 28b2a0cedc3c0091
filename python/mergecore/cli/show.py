"""`mergecore show`: what is in a model, or what would a recipe do?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mergecore import documents, recipe
from mergecore._mergecore import free_space
from mergecore.cli import options, several, terminal
from mergecore.cli.execute import disk_text, plan_facts, request_facts, show_steps
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
    content = documents.load(path)
    if len(content) > 1:
        several.show(content, tensors, as_json)
        return
    prepared = prepare(content[0].recipe, from_file=True, quiet=as_json)
    summary = prepared.summary
    if tensors:
        summary = {**summary, "steps": json.loads(prepared.plan.steps())}
    free = free_space(".")
    needed = summary["bytes_to_write"]
    if as_json:
        terminal.object_as_json({**summary, "disk_free": free, "disk_needed": needed})
        return
    disk = disk_text(free, needed)
    terminal.facts([*request_facts(summary), *plan_facts(summary), ("disk", disk)])
    terminal.remarks(summary["notes"], summary["warnings"])
    if tensors:
        show_steps(summary["steps"])
