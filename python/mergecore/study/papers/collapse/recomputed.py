"""What do the paper's own numbers say when they are computed again?"""

from __future__ import annotations

import numpy as np

from mergecore.diagnose import association
from mergecore.study import statistics
from mergecore.study.papers.collapse import published
from mergecore.study.papers.collapse.answers import adjusted
from mergecore.study.papers.collapse.significance import HEADS, line, number, said
from mergecore.study.sections import Cell, Section, Table

_NEAR = 0.06
"""Points: what a digit leaves open."""


def section() -> Section:
    """The published tables' means, tests and correlations, from their own cells."""
    tests, scores = _tests(), _scores()
    seven = next(row for row in tests.rows if row[:2] == ["qwen2.5-7b", "the five"])
    without = next(row for row in tests.rows if row[:2] == ["qwen2.5-7b", "without DARE"])
    b = next(row for row in tests.rows if row[0] == "(b)")
    right = scores.rows[-1]
    ranks = ", ".join(said(number(scores.rows[place][5]))[2:] for place in (3, 6, 9))
    constant, cells = _constant()
    words = [
        "The deviations of table 1 are the population's (ddof 0) over eight tasks.",
        "Table 3's “the method does not matter” holds for Qwen2.5-3B, 14B, and groups (a) and (c);"
        f" not for 7B ({said(number(seven[4]))}, without DARE {said(number(without[4]))}) and not"
        f" for group (b) ({said(number(b[4]))}).",
        "Table 5's p-values come back when a task's loss is the best over LA, TA and TIES. Ranks do"
        f" not bear them out: Spearman's p of groups (a), (b) and (c) are {ranks}; and counting all"
        f" orders gives group (b) {said(number(scores.rows[6][6]))}.",
        "The last three of the GLUE detail table's TIES row are DARE's of table 2; with its own"
        f" row p is {said(number(right[3]))[2:]} instead of .0032.",
        f"{constant} of {cells} accuracies of table 2 are what a model reaches that gives every"
        " question the same label.",
    ]
    return Section("The published numbers, computed again", words, [_means(), tests, scores])


def _means() -> Table:
    rows: list[list[Cell]] = []
    for family, tuned in published.TUNED.items():
        for place, method in enumerate(published.METHODS):
            merged = published.MERGED[family][method]
            again = association.mean_and_deviation(published.LOSSES[family][method])
            above = [
                adjusted(now, own, chance)
                for now, own, chance in zip(merged, tuned, published.COMMONEST, strict=True)
            ]
            known = [loss for loss in above if loss is not None]
            mean, constant = -sum(known) / len(known), sum(_is_constant(merged))
            printed = published.MEANS[family][place]
            rows.append([family, method, *printed, *again, mean, constant])
    heads = (
        "family", "method", "printed mean", "printed ±", "mean again", "± again",
        "mean above chance", "constant answers",
    )  # fmt: skip
    note = (
        "From table 2's losses. Above chance as in table 1 here, chance being the commonest label"
        " of GLUE's validation sets; constant answers: tasks whose accuracy is a label's share."
    )
    return Table("published-1", "Table 1 from table 2", heads, rows, note)


def _tests() -> Table:
    rows: list[list[Cell]] = []
    for family, tuned in published.TUNED.items():
        for title, methods in (
            ("the five", published.METHODS),
            ("without DARE", tuple(m for m in published.METHODS if m != "DARE")),
        ):
            losses = [
                association.merging_loss(published.MERGED[family][method], tuned)
                for method in methods
            ]
            rows.append(line(family, title, np.array(losses)))
    for name, table in published.DETAILS.items():
        rows.append(line(name, "LA, TA, TIES", np.array(list(table.values()))))
    kept = [place for place, head in enumerate(HEADS) if head != "Holm"]
    note = "From table 2's accuracies and the four detail tables; printed values are not known."
    shown = [[row[place] for place in kept] for row in rows]
    heads = [HEADS[place] for place in kept]
    return Table("published-3", "Table 3 from table 2 and the details", heads, shown, note)


def _scores() -> Table:
    rows: list[list[Cell]] = []
    for name, table in published.DETAILS.items():
        rows += _of(name, np.array(list(table.values())), published.SCORES_P[name])
    own = published.LOSSES["qwen2.5-3b"]
    right = np.array([own[method] for method in published.THREE])
    rows += _of("GLUE, TIES of table 2", right, None)[1:]
    rows += _of("GLUE, five methods", np.array(list(own.values())), None)[:1]
    rows.append(_of("GLUE, TIES of table 2", right, None)[0])
    heads = ("group", "a task's loss", "printed p", "p", "r", "Spearman's p", "permutation p")
    note = "Pearson's, n = 8, with the printed scores; the last row has the TIES of table 2."
    return Table("published-5", "Table 5 from the details", heads, rows, note)


def _of(name: str, losses: statistics.Floats, printed: float | None) -> list[list[Cell]]:
    scores = published.SCORES["GLUE" if name.startswith("GLUE") else name]
    rows: list[list[Cell]] = []
    for how, over in (("best", losses.max(0)), ("mean", losses.mean(0)), ("worst", losses.min(0))):
        found = statistics.trend(scores, list(over))
        rows.append(
            [
                name, how, printed if how == "best" else None, found.pearson.p,
                found.pearson.statistic, found.spearman.p, found.permuted,
            ]
        )  # fmt: skip
    return rows


def _constant() -> tuple[int, int]:
    every = [
        _is_constant(merged) for table in published.MERGED.values() for merged in table.values()
    ]
    return sum(map(sum, every)), sum(map(len, every))


def _is_constant(merged: list[float]) -> list[bool]:
    """Whether an accuracy is the commonest label's share or, of two, the other's; or nothing."""
    return [
        abs(now - often) < _NEAR or (classes == 2 and abs(100 - often - now) < _NEAR)
        for now, often, classes in zip(merged, published.COMMONEST, published.CLASSES, strict=True)
    ]
