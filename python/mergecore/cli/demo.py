"""`mergecore demo`: the whole idea in a minute, offline and without torch."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import click

from mergecore import pocket, recipe
from mergecore.cli import options, terminal
from mergecore.cli.execute import value_text
from mergecore.errors import OutputExistsError
from mergecore.planning import prepare

_METHODS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("linear", {}),
    ("task_arithmetic", {"weight": 0.5}),
    ("ties", {"density": 0.3}),
    ("dare_ties", {"density": 0.7, "weight": 0.5}),
)
_QUESTIONS = 100  # for each task: one percent is one answer


@click.command()
@click.option("--keep", metavar="DIR", help="Where to put the models  [a temporary folder]")
@options.printing
def demo(keep: str | None, as_json: bool, quiet: bool) -> None:
    """Merge four shipped experts with several methods and test what each model can do.

    The experts are tiny but really trained: each has learnt one string task. Their common base is
    the one that their cards name. All are copied to DIR, and the merges beside them. Takes less
    than a minute, downloads nothing, needs no torch.
    """
    place = Path(keep) if keep is not None else Path(tempfile.mkdtemp(prefix="mergecore-demo-"))
    if keep is not None and place.exists() and any(place.iterdir()):
        raise OutputExistsError(f"{place}: it is not empty; give --keep another folder")
    place.mkdir(parents=True, exist_ok=True)
    silent = as_json or quiet
    if not silent:
        terminal.say(
            f"Four experts ({', '.join(pocket.EXPERTS)}) of one base, merged by "
            f"{len(_METHODS)} methods; each model answers {_QUESTIONS} questions a task.\n"
        )
    for name in pocket.NAMES:
        shutil.copytree(pocket.path(name), place / name)
    merges = {method: _merge(method, given, place) for method, given in _METHODS}
    folders = {name: place / name for name in ("base", *pocket.EXPERTS)}
    folders |= {f"merged: {name}": Path(report["out"]) for name, report in merges.items()}
    scores = {}
    with terminal.steps("testing", len(folders), shown=not silent) as advance:
        for name, folder in folders.items():
            scores[name] = _accuracies(folder)
            advance()
    if as_json:
        terminal.object_as_json({"merges": merges, "accuracy": scores, "out": str(place)})
    elif not quiet:
        _show(merges, scores, place)


def _merge(method: str, given: dict[str, Any], place: Path) -> dict[str, Any]:
    experts = [str(place / name) for name in pocket.EXPERTS]
    # Linear asks no card for a base, and needs none.
    request = recipe.build(method, experts, None, given, seed=42)
    return prepare(request).run(place / f"merged-{method.replace('_', '-')}")


def _accuracies(folder: Path) -> dict[str, float]:
    from mergecore.pocket.forward import Model, accuracy

    model = Model(folder)
    return {task: accuracy(model, task, n=_QUESTIONS) for task in pocket.EXPERTS}


def _settings(report: dict[str, Any]) -> str:
    """What a method was told; another weight would give another row of the table."""
    said = report["parameters"]
    return ", ".join(
        f"{key} {value_text(said[key])}" for key in ("weight", "density") if key in said
    )


def _show(
    merges: dict[str, dict[str, Any]], scores: dict[str, dict[str, float]], place: Path
) -> None:
    rows = []
    for name, row in scores.items():
        mean = sum(row.values()) / len(row)
        rows.append((name, *(f"{100 * share:.0f} %" for share in [*row.values(), mean])))
    terminal.table(("model", *pocket.EXPERTS, "mean"), rows, numbers_from=1)
    terminal.table(
        ("merge", "with", "written", "time", "speed", "peak RSS", "‖Δ‖"),
        [
            (
                name,
                _settings(report),
                terminal.size(report["bytes_written"]),
                f"{report['seconds']:.3f} s",
                terminal.speed(report),
                terminal.size(report["peak_rss_bytes"]),
                "-" if report["delta_norm"] is None else f"{report['delta_norm']:.3g}",
            )
            for name, report in merges.items()
        ],
        numbers_from=2,
    )
    terminal.say(f"The models are in {place}\n\nTry next:")
    terminal.say(f"  cd {place}")
    terminal.say("  mergecore verify merged-ties")
    terminal.say("  mergecore merge reverse sort --method dare-ties")
    terminal.say("  mergecore methods ties")
