"""`mergecore compare`: how do models lie to their base and to each other?"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mergecore.cli import options, terminal

if TYPE_CHECKING:
    from mergecore.diagnose.figures import Figures
    from mergecore.diagnose.geometry import Geometry

_MOST_PAIRS = 28
_STUDIED = (5e8, 1e11)
"""Parameters of models of which the L2 distance is taken to tell something."""


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option("--base", metavar="MODEL", help="What the models were tuned from  [as they say]")
@click.option("--ignore", metavar="GLOB", multiple=True, help="Tensors to pass over")
@click.option("--report", metavar="FILE.html", help="Write charts of it, too")
@click.option("--tensors", is_flag=True, help="List every tensor")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads  [all cores]")
@options.printing
def compare(
    models: tuple[str, ...],
    base: str | None,
    ignore: tuple[str, ...],
    report: str | None,
    tensors: bool,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare models with their base and with each other, before they are merged.

    Reads all weights once, in little memory. A merge that mergecore has made may be given
    alone: it is compared with its parents.

    \b
    mergecore compare a b c --base base
    mergecore compare merged --report merged.html
    """
    # The matrices are N × N: more threads would wait for work, spinning, while the engine reads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from mergecore.diagnose import reading

    if report is not None:
        from mergecore import page
        from mergecore.diagnose import charts

        page.check(Path(report))
    with terminal.progress("comparing", shown=not (as_json or quiet)) as progress:
        sums = reading.read(
            models, base, ignore=list(ignore) or None, threads=threads, progress=progress
        )
    from mergecore.diagnose import geometry  # imported by now: `reading` says how

    found = geometry.of_reading(sums)
    if report is not None:
        page.write(charts.page_of_geometry(found), Path(report))
    if as_json:
        terminal.object_as_json(found.as_json(pairs=tensors))
    elif not quiet:
        _show(found, tensors)
        terminal.facts([("report", report)] if report else [])


def _show(found: Geometry, tensors: bool) -> None:
    figures = found.overall
    terminal.facts(
        [
            ("base", found.base),
            ("tensors", f"{len(found.tensors):,}"),
            ("parameters", f"{figures.elements:,}"),
            (
                "left out",
                f"{figures.left_out:,} elements, not finite" if figures.left_out else None,
            ),
        ]
    )
    _show_models(found)
    if len(found.models) > 1:
        _show_pairs(found)
    if len(found.inputs) > 1:
        _show_merged(found)
    _show_groups("layer", [(_layer(found, key), f) for key, f in found.layers.items()], found)
    _show_groups("module", list(found.kinds.items()), found)
    if tensors:
        _show_groups("tensor", [(t.name, t.figures) for t in found.tensors], found)
    for model, kin in zip(found.models, found.kinship, strict=True):
        terminal.remarks([], [f"{model} {kin.in_words()}"] if kin.verdict != "child" else [])
    placed = [line for place in found.placements for line in place.in_words()]
    terminal.remarks([*placed, *found.notes], [conflict.in_words() for conflict in found.conflicts])


def _show_models(found: Geometry) -> None:
    f = found.overall
    rows = [
        (
            model,
            _number(f.norms[i]),
            _percent(f.relative[i]),
            _percent(f.zero_share[i]),
            _percent(f.noise_share[i]),
            f"{f.nan[i] + f.inf[i]:,.0f}",
            found.kinship[i].verdict,
        )
        for i, model in enumerate(found.models)
    ]
    heads = ("model", "‖δ‖", "of ‖θ₀‖", "zeros", "noise", "NaN, Inf", "descent")
    terminal.table(heads, rows, numbers_from=1)


def _show_pairs(found: Geometry) -> None:
    f, mean, names = found.overall, found.mean_cosine, terminal.short_names(found.models)
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
    # The most alike first: what they share is what a merge keeps.
    pairs.sort(key=lambda pair: -f.cosine[pair] if f.cosine[pair] == f.cosine[pair] else 2)
    rows = [
        (
            f"{names[i]}, {names[j]}",
            _number(f.cosine[i, j]),
            _number(mean[i, j]),
            _percent(f.sign_change[i, j]),
            _percent(f.magnitude_change[i, j]),
            _percent(f.conflicting_magnitude_change[i, j]),
        )
        for i, j in pairs[:_MOST_PAIRS]
    ]
    heads = ("pair", "cosine", "tensors' mean", "signs differ", "magnitude", "conflicting")
    terminal.table(heads, rows, numbers_from=1)
    if len(pairs) > _MOST_PAIRS:
        terminal.remarks([f"{len(pairs) - _MOST_PAIRS} less alike pairs: --json has them"], [])


def _show_merged(found: Geometry) -> None:
    """How far from the base linear merges would be, and what the systematic study makes of that."""
    from mergecore.diagnose.geometry import FAILING, SAFE

    count = len(found.inputs)
    whole = found.distance_of_sum()
    size = found.overall.elements
    # The study's models have 3 to 8 B parameters.
    like_them = _STUDIED[0] <= size <= _STUDIED[1]
    rows = []
    for name, distance in (("mean (λ/N)", whole / count), ("sum (λ)", whole)):
        studied = found.as_studied(distance)
        verdict = "safe" if studied < SAFE else "failing" if studied >= FAILING else "between"
        verdict = verdict if like_them else "too far off in size"
        reach = [f"{limit / studied:.3g}" if studied else "" for limit in (SAFE, FAILING)]
        rows.append((name, _number(distance), _number(studied), verdict, *reach))
    heads = ("merged to, λ = 1", "‖Δ‖", "as 8 B", "L2 says", "λ for 50", "λ for 100")
    terminal.table(heads, rows, numbers_from=1)
    note = (
        "L2: of merges of 3 to 8 B parameters those below 50 held, and those above 100 to 300 "
        'failed. ‖Δ‖ grows with λ and with the root of the number of weights: "as 8 B" is the '
        "same change, weight for weight, at that size"
    )
    terminal.remarks([note], [])


def _show_groups(what: str, groups: Sequence[tuple[str, Figures]], found: Geometry) -> None:
    """Relative norms with a bar, and how alike the models are there."""
    if not groups:
        return
    means = [float(figures.relative.mean()) for _, figures in groups]
    # Of a base that is zero, as biases are, there is no share.
    most = max((mean for mean in means if math.isfinite(mean)), default=0.0)
    several = len(found.inputs) > 1
    rows = []
    for (name, figures), mean in zip(groups, means, strict=True):
        share = mean / most if most and math.isfinite(mean) else 0
        row = [name, terminal.bar(share), _percent(mean)]
        if several:
            row += [
                _number(_mean_of_pairs(figures.cosine, found)),
                _percent(_mean_of_pairs(figures.sign_change, found)),
            ]
        rows.append(row)
    heads = [what, "", "‖δ‖ of ‖θ₀‖", *(["cosine", "signs differ"] if several else [])]
    terminal.table(heads, rows, numbers_from=2)


def _layer(found: Geometry, key: tuple[str, int]) -> str:
    stacks = {stack for stack, _ in found.layers}
    return str(key[1]) if len(stacks) == 1 else f"{key[0]}.{key[1]}"


def _mean_of_pairs(matrix: Any, found: Geometry) -> float:
    """The mean over the pairs of inputs that have a value."""
    values = [float(matrix[i, j]) for i in found.inputs for j in found.inputs if i < j]
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else math.nan


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.4g}"


def _percent(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return "0 %" if value == 0 else f"{100 * value:.3g} %"
