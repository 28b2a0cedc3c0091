"""`mergecore mergeability`: can these models be merged, and who spoils the group?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mergecore.cli import options, terminal
from mergecore.cli.probing import Probing, score
from mergecore.cli.probing import options as probing_options

if TYPE_CHECKING:
    from mergecore.diagnose.mergeability import Mergeability


@click.command()
@click.argument("models", metavar="MODEL MODEL...", nargs=-1, required=True)
@probing_options
@click.option("--budget", type=click.FloatRange(0), help="The squared distance a merge may have")
@click.option("--report", metavar="FILE.html", help="Write charts of it, too")
@options.printing
def mergeability(
    models: tuple[str, ...],
    probing: Probing,
    budget: float | None,
    report: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare what models make of the same texts, before they are merged.

    Hidden states of every model on every text of the probe file ({id, text, task}), one model in
    memory at a time: their similarity, each model's merging difficulty score, and how near one
    merged model can come to all of them.

    \b
    mergecore mergeability a b c --probe probes.jsonl
    """
    if report is not None:
        from mergecore import page
        from mergecore.diagnose import charts

        page.check(Path(report))
    found = probing.of(models, shown=not (as_json or quiet), budget=budget)
    if report is not None:
        page.write(charts.page_of_mergeability(found), Path(report))
    if as_json:
        terminal.object_as_json(found.as_json())
    elif not quiet:
        _show(found)
        terminal.facts([("report", report)] if report else [])


def _show(found: Mergeability) -> None:
    scores, center = found.difficulty, found.center
    names = terminal.short_names(found.models)
    order = sorted(range(len(found.models)), key=lambda i: -scores[i])
    most = max((x for x in scores if math.isfinite(x)), default=1.0)
    mean = (found.distances.sum(axis=1)) / (len(found.models) - 1)
    rows = [
        (
            names[i],
            score(scores[i]),
            terminal.bar(scores[i] / most) if math.isfinite(scores[i]) else "",
            f"{mean[i]:.4f}",
            f"{center[i]:.2f}",
        )
        for i in order
    ]
    terminal.facts(
        [
            ("texts", found.texts),
            ("layer", "the last" if found.layer == -1 else found.layer),
            ("dimensions", f"{found.dimension:,}"),
        ]
    )
    heads = ("model", "MDS", "", "mean distance", "in the center")
    terminal.table(heads, rows, numbers_from=3)
    _show_similarity(found)
    terminal.facts(
        [
            ("diameter Δ²", f"{found.diameter:.4g}"),
            ("Jung's bound", f"{found.jung:.4g} (theorem 1, d = {found.dimension:,})"),
            ("(N−1)/(2N) Δ²", f"{found.simplex:.4g}"),
            ("exact radius²", f"{found.radius:.4g} of the smallest ball around the models"),
            ("to the mean", f"{found.to_centroid:.4g}, the mean squared distance"),
            ("R(D)", _curve(found)),
        ]
    )
    if found.mergeable is not None:
        words = {True: "mergeable", False: "not mergeable"}
        verdicts = "; ".join(f"{words[is_so]} by {how}" for how, is_so in found.mergeable.items())
        terminal.facts([("budget", f"{found.budget:.4g}: {verdicts}")])
    terminal.remarks([], found.notes)
    if len(found.models) == 2:
        terminal.remarks(
            ["of two models the similarity is 0 by its definition: see the distance"], []
        )
    elif scores[order[0]] > 1.05 * scores[order[1]]:
        alone = found.models[order[0]]
        terminal.remarks([f"{alone} stands most alone: it is the first to leave out"], [])


def _show_similarity(found: Mergeability) -> None:
    if len(found.models) > 12:
        terminal.remarks(["the matrix of similarities is in --json and --report"], [])
        return
    names = terminal.short_names(found.models)
    rows = [
        [f"{number} {name}", *(f"{value:.2f}" for value in row)]
        for number, (name, row) in enumerate(zip(names, found.similarity, strict=True), start=1)
    ]
    numbers = [str(number) for number in range(1, len(names) + 1)]
    terminal.table(("similarity", *numbers), rows, numbers_from=1)


def _curve(found: Mergeability) -> str:
    """A few points of the curve, in bits."""
    import numpy as np

    distortion, rate = found.curve
    places = [found.to_centroid * share for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    values = np.interp(places, distortion, rate)
    return ", ".join(f"{d:.3g}: {r:.2f} bit" for d, r in zip(places, values, strict=True))
