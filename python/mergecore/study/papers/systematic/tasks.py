"""In which tasks do merges gain? Figures 7 to 10: task by method, for each number of models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mergecore import page
from mergecore.page import Chart
from mergecore.study.papers.systematic.charts import shown
from mergecore.study.papers.systematic.gains import Family, Found, Merge
from mergecore.study.sections import Cell, Section, Table


def section(found: Found, merges: Sequence[Merge]) -> Section:
    """A heat map a family.

    Args:
        found: Whose families.
        merges: As the methods have them.
    """
    words, charts, tables = [], [], []
    for number, (name, family) in enumerate(found.families.items(), start=7):
        own = [merge for merge in merges if merge.family == name]
        if not own:
            continue
        figure = f"Figure {number}" if number <= 10 else "Figure"
        charts.append(_chart(figure, family, own))
        tables.append(_table(family, own))
        words += _in_words(family, own)
    return Section("Task by task", words, tables, charts)


def _cells(merges: Sequence[Merge], tasks: Sequence[str]) -> dict[tuple[str, int, str], float]:
    """Mean gains by method, size and task."""
    found = {}
    for method in shown(merges):
        for size in sorted({merge.size for merge in merges}):
            of = [m for m in merges if m.method == method and m.size == size]
            for task in tasks if of else ():
                found[method, size, task] = float(np.mean([merge.tasks[task] for merge in of]))
    return found


def _in_words(family: Family, merges: Sequence[Merge]) -> list[str]:
    words = []
    size = max(merge.size for merge in merges)
    cells = _cells([merge for merge in merges if merge.size == size], list(family.base))
    for method in shown(merges):
        own = {task: gain for (m, _, task), gain in cells.items() if m == method}
        if own:
            best, worst = max(own, key=lambda t: own[t]), min(own, key=lambda t: own[t])
            up = sum(gain > 0 for gain in own.values())
            words.append(
                f"{family.name}, {method} of {size}: up in {up} of {len(own)} tasks, most in {best}"
                f" ({own[best]:+.1f}), least in {worst} ({own[worst]:+.1f})."
            )
    return words


def _table(family: Family, merges: Sequence[Merge]) -> Table:
    cells = _cells(merges, list(family.base))
    lines = dict.fromkeys((method, size) for method, size, _ in cells)
    rows: list[list[Cell]] = [["base", None, *(100 * score for score in family.base.values())]]
    rows += [[m, n, *(cells[m, n, task] for task in family.base)] for m, n in lines]
    items = ", ".join(f"{task} {count:,}" for task, count in family.items.items())
    return Table(
        f"table-tasks-{family.name}",
        f"{family.name}: gain by task",
        ["method", "n", *family.base],
        rows,
        f"Points over the base, whose scores the first row has, in percent. Items: {items}.",
    )


def _chart(figure: str, family: Family, merges: Sequence[Merge]) -> Chart:
    return (
        f"{figure}: gain by task, {family.name}",
        "Mean gain over the base in points, a panel for each number of models; in brackets the"
        " base's score in percent.",
        _maps(family, merges),
    )


def _maps(family: Family, merges: Sequence[Merge]) -> dict[str, Any]:
    import altair as alt

    labels = {task: f"{task} ({100 * score:.0f})" for task, score in family.base.items()}
    cells = _cells(merges, list(family.base))
    limit = max((abs(gain) for gain in cells.values()), default=1.0) or 1.0
    scale = alt.Scale(scheme="blueorange", domain=[-limit, limit], reverse=True)
    drawn = []
    for number, size in enumerate(sorted({merge.size for merge in merges})):
        values = [
            {"method": method, "task": labels[task], "gain": gain}
            for (method, n, task), gain in cells.items()
            if n == size
        ]
        is_first = number % 3 == 0
        axis = alt.Axis(labelLimit=200) if is_first else alt.Axis(labels=False, ticks=False)
        chart = alt.Chart(alt.Data(values=values)).encode(
            x=alt.X("method:N", sort=shown(merges), title=None, axis=alt.Axis(labelAngle=-45)),
            y=alt.Y("task:N", sort=list(labels.values()), title=None, axis=axis),
            tooltip=["method:N", "task:N", alt.Tooltip("gain:Q", format="+.2f")],
        )
        layers = chart.mark_rect().encode(
            color=alt.Color("gain:Q", title="points", scale=scale, legend=alt.Legend(format="+.0f"))
        )
        strong = f"abs(datum.gain) > {0.6 * limit}"
        layers += chart.mark_text(fontSize=9).encode(
            text=alt.Text("gain:Q", format="+.1f"),
            color=alt.condition(strong, alt.value("white"), alt.value("#1d2433")),
        )
        drawn.append(layers.properties(width=alt.Step(27), height=alt.Step(20), title=f"n={size}"))
    return page.spec(alt.concat(*drawn, columns=3).resolve_scale(color="shared"))
