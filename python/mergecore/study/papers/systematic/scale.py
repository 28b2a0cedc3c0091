"""Which λ, density and β is best, and how much of that is luck? Figures 11 to 13.

The best of several λ has been chosen on the items that its gain is told of. What is left on items
that had no part in the choice is measured by halves: λ is chosen on one, its gain taken of the
other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergecore import page
from mergecore.page import Chart
from mergecore.study.papers.systematic.charts import color, shown
from mergecore.study.papers.systematic.gains import METHODS, Family, Found, Merge
from mergecore.study.results import Results
from mergecore.study.sections import Cell, Section, Table

Scores = dict[str, dict[str, float]]
"""By task and item."""
_SPLITS = 200
_NAMES = {"lambda": "λ", "density": "k, the share of elements kept", "beta": "β"}
_TITLES = {"lambda": "scale", "density": "density", "beta": "boosting"}
"""Without Greek letters: a figure's title is its file's name."""
_FIGURES = (("scale", "lambda", 11), ("density", "density", 12), ("boost", "beta", 13))


@dataclass(frozen=True)
class Best:
    """The setting of the highest gain, and what is left of the gain on other items."""

    setting: float
    gain: float
    usual: float | None
    """The gain at 1, which is the paper's."""
    elsewhere: float | None
    """The mean gain on one half of the items of what was chosen on the other."""


def section(results: Results, found: Found) -> Section:
    """Figures 11 to 13, and the best λ of each method."""
    words, charts, cautions = [], [], []
    for part, key, number in _FIGURES:
        merges = found.part(part)
        if merges:
            charts += [
                _chart(f"Figure {number}", found.families[name], merges, key)
                for name in found.families
                if any(merge.family == name for merge in merges)
            ]
    rows: list[list[Cell]] = []
    for name, family in found.families.items():
        best = _all_best(results, family, [m for m in found.part("scale") if m.family == name])
        usual = {m: b.usual for m, b in best.items() if b.usual is not None}
        for method, b in best.items():
            less = None if b.elsewhere is None else b.gain - b.elsewhere
            rows.append([name, method, b.usual, b.setting, b.gain, b.elsewhere, less])
        if best:
            words.append(_in_words(name, best, usual))
        if any(b.elsewhere is None for b in best.values()):
            cautions.append(
                f"{name}: rows of items are missing, so λ could not be chosen by halves."
            )
        for part, key, _ in _FIGURES[1:]:
            words += _extremes(name, [m for m in found.part(part) if m.family == name], key)
    lost = [row[-1] for row in rows if isinstance(row[-1], float)]
    if lost:
        cautions.append(
            "The best λ is chosen on the items that its gain is told of. Chosen on half of them and"
            f" measured on the other, gains are {np.mean(lost):.2f} points smaller on average,"
            f" {max(lost):.2f} at most."
        )
    table = Table(
        "table-scale",
        "The best λ of each method, all fine-tunes merged",
        ["family", "method", "gain at λ=1", "best λ", "its gain", "chosen on other items", "less"],
        rows,
        f"Points over the base. Chosen on other items: λ by one half of each task's items, the gain"
        f" by the other; the mean of {_SPLITS} random halves, each way. Model Stock has no λ.",
    )
    title = "What do λ, the density and β change?"
    return Section(title, words, [table] if rows else [], charts, cautions)


def held_out(merges: Sequence[Scores], base: Scores) -> float | None:
    """The mean gain, in points, on one half of the items of what is best on the other.

    Args:
        merges: Item by item, what is to be chosen from.
        base: The base's.

    Returns:
        The mean over random halves of each task's items; None if a task has fewer than two items
        that all have been asked.
    """
    rng = np.random.default_rng(0)
    halves: NDArray[np.float64] = np.zeros((2, _SPLITS, len(merges)))
    for task, items in base.items():
        known = [i for i in items if all(i in merge.get(task, {}) for merge in merges)]
        if len(known) < 2:
            return None
        gains = np.array([[merge[task][i] - items[i] for i in known] for merge in merges])
        for split in range(_SPLITS):
            order = rng.permutation(len(known))
            for half, places in enumerate(np.array_split(order, 2)):
                halves[half, split] += 100 * gains[:, places].mean(axis=1) / len(base)
    splits = np.arange(_SPLITS)
    taken = [halves[1 - half][splits, halves[half].argmax(axis=1)] for half in (0, 1)]
    return float(np.mean(taken))


def _all_best(results: Results, family: Family, merges: Sequence[Merge]) -> dict[str, Best]:
    base = _items(results, "models", family.configuration)
    found = {}
    for method in shown(merges):
        own = [merge for merge in merges if merge.method == method]
        best = max(own, key=lambda merge: merge.gain)
        usual = next((m.gain for m in own if m.settings.get("lambda") == 1.0), None)
        items = [_items(results, "scale", merge.name) for merge in own]
        there = set(base) == set(family.base) and all(items)
        elsewhere = held_out(items, base) if there else None
        found[method] = Best(float(best.settings["lambda"]), best.gain, usual, elsewhere)
    return found


def _items(results: Results, part: str, name: str) -> Scores:
    """A configuration's scores, by task and item; none if its rows are not there."""
    found: Scores = {}
    for row in results.rows(part, name, "tasks"):
        if row.get("score") is not None:
            found.setdefault(row["task"], {})[row["id"]] = float(row["score"])
    return found


def _in_words(name: str, best: dict[str, Best], usual: dict[str, float]) -> str:
    told = ", ".join(f"{m} {b.gain:+.2f} at λ={b.setting:g}" for m, b in best.items())
    text = f"{name}: the best gains over λ are {told}."
    if usual:
        first = max(usual, key=lambda method: usual[method])
        swept = max(best, key=lambda method: best[method].gain)
        text += f" At λ = 1 {first} is first ({usual[first]:+.2f}), with each at its best {swept}."
    return text


def _extremes(name: str, merges: Sequence[Merge], key: str) -> list[str]:
    words = []
    for method in shown(merges):
        own = [m for m in merges if m.method == method and key in m.settings]
        if len(own) > 1:
            best, worst = max(own, key=lambda m: m.gain), min(own, key=lambda m: m.gain)
            words.append(
                f"{name}, {method} over {_NAMES[key].partition(',')[0]}: from {worst.gain:+.2f} at"
                f" {worst.settings[key]:g} to {best.gain:+.2f} at {best.settings[key]:g}."
            )
    return words


def _chart(figure: str, family: Family, merges: Sequence[Merge], key: str) -> Chart:
    own = [m for m in merges if m.family == family.name and key in m.settings]
    return (
        f"{figure}: gain by {_TITLES[key]}, {family.name}",
        "All fine-tunes merged; the dashed line is the base.",
        _curves(own, key),
    )


def _curves(merges: Sequence[Merge], key: str) -> dict[str, Any]:
    import altair as alt

    points = [
        {"method": m.method, "x": float(m.settings[key]), "gain": m.gain, "length": m.length}
        for m in sorted(merges, key=lambda m: METHODS.index(m.method))
    ]
    chart = alt.Chart(alt.Data(values=points)).mark_line(point=True)
    chart = chart.encode(
        x=alt.X("x:Q", title=_NAMES[key], scale=alt.Scale(zero=False, nice=False, padding=8)),
        y=alt.Y("gain:Q", title="gain over the base, points"),
        color=color(shown(merges)),
        tooltip=["method:N", "x:Q", alt.Tooltip("gain:Q", format="+.2f"), "length:Q"],
    )
    zero = alt.Chart(alt.Data(values=[{"y": 0, "line": "base"}])).encode(y="y:Q")
    layers = chart + zero.mark_rule(strokeDash=[4, 4], color="#5a6478")
    layers += zero.mark_text(align="right", dx=-2, dy=-6, color="#5a6478").encode(
        x=alt.value("width"), text="line:N"
    )
    return page.spec(layers.properties(width=620, height=260))
