"""Does the merging difficulty score tell which task loses? Table 5, the tables of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mergecore.study import statistics
from mergecore.study.measures import Measured
from mergecore.study.papers.collapse import (
    charts,
    replacement,
)
from mergecore.study.papers.collapse.losses import Group, known
from mergecore.study.papers.collapse.published import METHODS, SCORES_P, THREE
from mergecore.study.papers.collapse.significance import cells, number, said
from mergecore.study.sections import Cell, Section, Table

_SHOWN = 3
"""Groups of adapters that are shown in full."""
WAYS = (("best", THREE), ("mean", THREE), ("worst", THREE), ("best", METHODS), ("mean", METHODS))
HEADS = (
    "group", "a task's loss", "of", "tasks", "Pearson's r", "p", "Spearman's ρ", "p of ρ",
    "permutation p", "paper's p",
)  # fmt: skip

Scored = tuple[Group, list[float]]
"""A group, and the score of each of its members."""


def section(
    families: Sequence[Group],
    measured: Mapping[str, Measured],
    adapters: Sequence[Group],
    of_adapters: Measured | None,
) -> Section | None:
    """Table 5 and the tables of scores; None if nothing was measured."""
    firsts = [
        (group, scores(measured[group.name], group.members))
        for group in families
        if group.name in measured and measured[group.name].states is not None
    ]
    others: list[Scored] = []
    if of_adapters is not None and of_adapters.states is not None:
        others = [(group, scores(of_adapters, group.members)) for group in adapters]
    shown = [*firsts, *others[:_SHOWN]]
    if not shown:
        return None
    rows = [row for group, own in shown for row in _tests(group, own)]
    note = (
        "Scores are 1 over a model's mean similarity to the others. The paper takes a task's best"
        " loss over LA, TA and TIES. A permutation counts all orders of eight tasks."
    )
    tables = [Table("table-5", "Table 5: score against loss", HEADS, rows, note)]
    words = _words(rows)
    if len(others) > 1:
        every = _of_groups(others)
        tables.append(every)
        words += _distribution(every)
    tables += [_detail(group, own) for group, own in shown]
    points = [(group, own, group.over(THREE, "best")) for group, own in shown]
    pictures = [
        charts.similarity(group, measured[group.name].states)
        for group, _ in firsts
        if group.methods(METHODS)
    ]
    cautions = [
        "The best of several losses is a choice that the paper does not give a reason for; the"
        " mean and the worst stand beside it.",
        "Eight tasks: one that stands alone decides Pearson's r; ranks and permutations say what"
        " is left without it.",
    ]
    if len(others) > 1:
        cautions.append("Groups share adapters: their correlations are no independent draws.")
    return Section(
        "RQ3: does the merging difficulty score tell which task loses?",
        words, tables, [*pictures, charts.difficulty(points)], cautions,
    )  # fmt: skip


def scores(measured: Measured, members: Sequence[str]) -> list[float]:
    """Each member's score within its group."""
    return [float(score) for score in replacement.scores(measured, list(members))]


def _tests(group: Group, own: Sequence[float]) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for how, among in WAYS:
        methods = group.methods(among)
        if not methods or (among is METHODS and set(methods) <= set(THREE)):
            continue
        found = statistics.trend(own, group.over(among, how))
        is_papers = how == "best" and among is THREE
        printed = SCORES_P.get("GLUE" if group.name == "qwen2.5-3b" else group.name)
        rows.append(
            [
                group.name, how, ", ".join(methods), found.count, found.pearson.statistic,
                found.pearson.p, found.spearman.statistic, found.spearman.p, found.permuted,
                printed if is_papers else None,
            ]
        )  # fmt: skip
    return [cells(row) for row in rows]


def _of_groups(groups: Sequence[Scored]) -> Table:
    rows: list[list[Cell]] = []
    for group, own in groups:
        best = group.over(THREE, "best")
        found = statistics.trend(own, best)
        rows.append(
            [
                group.name, "+".join(group.members), max(own), min(known(best), default=None),
                found.pearson.statistic, found.pearson.p, None, found.spearman.statistic,
                found.permuted,
            ]
        )  # fmt: skip
    for row, p in zip(rows, statistics.holm([number(row[5]) for row in rows]), strict=True):
        row[6] = p
    heads = (
        "group", "adapters", "highest score", "worst of the best losses", "Pearson's r", "p",
        "Holm", "Spearman's ρ", "permutation p",
    )  # fmt: skip
    rows = [cells(row) for row in rows]
    note = "Each task's best loss over LA, TA and TIES, as in the paper's four groups."
    return Table("table-5-groups", "Table 5 of all groups of adapters", heads, rows, note)


def _distribution(table: Table) -> list[str]:
    r = np.array([number(row[4]) for row in table.rows])
    r = r[~np.isnan(r)]
    if not len(r):
        return ["No group of adapters has a correlation: too few losses are known."]
    p, holm, permuted = (
        np.array([number(row[place]) for row in table.rows]) for place in (5, 6, 8)
    )
    low, middle, high = np.quantile(r, (0.25, 0.5, 0.75))
    return [
        f"Over {len(r)} groups of adapters Pearson's r is {middle:+.2f} in the middle (quartiles"
        f" {low:+.2f} and {high:+.2f}), negative in {(r < 0).sum()}; significant at .05 in"
        f" {(p < 0.05).sum()} (by permutation {(permuted < 0.05).sum()}, after Holm"
        f" {(holm < 0.05).sum()}). The paper shows three groups, all of them significant."
    ]


def _words(rows: Sequence[Sequence[Cell]]) -> list[str]:
    found: dict[str, list[str]] = {}
    for row in rows:
        if not set(str(row[2]).split(", ")) <= set(THREE):
            continue
        if row[1] == "best":
            found[str(row[0])] = [
                f"best loss r {number(row[4]):+.2f}, {said(number(row[5]))}, by permutation"
                f" {said(number(row[8]))}"
            ]
        else:
            found[str(row[0])].append(f"{row[1]} {said(number(row[5]))}")
    papers = "The paper's four groups, of the best loss: p .0032, .0013, .0288 and .0059."
    return [*(f"{name}: {'; '.join(told)}." for name, told in found.items()), papers]


def _detail(group: Group, own: Sequence[float]) -> Table:
    methods = group.methods(METHODS)
    columns = [group.loss(method) for method in methods]
    columns += [group.over(THREE, how) for how in ("best", "mean", "worst")]
    scored = [score if np.isfinite(score) else "∞" for score in own]
    columns = [group.before, group.tuned, *columns]
    rows: list[list[Cell]] = [
        [member, scored[i], *(column[i] for column in columns)]
        for i, member in enumerate(group.members)
    ]
    heads = ("task", "MDS", "base", "own model", *methods, "best", "mean", "worst")
    name = "".join(letter if letter.isalnum() or letter in ".-" else "" for letter in group.name)
    note = "Scores of the base and of each own model, then losses in percent; the last three"
    note += " columns are over LA, TA and TIES."
    return Table(f"table-mds-{name}", f"Scores and losses, {group.name}", heads, rows, note)
