"""Does the method or the task decide what is lost? Table 3, by several tests and choices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mergecore.study import statistics
from mergecore.study.papers.collapse.losses import CORRECTED, Group
from mergecore.study.papers.collapse.published import METHODS, THREE
from mergecore.study.sections import Cell, Section, Table
from mergecore.study.statistics import Floats

CHOICES = {
    "the five": METHODS,
    "without DARE": tuple(method for method in METHODS if method != "DARE"),
    "LA, TA, TIES": THREE,
    "TIES and DARE at the norm of TA": ("LA", "TA", *CORRECTED[:2], "SLERP"),
}
HEADS = (
    "data", "methods", "number", "tasks", "two-way p of method", "Holm", "η²",
    "two-way p of task", "Holm", "η²", "one-way p of method", "one-way p of task",
    "Friedman p of method", "Kruskal p of method", "Kruskal p of task",
)  # fmt: skip
_NAMES = (
    "two-way, method", "two-way, task", "one-way, method", "one-way, task",
    "Friedman, method", "Kruskal, method", "Kruskal, task",
)  # fmt: skip
_SHOWN = 3
"""Groups of adapters that are shown in full, as in the paper."""


def section(families: Sequence[Group], adapters: Sequence[Group]) -> Section | None:
    """Table 3 and its corrections; None if nothing was merged by two methods."""
    rows = [row for title, choice in CHOICES.items() for row in _rows(families, title, choice)]
    of_groups = _rows(adapters, "LA, TA, TIES", THREE)
    if not rows and not of_groups:
        return None
    words, cautions = _of_families(rows), list(_cautions(families))
    tables = [
        Table(
            "table-3",
            "Table 3: methods against tasks",
            HEADS,
            [*rows, *of_groups[:_SHOWN]],
            "Two-way analysis of variance without replication, one-way, Friedman's and Kruskal and"
            " Wallis' tests, of the losses; η² is a factor's share of the sum of squares. Holm's p"
            " is over the rows of the same methods, of adapters over all groups.",
        )
    ]
    if len(of_groups) > 1:
        tables.append(_summary(of_groups))
        words.append(_of_groups(of_groups))
    return Section("RQ2: does the method or the task decide?", words, tables, (), cautions)


def tested(values: Floats) -> list[float]:
    """The p-values of `_NAMES` for a table of methods by tasks."""
    both = statistics.two_way(values)
    return [
        both.rows.p,
        both.columns.p,
        statistics.one_way(values).p,
        statistics.one_way(values.T).p,
        statistics.friedman(values).p,
        statistics.kruskal(values).p,
        statistics.kruskal(values.T).p,
    ]


def line(name: str, title: str, values: Floats) -> list[Cell]:
    """A row of the table, Holm's p not yet filled in."""
    both, p = statistics.two_way(values), tested(values)
    shares = both.rows.eta_squared, both.columns.eta_squared
    found: list[Cell] = [name, title, *values.shape]
    return cells([*found, p[0], None, shares[0], p[1], None, shares[1], *p[2:]])


def _rows(groups: Sequence[Group], title: str, choice: Sequence[str]) -> list[list[Cell]]:
    tables = [(group, group.table(choice)) for group in groups]
    found = [line(group.name, title, table[0]) for group, table in tables if table is not None]
    for column in (4, 7):
        adjusted = statistics.holm([number(row[column]) for row in found])
        for row, p in zip(found, adjusted, strict=True):
            row[column + 1] = None if p != p else p
    return found


def _of_families(rows: Sequence[Sequence[Cell]]) -> list[str]:
    found = [
        f"{row[0]}, {row[1]}: the method {said(number(row[4]))} ({share(row[6])} of the variance),"
        f" the task {said(number(row[7]))} ({share(row[9])})."
        for row in rows
        if row[1] != "LA, TA, TIES"
    ]
    return [
        *found,
        "The paper: no method matters, the task always does; its own tables give for Qwen2.5-7B"
        " p .00026 of the method, .020 without DARE (see the last section).",
    ]


def _of_groups(rows: Sequence[Sequence[Cell]]) -> str:
    methods = np.array([number(row[4]) for row in rows])
    tasks = np.array([number(row[7]) for row in rows])
    return (
        f"Of {len(rows)} groups of adapters the method is significant at .05 in"
        f" {(methods < 0.05).sum()} (median {said(float(np.nanmedian(methods)))}), the task in"
        f" {(tasks < 0.05).sum()} (median {said(float(np.nanmedian(tasks)))})."
    )


def _summary(rows: Sequence[Sequence[Cell]]) -> Table:
    places = (4, 7, *range(10, len(HEADS)))
    found: list[list[Cell]] = []
    for name, place in zip(_NAMES, places, strict=True):
        p = np.array([number(row[place]) for row in rows])
        holm = np.array(statistics.holm(list(p)))
        shares = [float((one < 0.05).sum()) / len(p) for one in (p, holm)]
        middle = float(np.nanmedian(p)) if not np.isnan(p).all() else None
        found.append(cells([name, len(p), middle, *shares]))
    heads = ("test and factor", "groups", "median p", "share below .05", "the same after Holm")
    note = "LA, TA and TIES in every group of adapters. Groups share adapters."
    return Table("table-3-groups", "Table 3: all groups of adapters", heads, found, note)


def cells(row: Sequence[Cell]) -> list[Cell]:
    """A row whose cells are empty where nothing is known."""
    return [None if cell != cell else cell for cell in row]


def number(cell: Cell) -> float:
    """A cell that is a number, NaN if it is empty."""
    return float("nan") if cell is None else float(cell)


def said(p: float) -> str:
    """`p .38`"""
    if p != p:
        return "p unknown"
    text = f"{p:.2g}"
    return f"p {text[1:] if text.startswith('0.') else text}"


def share(cell: Cell) -> str:
    """A share of the variance in percent."""
    return "?" if cell is None else f"{number(cell):.0%}"


def _cautions(families: Sequence[Group]) -> Iterator[str]:
    yield "One merge a cell: the interaction of method and task is the error term."
    for group in families:
        apart = [
            f"{one} and {other} by {float(np.abs(found[0][0] - found[0][1]).mean()):.1f}"
            for one, other in (("LA", "TA"), ("LA", "SLERP"))
            if (found := group.table((one, other))) is not None
        ]
        if apart:
            yield (
                f"{group.name}: mean losses of a task differ between {', '.join(apart)} points:"
                " methods that are nearly one merge are counted as several."
            )
