"""Do conflicts of parameters, or distances of states, tell what a pair loses? Table 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mergecore.diagnose.bounds import Floats
from mergecore.study import statistics
from mergecore.study.measures import CONFLICTS, Measured
from mergecore.study.papers.collapse import charts
from mergecore.study.papers.collapse.losses import Group, known
from mergecore.study.papers.collapse.published import METHODS, PAIRS
from mergecore.study.papers.collapse.significance import cells, number, said
from mergecore.study.sections import Cell, Section, Table

TITLES = {
    "magnitude_change": "magnitude change",
    "sign_change": "sign change",
    "conflicting_magnitude_change": "conflicting magnitude change",
    "cosine": "cosine",
    "similarity": "hidden similarity",
}
HEADS = (
    "metric", "method", "pairs", "Pearson's r", "p", "Holm", "Spearman's ρ", "p of ρ",
    "Mantel p", "paper's p",
)  # fmt: skip


def section(pairs: Sequence[Group], measured: Measured | None) -> Section | None:
    """Table 4; None if no pair was merged."""
    if not pairs:
        return None
    title = "RQ3: what tells the loss of a pair?"
    if measured is None:
        caution = "Nothing was measured of these models: run the part eight, too."
        return Section(title, cautions=[caution])
    metrics = metrics_of(measured)
    lost = {method: losses(pairs, measured.names, method) for method in METHODS}
    lost = {method: table for method, table in lost.items() if not np.isnan(table).all()}
    rows = _rows(metrics, lost)
    table = Table(
        "table-4", "Table 4: conflict metrics against a pair's mean loss", HEADS, rows,
        "Over pairs of models of one base. Holm's p is over all rows. Mantel's permutes the"
        " models, as pairs that share one are not independent; the published p-values take"
        " them for independent.",
    )  # fmt: skip
    drawn = [charts.pairs(metrics["similarity"], lost, measured.names)] if lost else []
    undefined = sum(one is None for g in pairs for m in g.methods(METHODS) for one in g.loss(m))
    cautions = [
        f"{len(pairs)} pairs of {len(measured.names)} models: each model is in"
        f" {len(measured.names) - 1} of them, so that Pearson's p is too small; Mantel's is not.",
        "A pair's loss is mostly that of its worse task: a metric that tells tasks apart needs to"
        " tell nothing of pairs to correlate.",
    ]
    if undefined:
        cautions.append(f"{undefined} losses of a task in a pair are not known or not defined.")
    return Section(title, _words(rows, metrics), [table], drawn, cautions)


def metrics_of(measured: Measured) -> dict[str, Floats]:
    """The five metrics of every pair, N × N, as far as they were measured."""
    found = {key: measured.conflicts[key] for key in CONFLICTS if key in measured.conflicts}
    if measured.states is not None:
        found["similarity"] = measured.states.similarity
    return found


def losses(pairs: Sequence[Group], names: Sequence[str], method: str) -> Floats:
    """The mean loss of each pair, N × N; NaN where a loss is not known."""
    found = np.full((len(names), len(names)), np.nan)
    for group in pairs:
        lost = known(group.loss(method))
        if len(lost) < 2 or not set(group.members) <= set(names):
            continue
        i, j = (names.index(name) for name in group.members)
        found[i, j] = found[j, i] = sum(lost) / len(lost)
    return found


def _rows(metrics: Mapping[str, Floats], lost: Mapping[str, Floats]) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for metric, values in metrics.items():
        for method, table in lost.items():
            upper = np.triu_indices(len(table), 1)
            found = statistics.trend(list(values[upper]), list(table[upper]))
            rows.append(
                [
                    TITLES[metric], method, found.count, found.pearson.statistic, found.pearson.p,
                    None, found.spearman.statistic, found.spearman.p,
                    statistics.mantel(values, table).p, PAIRS[metric].get(method),
                ]
            )  # fmt: skip
    adjusted = statistics.holm([number(row[4]) for row in rows])
    for row, p in zip(rows, adjusted, strict=True):
        row[5] = p
    return [cells(row) for row in rows]


def _words(rows: Sequence[Sequence[Cell]], metrics: Mapping[str, Floats]) -> list[str]:
    found = []
    for kind, claim in (("conflicts", "0 of 20"), ("hidden similarity", "4 of 5")):
        own = [row for row in rows if (row[0] == "hidden similarity") != (kind == "conflicts")]
        if not own:
            continue
        ways = (("by Pearson's p", 4), ("by Mantel", 8), ("after Holm", 5))
        told = ", ".join(
            f"{sum(number(row[place]) < 0.05 for row in own)} {how}" for how, place in ways
        )
        found.append(
            f"Of {len(own)} correlations of {kind} with the loss these are significant at .05:"
            f" {told}; the paper: {claim}."
        )
    if "similarity" in metrics:
        each = [
            f"{row[1]} the paper {said(number(row[9]))}, here {said(number(row[4]))}"
            f" (r {number(row[3]):+.2f}, Mantel {said(number(row[8]))})"
            for row in rows
            if row[0] == "hidden similarity"
        ]
        found.append(f"Hidden similarity: {'; '.join(each)}.")
    return found
