"""What do the figures show? Losses as maps, scores and similarities against them, bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mergecore import page
from mergecore.diagnose.bounds import Floats
from mergecore.diagnose.mergeability import Mergeability
from mergecore.page import Chart
from mergecore.study.papers.collapse.losses import Group
from mergecore.study.papers.collapse.published import METHODS
from mergecore.study.sections import Cell


def losses(group: Group) -> Chart:
    """A map of methods and tasks."""
    cells = [
        {"method": method, "task": task, "loss": loss}
        for method in group.methods()
        for task, loss in zip(group.members, group.loss(method), strict=True)
        if loss is not None
    ]
    chart = _map(cells, "task", "method", group.members, group.methods())
    words = "Percent of the own model's score, eq. 1; empty where that is 0. Red is lost."
    return f"Losses of the merges of {group.name}", words, page.spec(chart)


def similarity(group: Group, states: Mergeability | None) -> Chart:
    """Figure 1: the similarities of the models' states beside their losses."""
    import altair as alt

    assert states is not None
    names = group.members
    cells = [
        {"a": one, "b": other, "similarity": float(states.similarity[i, j])}
        for i, one in enumerate(names)
        for j, other in enumerate(names)
    ]
    chart = alt.Chart(alt.Data(values=cells)).encode(
        x=alt.X("a:N", sort=list(names), title=None, axis=alt.Axis(labelAngle=-45)),
        y=alt.Y("b:N", sort=list(names), title=None),
        tooltip=["a:N", "b:N", alt.Tooltip("similarity:Q", format=".4f")],
    )
    scale = alt.Scale(scheme="blues", domain=[0, 1])
    color = alt.Color("similarity:Q", scale=scale, legend=None)
    light = alt.condition("datum.similarity > 0.65", alt.value("white"), alt.value("#1d2433"))
    beside = chart.mark_rect().encode(color=color)
    beside += chart.mark_text(fontSize=10).encode(
        text=alt.Text("similarity:Q", format=".2f"), color=light
    )
    beside = beside.properties(width=alt.Step(36), height=alt.Step(30), title="similarity")
    methods = group.methods(METHODS)
    lost = [
        {"method": method, "task": task, "loss": loss}
        for method in methods
        for task, loss in zip(names, group.loss(method), strict=True)
        if loss is not None
    ]
    maps = _map(lost, "method", "task", methods, names, (44, 30)).properties(title="loss, %")
    drawn = alt.hconcat(beside, maps).resolve_scale(color="independent")
    words = "1 − dᵢⱼ / max d of last hidden states, beside what each task loses by each method."
    return f"Figure 1: similarity and loss, {group.name}", words, page.spec(drawn)


def difficulty(points: Sequence[tuple[Group, Sequence[float], Sequence[float | None]]]) -> Chart:
    """Scores against best losses, a panel for each group."""
    import altair as alt

    rows = [
        {"group": group.name, "task": task, "score": score, "loss": loss}
        for group, scores, lost in points
        for task, score, loss in zip(group.members, scores, lost, strict=True)
        if loss is not None and np.isfinite(score)
    ]
    panels = []
    for name in [group.name for group, *_ in points]:
        own = alt.Chart(alt.Data(values=[row for row in rows if row["group"] == name])).encode(
            x=alt.X("score:Q", title="merging difficulty score", scale=alt.Scale(zero=False)),
            y=alt.Y("loss:Q", title="best loss, %"),
            tooltip=[
                "task:N",
                *(alt.Tooltip(f"{key}:Q", format=".3f") for key in ("score", "loss")),
            ],
        )
        layers = own.mark_point(filled=True, size=60)
        layers += own.mark_text(align="left", dx=7, fontSize=10).encode(text="task:N")
        layers += _line(own, "score", "loss")
        panels.append(layers.properties(width=280, height=200, title=name))
    words = "Each task's best loss over LA, TA and TIES; the line is least squares."
    return "Score against loss", words, page.spec(alt.concat(*panels, columns=2))


def pairs(similar: Floats, lost: Mapping[str, Floats], names: Sequence[str]) -> Chart:
    """Similarities against mean losses of pairs, a panel for each method."""
    import altair as alt

    panels, numbers = [], ("similarity", "loss")
    for method, table in lost.items():
        rows = [
            {"pair": f"{names[i]}+{names[j]}", "similarity": similar[i, j], "loss": table[i, j]}
            for i in range(len(names))
            for j in range(i + 1, len(names))
            if np.isfinite(table[i, j])
        ]
        own = alt.Chart(alt.Data(values=_plain(rows))).encode(
            x=alt.X("similarity:Q", title="hidden similarity"),
            y=alt.Y("loss:Q", title="mean loss, %"),
            tooltip=["pair:N", *(alt.Tooltip(f"{key}:Q", format=".3f") for key in numbers)],
        )
        layers = own.mark_point(filled=True, size=40, opacity=0.7)
        layers += _line(own, "similarity", "loss")
        panels.append(layers.properties(width=180, height=160, title=method))
    drawn = alt.concat(*panels, columns=3).resolve_scale(y="shared")
    words = "Each point is a pair of models; the line is least squares."
    return "Hidden similarity against the loss of pairs", words, page.spec(drawn)


def replaced(rows: Sequence[Sequence[Cell]]) -> Chart:
    """Table 6 as bars."""
    import altair as alt

    values = [
        {"group": row[0], "method": row[1], "of": of, "loss": row[place]}
        for row in rows
        for of, place in (("worst of all", 2), ("mean of those that stay", 4))
        if row[place] is not None
    ]
    groups = list(dict.fromkeys(row["group"] for row in values))
    panels = []
    for of in ("worst of all", "mean of those that stay"):
        own = alt.Chart(alt.Data(values=[row for row in values if row["of"] == of])).encode(
            x=alt.X("group:N", sort=groups, title=None, axis=alt.Axis(labelAngle=0, orient="top")),
            xOffset=alt.XOffset("method:N", sort=["TIES", "TA"]),
            y=alt.Y("loss:Q", title="loss, %"),
        )
        layers = own.mark_bar().encode(
            color=alt.Color("method:N", sort=["TIES", "TA"], title=None),
            tooltip=["group:N", "method:N", "loss:Q"],
        )
        layers += own.mark_text(dy=9, fontSize=10).encode(text=alt.Text("loss:Q", format=".1f"))
        panels.append(layers.properties(width=300, height=220, title=of))
    words = "(a) as drawn; in (a1) and (a2) its member of the highest score is replaced."
    drawn = alt.hconcat(*panels).resolve_scale(y="shared")
    return "Losses when a member is replaced", words, page.spec(drawn)


def curves(states: Mapping[str, Mergeability]) -> Chart:
    """R(D) of each group, and where one model begins to do."""
    import altair as alt

    rows, marks = [], []
    for name, found in states.items():
        for distortion, rate in zip(*found.curve, strict=True):
            rows.append({"models": name, "distortion": float(distortion), "rate": float(rate)})
        for kind, value in (("D*, exact", found.radius), ("Jung's, published", found.jung)):
            marks.append({"models": name, "bound": kind, "distortion": value})
    color = alt.Color("models:N", title=None, sort=list(states))
    x = alt.X("distortion:Q", title="squared distance")
    line = alt.Chart(alt.Data(values=rows)).mark_line()
    line = line.encode(x=x, y=alt.Y("rate:Q", title="bits"), color=color)
    rules = alt.Chart(alt.Data(values=marks)).mark_rule()
    kinds = ["D*, exact", "Jung's, published"]
    dash = alt.StrokeDash(
        "bound:N", title=None, sort=kinds, scale=alt.Scale(domain=kinds, range=[[6, 2], [2, 3]])
    )
    rules = rules.encode(x=x, color=color, strokeDash=dash)
    words = (
        "The bits about which model is meant that buy a mean squared distance; upright lines are"
        " the exact radius² and the published bound, both of the worst case."
    )
    drawn = (line + rules).properties(width=640, height=260)
    return "Rate and distortion of the groups", words, page.spec(drawn)


def _map(
    cells: list[dict[str, Any]],
    x: str,
    y: str,
    across: Sequence[str],
    down: Sequence[str],
    step: tuple[int, int] = (62, 28),
) -> Any:
    import altair as alt

    chart = alt.Chart(alt.Data(values=cells)).encode(
        x=alt.X(f"{x}:N", sort=list(across), title=None, axis=alt.Axis(labelAngle=-45)),
        y=alt.Y(f"{y}:N", sort=list(down), title=None),
        tooltip=["method:N", "task:N", alt.Tooltip("loss:Q", format=".2f")],
    )
    scale = alt.Scale(scheme="redblue", domain=[-100, 100], clamp=True)
    strong = alt.condition("abs(datum.loss) > 60", alt.value("white"), alt.value("#1d2433"))
    layers = chart.mark_rect().encode(color=alt.Color("loss:Q", scale=scale, legend=None))
    layers += chart.mark_text(fontSize=10).encode(
        text=alt.Text("loss:Q", format=".1f"), color=strong
    )
    return layers.properties(width=alt.Step(step[0]), height=alt.Step(step[1]))


def _line(chart: Any, x: str, y: str) -> Any:
    return chart.transform_regression(x, y).mark_line(color="#9a3b00", strokeDash=[4, 3])


def _plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """NumPy's numbers as Python's, as the page is JSON."""
    return [
        {key: float(value) if isinstance(value, np.floating) else value for key, value in r.items()}
        for r in rows
    ]
