"""Do methods that keep tasks apart do better on fine-tunes whose tasks are clearly different?

Subsets of such fine-tunes beside random subsets of the same sizes; the paper's methods fail, it
says, for want of such a structure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mergecore import page
from mergecore.page import Chart
from mergecore.study.papers.systematic.charts import color, shown
from mergecore.study.papers.systematic.gains import Merge
from mergecore.study.sections import Cell, Section, Table

_RESAMPLES = 10_000


@dataclass(frozen=True)
class Difference:
    """Distinct less random, the mean over families and sizes."""

    mean: float
    low: float | None
    high: float | None
    distinct: int
    random: int


def section(merges: Sequence[Merge]) -> Section:
    """The gains of both kinds of subsets, and their difference, by method."""
    rows: list[list[Cell]] = []
    words = []
    usual = {(m.family, m.members, _drawn(m)): m.gain for m in merges if m.method == "TA"}
    for method in shown(merges):
        own = [merge for merge in merges if merge.method == method]
        found = difference(_strata(own))
        gains = {k: [m.gain for m in own if _drawn(m) == k] for k in ("distinct", "random")}
        means = [float(np.mean(of)) if of else None for of in gains.values()]
        if found is None:
            rows.append([method, *means, *[None] * 6, *map(len, gains.values())])
            continue
        beyond = difference(_strata(own, usual)) if method != "TA" else None
        apart = [beyond.mean, beyond.low, beyond.high] if beyond else [None] * 3
        counts = [found.distinct, found.random]
        rows.append([method, *means, found.mean, found.low, found.high, *apart, *counts])
        words.append(
            f"{method}: subsets of clearly different fine-tunes gain {_in_words(found)}"
            f" points more than random ones of the same sizes{_beyond(beyond)}."
        )
    heads = ["distinct: gain", "random: gain"]
    apart_heads = ["difference", "low", "high", "beyond TA's", "low", "high"]
    table = Table(
        "table-separation",
        "Distinct and random subsets",
        ["method", *heads, *apart_heads, "distinct", "random"],
        rows,
        "Points over the base, means over subsets. The difference is the mean of the differences in"
        " each family and size; its interval a bootstrap over subsets within them. Beyond TA's:"
        " the same of a method's gain less TA's on the same subset.",
    )  # fmt: skip
    cautions = [
        "Which tasks are clearly different was decided by hand, by their names. Distinct subsets"
        " also have other fine-tunes in other shares; TA's difference says what that alone makes:"
        " only what a method gains beyond it is due to how it keeps tasks apart.",
        "Distinct subsets are few and share most of their members; where a size has one, only the"
        " random ones are resampled.",
    ]
    title = "Does it help if the tasks are clearly different?"
    return Section(title, words, [table], [_chart(merges)], cautions)


def difference(strata: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Difference | None:
    """Gains of distinct less those of random subsets, the mean over strata; None of none.

    Args:
        strata: Of each family and size the gains of both; those where one has none do not count.
    """
    both = [(np.asarray(a, float), np.asarray(b, float)) for a, b in strata if len(a) and len(b)]
    if not both:
        return None
    rng = np.random.default_rng(0)

    def resampled(gains: np.ndarray) -> np.ndarray:
        places = rng.integers(0, len(gains), (_RESAMPLES, len(gains)))
        return np.asarray(gains[places].mean(axis=1))

    drawn = sum(resampled(a) - resampled(b) for a, b in both) / len(both)
    low, high = (float(value) for value in np.percentile(drawn, [2.5, 97.5]))
    varies = any(len(of) > 1 for pair in both for of in pair)
    return Difference(
        float(np.mean([a.mean() - b.mean() for a, b in both])),
        low if varies else None,
        high if varies else None,
        sum(len(a) for a, _ in both),
        sum(len(b) for _, b in both),
    )


def _drawn(merge: Merge) -> str:
    return str(merge.settings.get("drawn"))


def _strata(
    merges: Sequence[Merge], less: Mapping[tuple[str, tuple[str, ...], str], float] | None = None
) -> list[tuple[list[float], list[float]]]:
    """Gains of distinct and of random subsets, by family and size.

    Args:
        merges: Of one method.
        less: What is taken from them, by subset; those that it lacks do not count.
    """
    found: dict[tuple[str, int], tuple[list[float], list[float]]] = {}
    for merge in merges:
        key = (merge.family, merge.members, _drawn(merge))
        if less is None or key in less:
            pair = found.setdefault((merge.family, merge.size), ([], []))
            pair[key[-1] == "random"].append(merge.gain - (less[key] if less else 0.0))
    return list(found.values())


def _beyond(found: Difference | None) -> str:
    return "" if found is None else f", {_in_words(found)} beyond what TA does"


def _in_words(found: Difference) -> str:
    if found.low is None or found.high is None:
        return f"{found.mean:+.2f}"
    return f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _chart(merges: Sequence[Merge]) -> Chart:
    import altair as alt

    points = [
        {"method": m.method, "gain": m.gain, "drawn": _drawn(m), "n": m.size, "name": m.name}
        for m in merges
    ]
    chart = alt.Chart(alt.Data(values=points)).encode(
        x=alt.X("drawn:N", title=None, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("gain:Q", title="gain over the base, points"),
    )
    layers = chart.mark_circle(opacity=0.5, size=36).encode(
        xOffset=alt.XOffset("n:O"),
        color=color(shown(merges)).legend(None),
        tooltip=["name:N", "n:Q", alt.Tooltip("gain:Q", format="+.2f")],
    )
    layers += chart.mark_tick(thickness=3, size=44, color="#1d2433").encode(y="mean(gain):Q")
    layers += (
        alt.Chart(alt.Data(values=points))
        .transform_calculate(zero="0")
        .mark_rule(strokeDash=[4, 4], color="#5a6478")
        .encode(y="zero:Q")
    )
    return (
        "Controlled task separation",
        "A point is a subset, within a column by size, the bar their mean; the dashed line is the"
        " base.",
        page.spec(
            layers.properties(width=140, height=260).facet(
                column=alt.Column("method:N", title=None, sort=shown(merges))
            )
        ),
    )
