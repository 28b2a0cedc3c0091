"""Which method is the better one at the same distance? Rankings, and tests of pairs of merges."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mergecore.diagnose.association import spearman
from mergecore.evaluate.intervals import mcnemar, mean_interval
from mergecore.study.papers.systematic.charts import shown
from mergecore.study.papers.systematic.gains import METHODS, Merge
from mergecore.study.sections import Cell, Section, Table
from mergecore.study.statistics import holm

_SAME = 1e-9
"""Means over tasks that are the same differ in the last bits."""


def section(merges: Sequence[Merge]) -> Section:
    """Every method beside TA on the same subsets, as it is and at TA's distance.

    Args:
        merges: Of the same subsets for all methods.
    """
    plain = [merge for merge in merges if not merge.matched]
    matched = [merge for merge in merges if merge.matched]
    words, cautions = [], []
    table = _paired(plain, matched)
    own = _ranking(plain)
    words.append(f"By the mean gain over all subsets: {_ordered(own)}.")
    if matched:
        same = _ranking([*matched, *_of(plain, "TA")])
        words.append(f"At the norm of the mean task vector: {_ordered(same)}.")
        both = [method for method in own if method in same]
        if len(both) > 2 and len(set(own.values())) > 1 and len(set(same.values())) > 1:
            rho = spearman([own[m] for m in both], [same[m] for m in both]).statistic
            words.append(
                f"The two orders agree by Spearman's ρ = {rho:+.2f} of {len(both)} methods."
            )
        words.append(f"Norms are matched to {_mismatch(plain, matched):.2g} of TA's at the worst.")
        for method in both:
            if method != "TA":
                cautions.append(
                    f"At the same norm {method} gains {same[method]:+.2f} points on average instead"
                    f" of {own[method]:+.2f}; TA gains {own.get('TA', float('nan')):+.2f}."
                )
        words.append(
            "The paper concludes that only TA reliably gains. But TA is a mean of task vectors,"
            " TIES the mean of those that agree, TSV-M and Iso-C are of their sum: steps differ in"
            " size, and size and direction are not told apart."
        )
    else:
        words.append("Nothing was norm-matched: the part matched is missing.")
    cautions.append(
        "Pairs of merges share fine-tunes, which the tests take for independent: their p is too"
        " small."
    )
    tables = [table] if table.rows else []
    return Section("What is left at the same distance?", words, tables, (), cautions)


def _of(merges: Sequence[Merge], method: str) -> list[Merge]:
    return [merge for merge in merges if merge.method == method]


def _ranking(merges: Sequence[Merge]) -> dict[str, float]:
    """Mean gains by method, the highest first."""
    means = {m: float(np.mean([g.gain for g in _of(merges, m)])) for m in shown(merges)}
    return dict(sorted(means.items(), key=lambda entry: -entry[1]))


def _ordered(means: dict[str, float]) -> str:
    return ", ".join(f"{method} ({mean:+.2f})" for method, mean in means.items())


def _mismatch(plain: Sequence[Merge], matched: Sequence[Merge]) -> float:
    lengths = {(m.family, m.members): m.length for m in _of(plain, "TA")}
    found = [
        abs(merge.length / wanted - 1)
        for merge in matched
        if merge.length and (wanted := lengths.get((merge.family, merge.members)))
    ]
    return max(found, default=float("nan"))


def _paired(plain: Sequence[Merge], matched: Sequence[Merge]) -> Table:
    gains = {(m.family, m.members): m.gain for m in _of(plain, "TA")}
    rows: list[list[Cell]] = []
    heads = ["merges", "method", "pairs", "mean difference"]
    for kind, merges in (("as they are", plain), ("norm-matched", matched)):
        made: list[list[Cell]] = []
        ps = []
        for method in METHODS:
            pairs = [
                gains[m.family, m.members] - m.gain
                for m in _of(merges, method)
                if method != "TA" and (m.family, m.members) in gains
            ]
            if pairs:
                low, high = mean_interval(pairs) or (None, None)
                better, worse = sum(d > _SAME for d in pairs), sum(d < -_SAME for d in pairs)
                ps.append(mcnemar(better, worse))  # of pairs, it is the sign test
                mean = float(np.mean(pairs))
                made.append([kind, method, len(pairs), mean, low, high, better, worse, ps[-1]])
        adjusted = holm(ps) if ps else []
        rows += [[*row, p] for row, p in zip(made, adjusted, strict=True)]
    return Table(
        "table-paired",
        "TA less each method, on the same subsets",
        [*heads, "low", "high", "TA better", "TA worse", "p", "Holm's p"],
        rows,
        "Points. Intervals: bootstrap over pairs. p: the exact sign test, two-sided;"
        " Holm's is adjusted for the methods.",
    )  # fmt: skip
