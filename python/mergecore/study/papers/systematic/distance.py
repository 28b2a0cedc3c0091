"""Does a merge's distance from its base tell what it gains? Figure 4, and what is not in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mergecore import page
from mergecore.diagnose.association import Association, spearman
from mergecore.page import Chart
from mergecore.study.papers.systematic import published
from mergecore.study.papers.systematic.charts import color, shown
from mergecore.study.papers.systematic.gains import METHODS, Merge, summary
from mergecore.study.sections import Cell, Section, Table

SAFE = published.SAFE / math.sqrt(published.PARAMETERS[0])
"""The paper's 50 a square root of the parameters of its smallest base."""
FAILING = published.FAILING[0] / math.sqrt(published.PARAMETERS[1])
"""Its 100, of its largest."""


def section(merges: Sequence[Merge]) -> Section:
    """Figure 4, correlations, and the paper's limits by the size of the model.

    Args:
        merges: As the methods have them and norm-matched.
    """
    known = [merge for merge in merges if merge.length]
    plain = [merge for merge in known if not merge.matched]
    if not plain:
        return Section("Distance from the base", ["No merge says how far it is from its base."])
    title = "Does the distance from the base tell the gain?"
    words, tables, cautions = [], [_correlations(plain)], []
    if (every := _spearman(plain)) is not None:
        words.append(
            f"Over all {len(plain)} merges, Spearman's ρ of the gain with ‖output − base‖₂ is"
            f" {every.statistic:+.2f} (p {every.p:.2g}). In the paper the distance is the strongest"
            " predictor: what is near works, what is far fails."
        )
    within = [(m, f) for m in shown(plain) if (f := _spearman(_of(plain, m))) is not None]
    if within:
        told = ", ".join(f"{method} {found.statistic:+.2f}" for method, found in within)
        words.append(f"Within the methods it is: {told}.")
    steps = _relative(plain)
    if steps:
        told = ", ".join(f"{method} {value:.2g}" for method, value in steps.items())
        words.append(f"How many times TA's distance on the same subsets (geometric mean): {told}.")
    words += _limits(plain)
    tables.append(_bands(known))
    cautions.append(
        "Methods differ in distance and in direction at once: a correlation across methods cannot"
        " tell which of them makes the gain. Merges of shared fine-tunes are not independent, so"
        " that its p is too small."
    )
    cautions.append(
        "A distance is of its model: ‖·‖₂ grows with the number of parameters, so that 50 is no"
        " limit for another size. Divided by √parameters it is a mean change of a parameter; even"
        " this depends on how large the base's parameters are."
    )
    return Section(title, words, tables, [_scatter(known), _growth(plain)], cautions)


def _of(merges: Sequence[Merge], method: str) -> list[Merge]:
    return [merge for merge in merges if merge.method == method]


def _spearman(merges: Sequence[Merge]) -> Association | None:
    """Of gain with distance; None where one of them is always the same."""
    gains, lengths = [m.gain for m in merges], [m.length or 0.0 for m in merges]
    if len(merges) < 3 or len(set(gains)) < 2 or len(set(lengths)) < 2:
        return None
    return spearman(lengths, gains)


def _correlations(plain: Sequence[Merge]) -> Table:
    rows: list[list[Cell]] = []
    heads = ["median ‖Δ‖", "min", "max"]
    groups = [(method, _of(plain, method)) for method in shown(plain)]
    for name, of in [*groups, ("all methods", list(plain))]:
        found = _spearman(of)
        lengths = [merge.length or 0.0 for merge in of]
        row: list[Cell] = [name, len(of), float(np.median(lengths)), min(lengths), max(lengths)]
        row += [float(np.median([merge.rms or 0.0 for merge in of]))]
        rows.append([*row, *((found.statistic, found.p) if found else (None, None))])
    return Table(
        "table-distance",
        "Distance from the base, and its correlation with the gain",
        ["method", "merges", *heads, "median RMS change", "Spearman's ρ", "p"],
        rows,
        "All families and sizes together. The RMS change of a parameter is ‖Δ‖ / √parameters.",
    )  # fmt: skip


def _relative(plain: Sequence[Merge]) -> dict[str, float]:
    """Each method's distance over TA's on the same subset; the geometric mean."""
    own = {(m.family, m.members): m.length or 0.0 for m in _of(plain, "TA")}
    found = {}
    for method in shown(plain):
        ratios = [
            math.log((m.length or 0.0) / own[m.family, m.members])
            for m in _of(plain, method)
            if own.get((m.family, m.members))
        ]
        if ratios and method != "TA":
            found[method] = math.exp(float(np.mean(ratios)))
    return found


def _band(merge: Merge) -> int:
    return 0 if (merge.rms or 0) < SAFE else 1 if (merge.rms or 0) < FAILING else 2


def _limits(plain: Sequence[Merge]) -> list[str]:
    found = [
        f"The paper's limits by √parameters of its bases ({published.PARAMETERS[0] / 1e9:.1f} to"
        f" {published.PARAMETERS[1] / 1e9:.1f} billion): works below {SAFE:.2g} (50, the smallest),"
        f" fails above {FAILING:.2g} (100, the largest)."
    ]
    for band, words in ((0, "below the first"), (2, "above the second")):
        gains = [merge.gain for merge in plain if _band(merge) == band]
        if gains:
            s = summary(gains)
            found.append(
                f"Here, of {s.count} merges {words}, {100 * s.share:.0f} % beat their base (mean"
                f" gain {s.mean:+.2f})."
            )
        else:
            found.append(f"Here, no merge is {words}.")
    return found


def _bands(known: Sequence[Merge]) -> Table:
    names = [f"below {SAFE:.2g}", "between", f"above {FAILING:.2g}"]
    rows: list[list[Cell]] = []
    for matched, kind in ((False, "as they are"), (True, "norm-matched")):
        for band, name in enumerate(names):
            gains = [m.gain for m in known if m.matched == matched and _band(m) == band]
            if gains:
                s = summary(gains)
                low, high = s.share_interval
                row: list[Cell] = [name, kind, s.count, 100 * s.share, 100 * low, 100 * high]
                rows.append([*row, s.mean])
    return Table(
        "table-limits",
        "The paper's limits, by √parameters",
        ["RMS change", "merges", "count", "% above base", "low", "high", "mean gain"],
        rows,
        "The RMS change of a parameter is ‖Δ‖ / √parameters. 95 % intervals are Wilson's.",
    )  # fmt: skip


def _points(merges: Sequence[Merge]) -> list[dict[str, Any]]:
    return [
        {
            "length": merge.length,
            "gain": merge.gain,
            "method": merge.method,
            "n": merge.size,
            "name": f"{merge.name}, norm-matched" if merge.matched else merge.name,
            "kind": "norm-matched" if merge.matched else "as they are",
        }
        for merge in merges
    ]


def _scatter(known: Sequence[Merge]) -> Chart:
    import altair as alt

    drawn = []
    panels = {point["kind"]: None for point in _points(known)}
    for panel in panels:
        points = [point for point in _points(known) if point["kind"] == panel]
        chart = alt.Chart(alt.Data(values=points)).encode(
            x=alt.X(
                "length:Q",
                title="‖output − base‖₂",
                scale=alt.Scale(type="log", padding=10, nice=False),
            ),
            y=alt.Y("gain:Q", title="gain over the base, points"),
            color=color(shown(known)),
            tooltip=["name:N", "n:Q", alt.Tooltip("length:Q", format=".3g"), "gain:Q"],
        )
        zero = alt.Chart(alt.Data(values=[{"y": 0}])).mark_rule(strokeDash=[4, 4], color="#5a6478")
        layers = chart.mark_point(size=36, filled=True, opacity=0.6) + zero.encode(y="y:Q")
        width = 300 if len(panels) > 1 else 620
        drawn.append(layers.properties(width=width, height=300, title=panel))
    return (
        "Figure 4: gain against distance from the base",
        "A point is a merge, the dashed line the base; distances on a logarithmic scale.",
        page.spec(alt.hconcat(*drawn).resolve_scale(y="shared", x="shared", color="shared")),
    )


def _growth(plain: Sequence[Merge]) -> Chart:
    import altair as alt

    rows = []
    for method in METHODS:
        for size in sorted({merge.size for merge in plain}):
            lengths = [m.length or 0.0 for m in _of(plain, method) if m.size == size]
            if lengths:
                rows.append({"method": method, "n": size, "length": float(np.mean(lengths))})
    sizes = sorted({merge.size for merge in plain})
    chart = alt.Chart(alt.Data(values=rows)).mark_line(point=True)
    chart = chart.encode(
        x=alt.X("n:Q", title="models merged", axis=alt.Axis(values=sizes, format="d", grid=False)),
        y=alt.Y(
            "length:Q",
            title="‖output − base‖₂",
            scale=alt.Scale(type="log", padding=10, nice=False),
        ),
        color=color(shown(plain)),
        tooltip=["method:N", "n:Q", alt.Tooltip("length:Q", format=".3g")],
    )
    return (
        "Figure 4: distance from the base by the number of models",
        "Means over subsets, on a logarithmic scale.",
        page.spec(chart.properties(width=620, height=260)),
    )
