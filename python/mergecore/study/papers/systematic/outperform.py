"""Do merges beat their base, and the best fine-tune? Tables 1 to 3, figures 3 and 6."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mergecore import page
from mergecore.page import Chart
from mergecore.study.papers.systematic import published
from mergecore.study.papers.systematic.charts import color, shown
from mergecore.study.papers.systematic.gains import METHODS, Found, Merge, Summary, summary
from mergecore.study.sections import Cell, Section, Table

MATCHED = "norm-matched"
_EVERY = "all families"


def over_the_base(found: Found, merges: Sequence[Merge]) -> Section:
    """Tables 1 and 3, figures 3 and 6, and the paper's numbers.

    Args:
        found: Whose bases.
        merges: Of the same subsets for all methods, as the methods have them and norm-matched.
    """
    words, cautions, tables = [], [], []
    for method in METHODS:
        if text := _in_words(merges, method):
            words.append(text)
    groups = _groups(found, merges)
    tables.append(_compact("table-1", "P(outperform base) and mean gain", groups[0]))
    if len(groups) > 1:
        for name, of in groups[1:]:
            title = f"{name}: P(outperform base) and mean gain"
            tables.append(_compact(f"table-3-{name}", title, (name, of)))
    tables.append(_in_full(groups))
    if beside := published.beside(merges):
        tables.append(beside[0])
        words.append(beside[1])
        cautions.append(
            "The signs are compared, no more: other models say nothing for or against the paper's"
            " numbers."
        )
    best = {name: max(f.alone.values()) for name, f in found.families.items() if f.alone}
    scores = {name: family.score for name, family in found.families.items()}
    if accuracies := published.accuracies(scores, best):
        tables.append(accuracies)
    cautions += [_noise(found, merges), *_overlap(merges)]
    charts = [_over_size(merges), *(_family_chart(found, name, merges) for name in found.families)]
    return Section("Do merges beat their base?", words, tables, charts, cautions)


def over_the_best(found: Found, merges: Sequence[Merge]) -> Section:
    """Table 2, by both meanings of "the best fine-tune"."""
    rows: list[list[Cell]] = []
    for (method, matched, size), of in _cells(merges):
        own = [m.over_best for m in of if m.over_best is not None]
        every = [m.over_all for m in of if m.over_all is not None]
        row: list[Cell] = [_label(method, matched), size, len(of)]
        rows.append([*row, *_mean_of(own), *_mean_of(every)])
    heads = ["method", "n", "subsets"]
    for kind in ("best of the merged", "best of all"):
        heads += [f"over the {kind}", "sd", "low", "high", f"% above the {kind}"]
    table = Table(
        "table-2", "Gain over the best fine-tune, in points", heads, rows,
        "The paper does not say which best it means. Means over subsets, intervals: bootstrap.",
    )  # fmt: skip
    plain = [m for m in merges if not m.matched]
    words = []
    for name, family in found.families.items():
        if not family.alone:
            continue
        first = max(family.alone, key=lambda expert: family.alone[expert])
        better = sum(score > family.score for score in family.alone.values())
        words.append(
            f"{name}: the base scores {family.score:.1f}; {better} of {len(family.alone)}"
            f" fine-tunes beat it, the best is {first} with {family.alone[first]:.1f}."
        )
    for kind, value in _KINDS.items():
        gains = {
            method: [g for m in plain if m.method == method and (g := value(m)) is not None]
            for method in METHODS
        }
        told = [
            f"{method} {sum(g > 0 for g in of)} of {len(of)} (mean {np.mean(of):+.2f})"
            for method, of in gains.items()
            if of
        ]
        if told:
            words.append(f"Merges that beat the best of {kind}: {', '.join(told)}.")
    cautions = [
        "The paper's best fine-tune of both Qwen bases is worse than the base, while a quarter of"
        " its fine-tunes beat their base: it cannot be the best of all twelve.",
        "The best of several scores is chosen on the items that it is reported on: a high bar.",
    ]
    return Section("Do merges beat the best fine-tune?", words, [table], (), cautions)


_KINDS: dict[str, Callable[[Merge], float | None]] = {
    "what was merged": lambda merge: merge.over_best,
    "all fine-tunes": lambda merge: merge.over_all,
}


def _label(method: str, matched: bool) -> str:
    return f"{method}, {MATCHED}" if matched else method


def _cells(merges: Sequence[Merge]) -> list[tuple[tuple[str, bool, int], list[Merge]]]:
    """The merges by method, whether they are norm-matched, and size; in the paper's order."""
    found: dict[tuple[str, bool, int], list[Merge]] = {}
    for matched in (False, True):
        for method in METHODS:
            for size in sorted({merge.size for merge in merges}):
                key = (method, matched, size)
                of = [m for m in merges if (m.method, m.matched, m.size) == key]
                if of:
                    found[key] = of
    return list(found.items())


def _groups(found: Found, merges: Sequence[Merge]) -> list[tuple[str, list[Merge]]]:
    """All families together, then each, where there are several."""
    each = [(name, [m for m in merges if m.family == name]) for name in found.families]
    each = [(name, of) for name, of in each if of]
    return each if len(each) == 1 else [(_EVERY, list(merges)), *each]


def _compact(name: str, title: str, group: tuple[str, list[Merge]]) -> Table:
    who, merges = group
    sizes = sorted({merge.size for merge in merges})
    lines: dict[str, dict[int, Summary]] = {}
    for (method, matched, size), of in _cells(merges):
        own = lines.setdefault(_label(method, matched), {})
        own[size] = summary([merge.gain for merge in of])
    rows: list[list[Cell]] = [
        [
            label,
            *(f"{100 * s.share:.0f} / {s.mean:+.2f}" if (s := of.get(n)) else None for n in sizes),
        ]
        for label, of in lines.items()
    ]
    note = f"{who}: percent of the subsets whose merge beats the base / mean gain in points, by n."
    return Table(name, title, ["method", *(f"n={size}" for size in sizes)], rows, note)


def _in_full(groups: Sequence[tuple[str, list[Merge]]]) -> Table:
    rows: list[list[Cell]] = []
    heads = ["family", "method", "n", "subsets"]
    for who, merges in groups:
        for (method, matched, size), of in _cells(merges):
            s = summary([merge.gain for merge in of])
            low, high = s.interval or (None, None)
            share = [100 * value for value in (s.share, *s.share_interval)]
            row: list[Cell] = [who, _label(method, matched), size, s.count, *share]
            rows.append([*row, s.mean, s.deviation, low, high])
    return Table(
        "table-1-in-full",
        "The same with intervals",
        [*heads, "% above base", "low", "high", "gain", "sd", "low", "high"],
        rows,
        "95 % intervals: Wilson's of the share, bootstrap over subsets of the mean gain.",
    )  # fmt: skip


def _in_words(merges: Sequence[Merge], method: str) -> str | None:
    parts = []
    for size in sorted({merge.size for merge in merges}):
        of = [m.gain for m in merges if m.method == method and not m.matched and m.size == size]
        if of:
            parts.append((size, summary(of)))
    if not parts:
        return None
    (first, a), (last, b) = parts[0], parts[-1]
    said = f"{method}: {100 * a.share:.0f} % of the subsets of {first} beat the base ({a.mean:+.2f}"
    said += f" points on average), {100 * b.share:.0f} % of {last} ({b.mean:+.2f})."
    shares, gains = published.SHARES[method], published.GAINS[method]
    low, high = min(shares), max(shares)
    return (
        f"{said} The paper has {shares[low]:.0f} % ({gains[low]:+.2f}) of {low} and"
        f" {shares[high]:.0f} % ({gains[high]:+.2f}) of {high}."
    )


def _noise(found: Found, merges: Sequence[Merge]) -> str:
    told = []
    for name, family in found.families.items():
        own = [m for m in merges if m.family == name and not m.matched]
        sure = sum(m.beyond_noise for m in own)
        told.append(
            f"{name}'s base scores {family.score:.1f} ± {family.noise:.1f} on"
            f" {len(family.base)} tasks of {sum(family.items.values()):,} items, and {sure} of"
            f" {len(own)} gains or losses are beyond what the items leave open (unpaired, 95 %)"
        )
    return f"How sure is a score? {'; '.join(told)}."


def _overlap(merges: Sequence[Merge]) -> list[str]:
    found = [
        "Subsets share fine-tunes, the larger the more: intervals over subsets are too narrow for"
        " what other fine-tunes would give."
    ]
    alone = {m.size for m in merges if len({o.members for o in merges if o.size == m.size}) == 1}
    if alone:
        sizes = " and ".join(str(size) for size in sorted(alone))
        found.append(f"Of n = {sizes} there is one subset: 0 or 100 % of it says little.")
    return found


def _mean_of(gains: Sequence[float]) -> list[Cell]:
    if not gains:
        return [None] * 5
    s = summary(gains)
    low, high = s.interval or (None, None)
    return [s.mean, s.deviation, low, high, 100 * s.share]


def _over_size(merges: Sequence[Merge]) -> Chart:
    """Figure 3: the mean gain over all families."""
    return (
        "Figure 3: gain over the base by the number of models",
        "Means over subsets, bars ± one standard deviation; the dashed line is the base. Left as"
        " the methods are, right all at the norm of the mean task vector (TA's).",
        _sizes(merges, {"base": 0.0}, "gain over the base, points", lambda merge: merge.gain),
    )


def _family_chart(found: Found, name: str, merges: Sequence[Merge]) -> Chart:
    """Figure 6: a family's scores."""
    family = found.families[name]
    lines = {"base": family.score}
    if family.alone:
        lines["best fine-tune of all"] = max(family.alone.values())
    own = [merge for merge in merges if merge.family == name]
    return (
        f"Figure 6: score by the number of models, {name}",
        "Means over subsets, bars ± one standard deviation; dashed: the base, the best fine-tune.",
        _sizes(own, lines, "score, percent", lambda merge: merge.score),
    )


def _sizes(
    merges: Sequence[Merge],
    lines: dict[str, float],
    title: str,
    value: Callable[[Merge], float],
) -> dict[str, Any]:
    import altair as alt

    panels = ["as they are", MATCHED] if any(m.matched for m in merges) else ["as they are"]
    points = []
    for (method, matched, size), of in _cells(merges):
        s = summary([value(merge) for merge in of])
        where = panels if method == "TA" else [panels[matched]]
        beside = 0.11 * (METHODS.index(method) - 3)  # bars are not to lie upon each other
        spread = s.deviation or 0.0
        points += [
            {
                "n": size,
                "x": size + beside,
                "y": s.mean,
                "low": s.mean - spread,
                "high": s.mean + spread,
                "method": method,
                "panel": panel,
                "subsets": s.count,
            }
            for panel in where
        ]
    sizes = sorted({merge.size for merge in merges})
    drawn = []
    for panel in panels:
        chart = alt.Chart(alt.Data(values=[p for p in points if p["panel"] == panel]))
        x = alt.X("x:Q", title="models merged", axis=alt.Axis(values=sizes, format="d", grid=False))
        x.scale = alt.Scale(domain=[sizes[0] - 0.6, sizes[-1] + 0.6])
        y = alt.Y("y:Q", title=title, scale=alt.Scale(zero=False))
        colors = color(shown(merges))
        bars = chart.mark_rule(opacity=0.45).encode(x=x, y="low:Q", y2="high:Q", color=colors)
        layers = chart.mark_line(point=True).encode(
            x=x,
            y=y,
            color=colors,
            tooltip=["method:N", "n:Q", alt.Tooltip("y:Q", format=".2f"), "subsets:Q"],
        )
        layers += bars  # behind, the legend would be as pale as they are
        rules = [{"line": name, "y": height} for name, height in lines.items()]
        marks = alt.Chart(alt.Data(values=rules)).encode(y="y:Q")
        layers += marks.mark_rule(strokeDash=[4, 4], color="#5a6478")
        layers += marks.mark_text(align="right", dx=-2, dy=-6, color="#5a6478").encode(
            x=alt.value("width"), text="line:N"
        )
        drawn.append(
            layers.properties(width=300 if len(panels) > 1 else 620, height=300, title=panel)
        )
    return page.spec(alt.hconcat(*drawn).resolve_scale(y="shared", color="shared"))
