"""What does a recipe file of several documents say on the terminal, before and after it is run?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mergecore import recipe
from mergecore._mergecore import free_space
from mergecore.chain import Checked, check
from mergecore.cli import terminal
from mergecore.cli.execute import disk_text, plan_facts, request_facts, show_steps, tell
from mergecore.cli.options import Running
from mergecore.documents import Document


def execute(
    documents: Sequence[Document], out: str, running: Running, *, notes: Sequence[str]
) -> None:
    """Carries the documents out, or with `--dry-run` prints what would be done."""
    silent = running.as_json or running.quiet
    checked = check(
        documents,
        notes=notes,
        threads=running.threads,
        max_memory=running.max_memory,
        shard_size=running.shard_size,
        device=running.device,
        quiet=silent,
    )
    if running.dry_run:
        _show_dry_run(checked, out, running)
        return
    report = checked.run(
        out, running.overwrite, lambda name: terminal.progress(name, shown=not silent)
    )
    tell(report, running)


def show(documents: Sequence[Document], tensors: bool, as_json: bool) -> None:
    """Prints the plan of each document, in the order in which they would be run."""
    checked = check(documents, quiet=as_json)
    said = _described(checked, tensors)
    free, needed = free_space("."), checked.bytes_to_write()
    if as_json:
        terminal.object_as_json({"documents": said, "disk_free": free, "disk_needed": needed})
        return
    _show(said, tensors)
    terminal.facts([("disk", f"{disk_text(free, needed)}, as far as it is known")])
    terminal.remarks(checked.notes, [])


def _show_dry_run(checked: Checked, out: str, running: Running) -> None:
    said = _described(checked, tensors=False)
    if running.as_json:
        about = {"out": out, "dry_run": True, "documents": said, "notes": list(checked.notes)}
        terminal.object_as_json(about)
    elif not running.quiet:
        _show(said, tensors=False)
        terminal.facts([("out", out), ("written", "nothing (--dry-run)")])
        terminal.remarks(checked.notes, [])


def _described(checked: Checked, tensors: bool) -> list[dict[str, Any]]:
    """What is known of each document; of one that waits, what the file says of it."""
    said = []
    for document in checked.documents:
        about: dict[str, Any] = {"name": document.name, "waits_for": list(document.uses)}
        prepared = checked.plans.get(document.name)
        about.update(prepared.summary if prepared else _as_written(document.recipe))
        if prepared and tensors:
            about["steps"] = json.loads(prepared.plan.steps())
        said.append(about)
    return said


def _as_written(request: recipe.Recipe) -> dict[str, Any]:
    return {
        "method": request["merge_method"],
        "base": request.get("base_model"),
        "models": recipe.models_of(request),
        "parameters": request.get("parameters") or {},
        "modifiers": recipe.modifiers_of(request),
        "dtype": request.get("out_dtype") or request.get("dtype"),
        "seed": request.get("seed"),
    }


def _show(said: Sequence[Mapping[str, Any]], tensors: bool) -> None:
    for number, document in enumerate(said, 1):
        terminal.say(f"{number}. {document['name'] or 'the output'}")
        waits = ", ".join(document["waits_for"])
        later = [
            ("dtype", document["dtype"]),
            ("waits for", f"{waits}: tensors and bytes are known when that is made"),
        ]
        terminal.facts([*request_facts(document), *(later if waits else plan_facts(document))])
        if not waits:
            terminal.remarks(document["notes"], document["warnings"])
        if tensors and not waits:
            show_steps(document["steps"])
        terminal.say()
