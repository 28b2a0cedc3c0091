"""What do merge, extrapolate and run have in common? A recipe is planned, run and summed up."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mergecore.cli import terminal
from mergecore.cli.options import Running
from mergecore.models.reference import split
from mergecore.planning import prepare
from mergecore.recipe import Recipe


def execute(
    request: Recipe,
    out: str,
    running: Running,
    *,
    from_file: bool = False,
    notes: Sequence[str] = (),
) -> None:
    """Carries a recipe out, or with `--dry-run` prints what it would do, after these notes."""
    silent = running.as_json or running.quiet
    prepared = prepare(
        request,
        from_file=from_file,
        threads=running.threads,
        max_memory=running.max_memory,
        shard_size=running.shard_size,
        device=running.device,
        quiet=silent,
    )
    prepared.summary["notes"][:0] = notes
    if running.dry_run:
        show_plan(prepared.summary, out, running)
        return
    with terminal.progress(Path(out).name, shown=not silent) as progress:
        report = prepared.run(out, overwrite=running.overwrite, progress=progress)
    tell(report, running)


def tell(report: Mapping[str, Any], running: Running) -> None:
    """Prints what was done, as much and in the form that was asked for."""
    if running.as_json:
        terminal.object_as_json(report)
    elif running.quiet:
        terminal.remarks([], report["warnings"])
    else:
        show_report(report)


def show_plan(summary: Mapping[str, Any], out: str, running: Running) -> None:
    """Prints what a merge would do."""
    if running.as_json:
        terminal.object_as_json({"out": out, "dry_run": True, **summary})
    elif not running.quiet:
        said = [*request_facts(summary), *plan_facts(summary)]
        terminal.facts([*said, ("out", out), ("written", "nothing (--dry-run)")])
        terminal.remarks(summary["notes"], summary["warnings"])


def plan_facts(summary: Mapping[str, Any]) -> list[tuple[str, object]]:
    """What a merge will move and take, in words."""
    files = terminal.plural(len(summary["files"]), "file")
    return [
        ("donor", summary["donor"]),
        ("tensors", f"{summary['tensors']:,}"),
        ("parameters", f"{summary['parameter_count']:,} ({summary['dtype']})"),
        ("matrices", _matrices_text(summary)),
        ("to read", terminal.size(summary["bytes_to_read"])),
        ("to write", f"{terminal.size(summary['bytes_to_write'])} in {files}"),
        ("passes", summary["passes"]),
        ("memory", f"about {terminal.size(summary['memory_bytes'])}"),
        ("threads", summary["threads"]),
        ("left out", _some(summary["ignored"])),
        ("copied", _some(summary["copied"])),
    ]


def disk_text(free: int, needed: int) -> str:
    """Whether the disk has room, in words."""
    enough = "enough" if free > needed else "NOT enough"
    return f"{terminal.size(free)} free here, {terminal.size(needed)} needed: {enough}"


def show_steps(steps: Sequence[Mapping[str, Any]]) -> None:
    """Prints what is done to every tensor."""
    heads = ["tensor", "from", "with"]
    rows = [[step["name"], _sources(step), _parameters(step)] for step in steps]
    if any(step["matrices"] for step in steps):
        heads.append("merged as")
        rows = [[*row, _parts(step)] for row, step in zip(rows, steps, strict=True)]
    terminal.table(heads, rows)


def show_report(report: Mapping[str, Any]) -> None:
    """Prints what a merge did."""
    terminal.facts(
        [
            *request_facts(report),
            ("tensors", f"{report['tensors']:,}"),
            ("parameters", f"{report['parameter_count']:,}"),
            ("left out", _some(report["ignored"])),
            ("resumed", terminal.plural(report["resumed_tensors"] or None, "tensor")),
            ("time", f"{report['seconds']:.2f} s, {terminal.speed(report)}"),
            ("peak RSS", terminal.size(report["peak_rss_bytes"])),
            ("‖Δ‖", None if report["delta_norm"] is None else f"{report['delta_norm']:.6g}"),
            ("out", f"{report['out']} ({terminal.size(report['bytes_written'])})"),
        ]
    )
    terminal.remarks(report["notes"], report["warnings"])


def default_out(models: Sequence[str], ending: str) -> str:
    """`./a-b-dare-ties` for models called `x/a` and `org/b@main`."""
    return "./" + "-".join([*map(_last_part, models), ending])


def request_facts(said: Mapping[str, Any]) -> list[tuple[str, object]]:
    """What was asked for, as it was understood."""
    values = _values_text(said["parameters"])
    return [
        ("method", " + ".join([said["method"], *map(_modifier_text, said["modifiers"])])),
        ("base", said["base"]),
        ("models", ", ".join(said["models"])),
        ("with", values or None),
        ("seed", said["seed"]),
    ]


def value_text(value: object) -> str:
    """A parameter for people: numbers short, equal ones said once."""
    if isinstance(value, list) and len(value) > 1 and all(v == value[0] for v in value):
        return f"{value_text(value[0])} each"
    if isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        return "; ".join(map(value_text, value))
    if isinstance(value, dict) and "value" not in value:
        return "(" + _values_text(value) + ")"
    if isinstance(value, dict):
        return f"{value_text(value.get('value'))} where {value.get('filter') or 'nothing else'}"
    if isinstance(value, list):
        return "[" + ", ".join(map(value_text, value)) + "]"
    return f"{value:.6g}" if isinstance(value, float) else str(value).lower()


def _matrices_text(summary: Mapping[str, Any]) -> str | None:
    """`28 of 38 tensors, the largest 2816 x 1024`; more where some tensors hold several."""
    found = summary["matrices"]
    if found is None:
        return None
    rows, columns = found["largest"]
    several = f"{found['matrices']:,} in " if found["matrices"] != found["tensors"] else ""
    of = f"{several}{found['tensors']:,} of {summary['tensors']:,} tensors"
    return f"{of}, the largest {rows} x {columns}"


def _parts(step: Mapping[str, Any]) -> str:
    """What singular values are looked at of a tensor."""
    parts = step["matrices"]
    if not parts:
        return "elements" if step["how"] == "merged" else ""
    if parts == [""]:
        return "matrix"
    shown = ", ".join(parts[:4])
    return f"{len(parts)} matrices ({shown}{', ...' if len(parts) > 4 else ''})"


def _some(names: Sequence[str]) -> str | None:
    """Names, but no more than a person reads."""
    shown = ", ".join(names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown or None


def _last_part(reference: str) -> str:
    model, adapter = split(reference)
    reference = adapter or model  # of adapters on one base, they are what differs
    path = Path(reference).expanduser()
    if path.exists():
        path = path.resolve()
        return path.stem if path.is_file() else path.name
    return re.sub(r"@.*", "", reference).rstrip("/").rpartition("/")[2]


def _sources(step: Mapping[str, Any]) -> str:
    """`base, a, b`; a tensor that is called otherwise there is named."""
    return ", ".join(
        source["model"] + ("" if source["tensor"] == step["name"] else f" {source['tensor']}")
        for source in step["sources"]
    )


def _parameters(step: Mapping[str, Any]) -> str:
    if step["parameters"] is None:
        return "copied"
    return _values_text(step["parameters"])


def _values_text(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value_text(value)}" for name, value in values.items())


def _modifier_text(modifier: Mapping[str, Any]) -> str:
    """`boost (beta 0.2, matrices projections)`; what is empty or null says nothing."""
    name: str = modifier["name"]
    told = {key: value for key, value in modifier["parameters"].items() if value not in (None, {})}
    return f"{name} ({_values_text(told)})" if told else name
