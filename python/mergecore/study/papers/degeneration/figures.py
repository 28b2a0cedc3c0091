"""How are reward and degeneration drawn together? Reward on the left axis, degeneration right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mergecore import page
from mergecore.page import Chart
from mergecore.study.papers.degeneration.rows import Point

_REWARD, _RATE, _ALL = "#1f6f8b", "#c8553d", "#e3a587"


def curves(series: Mapping[str, Mapping[float, Point]], over: str, title: str) -> Chart:
    """One panel a name: reward with its interval, degeneration of the lowest and of all."""
    import altair as alt

    panels = [_panel(name, points, over) for name, points in series.items()]
    # Not a facet: Vega-Lite has no panels with two axes of their own in one.
    chart = alt.concat(*panels, columns=3)
    return (
        title,
        "Blue, left axis: mean reward with its 95 % interval. Red, dashed, right axis: share"
        " that is degenerate of the lowest eighth by reward, the paper's rate; light red: of all"
        " answers.",
        page.spec(chart),
    )


def _panel(name: str, points: Mapping[float, Point], over: str) -> Any:
    import altair as alt

    values = [
        {
            "x": x, "reward": p.reward, "low": p.reward_low, "high": p.reward_high,
            "lowest": p.worst, "all": p.every, "all_low": p.every_low, "all_high": p.every_high,
        }
        for x, p in points.items()
    ]  # fmt: skip
    rows = alt.Chart(alt.Data(values=values))
    x = alt.X("x:Q", title=over)
    left = alt.Y("reward:Q", title="mean reward", scale=alt.Scale(zero=False),
                 axis=alt.Axis(titleColor=_REWARD))  # fmt: skip
    right = alt.Y("lowest:Q", title="degenerate", scale=alt.Scale(domain=[0, 1]),
                  axis=alt.Axis(titleColor=_RATE, format="%"))  # fmt: skip
    tips = ["x:Q", "reward:Q", "lowest:Q", "all:Q"]
    blue, red, pale = ({"color": color} for color in (_REWARD, _RATE, _ALL))
    reward = rows.mark_line(**blue, point=blue).encode(x=x, y=left, tooltip=tips)
    reward += rows.mark_rule(**blue, opacity=0.4).encode(x=x, y="low:Q", y2="high:Q")
    rate = rows.mark_line(**red, strokeDash=[5, 3], point=red).encode(x=x, y=right, tooltip=tips)
    rate += rows.mark_line(**pale, point=pale).encode(x=x, y="all:Q", tooltip=tips)
    rate += rows.mark_rule(**pale, opacity=0.5).encode(x=x, y="all_low:Q", y2="all_high:Q")
    layered = alt.layer(reward, rate).resolve_scale(y="independent")
    return layered.properties(width=210, height=160, title=name)


def maps(cells: Sequence[Mapping[str, Any]], measure: str, title: str) -> Chart:
    """λ × density, a panel for each pair and method."""
    import altair as alt

    scheme = "oranges" if measure == "degenerate" else "blues"
    inner = alt.Chart().mark_rect().encode(
        x=alt.X("λ:O", title="λ"),
        y=alt.Y("density:O", title="density", sort="descending"),
        color=alt.Color(f"{measure}:Q", title=measure, scale=alt.Scale(scheme=scheme, zero=False)),
        tooltip=["pair:N", "method:N", "λ:Q", "density:Q", f"{measure}:Q"],
    )  # fmt: skip
    chart = inner.properties(width=alt.Step(26), height=alt.Step(22)).facet(
        row=alt.Row("method:N", title=None),
        column=alt.Column("pair:N", title=None),
        data=alt.Data(values=list(cells)),
    )
    words = "Each cell is a merge; λ is the weight of the second model."
    return title, words, page.spec(chart)


def skills(series: Mapping[str, Mapping[float, Point]], tasks: Mapping[str, str]) -> Chart:
    """What the experts were added for, over the coefficient."""
    import altair as alt

    values = [
        {
            "panel": f"chat + {panel}",
            "x": c,
            "score": p.tasks.get(task),
            "skill": f"{skill} ({task})",
        }
        for panel, points in series.items()
        for c, p in points.items()
        for skill, task in tasks.items()
        if task in p.tasks
    ]
    inner = alt.Chart().mark_line(point=True).encode(
        x=alt.X("x:Q", title="coefficient"),
        y=alt.Y("score:Q", title="score", scale=alt.Scale(domain=[0, 1])),
        color=alt.Color("skill:N", title=None),
    )  # fmt: skip
    chart = inner.properties(width=230, height=170).facet(
        column=alt.Column("panel:N", title=None), data=alt.Data(values=values)
    )
    return "Skills over the coefficient", "Scores of the two tasks.", page.spec(chart)


def histogram(values: Mapping[str, Sequence[float]]) -> Chart:
    """Rewards by verdict, each kind as shares of itself."""
    import numpy as np

    every = np.concatenate([np.asarray(own) for own in values.values()])
    edges = np.linspace(every.min(), every.max(), 31)
    bars = []
    for kind, own in values.items():
        counts, _ = np.histogram(own, edges)
        bars += [
            {"from": round(float(edges[i]), 4), "to": round(float(edges[i + 1]), 4),
             "share": float(n / len(own)), "verdict": kind}
            for i, n in enumerate(counts)
        ]  # fmt: skip
    import altair as alt

    chart = alt.Chart(alt.Data(values=bars)).mark_bar(opacity=0.6).encode(
        x=alt.X("from:Q", title="reward"),
        x2="to:Q",
        y=alt.Y("share:Q", stack=None, title="share of its kind"),
        color=alt.Color("verdict:N", title=None, scale=alt.Scale(
            domain=["degenerate", "sound"], range=[_RATE, _REWARD])),
    )  # fmt: skip
    words = "All answers of all configurations that differ."
    return (
        "Rewards by verdict (figure 3)",
        words,
        page.spec(chart.properties(width=640, height=240)),
    )
