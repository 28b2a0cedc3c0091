"""Which numbers has the paper? Means over its four bases, beside which a run's own are put."""

from __future__ import annotations

from collections.abc import Sequence

from mergecore.study.papers.systematic.gains import METHODS, Merge, summary
from mergecore.study.sections import Cell, Table

SIZES = (2, 4, 6, 8, 10, 12)
SHARES: dict[str, dict[int, float]] = {
    "TA": {2: 49, 4: 88, 6: 100, 8: 100, 10: 100, 12: 100},
    "Model Stock": {2: 53, 4: 77, 6: 82, 8: 82, 10: 80, 12: 100},
    "TIES": {2: 31, 4: 12, 6: 5, 8: 5, 10: 3, 12: 0},
    "TA+SB": {2: 23, 4: 58, 6: 63, 8: 86, 10: 98, 12: 100},
    "TIES+SB": {2: 20, 12: 0},
    "TSV-M": {2: 22, 12: 0},
    "Iso-C": {2: 33, 12: 0},
}
"""Percent of subsets whose merge beats the base."""
GAINS: dict[str, dict[int, float]] = {
    "TA": {2: -0.02, 4: 0.50, 6: 0.74, 8: 0.87, 10: 0.93, 12: 1.02},
    "Model Stock": {2: 0.02, 4: 0.06, 6: 0.09, 8: 0.10, 10: 0.11, 12: 0.13},
    "TIES": {2: -0.63, 4: -1.74, 6: -2.67, 8: -3.27, 10: -3.53, 12: -4.32},
    "TA+SB": {2: -4.52, 4: -2.55, 6: -0.37, 8: 0.43, 10: 0.89, 12: 1.07},
    "TIES+SB": {2: -1.61, 12: -8.67},
    "TSV-M": {2: -1.41, 12: -2.36},
    "Iso-C": {2: -0.47, 12: -5.36},
}
"""Percentage points over the base."""
BASES = {"llama-3.2-3b": 50.3, "llama-3.1-8b": 56.9, "qwen3-4b": 55.3, "qwen3-8b": 58.8}
BEST = {"llama-3.2-3b": 50.4, "llama-3.1-8b": 59.0, "qwen3-4b": 54.5, "qwen3-8b": 58.1}
"""The best fine-tune's accuracy, of which it is not said among which."""
PARAMETERS = (3.21e9, 8.19e9)
"""Of the smallest and the largest of its bases."""
SAFE, FAILING = 50.0, (100.0, 300.0)
"""‖output − base‖₂ below which merges are said to work, and within which to fail."""


def beside(merges: Sequence[Merge]) -> tuple[Table, str] | None:
    """The paper's numbers beside a run's, and how often their signs agree; None of no merges."""
    rows: list[list[Cell]] = []
    agree = count = 0
    for method in METHODS:
        for size in SIZES:
            own = [m.gain for m in merges if (m.method, m.size, m.matched) == (method, size, False)]
            if size not in GAINS[method] or not own:
                continue
            found, gain = summary(own), GAINS[method][size]
            same = (found.mean > 0) == (gain > 0)
            agree, count = agree + same, count + 1
            share = SHARES[method][size]
            rows.append(
                [method, size, share, 100 * found.share, gain, found.mean, "yes" if same else "no"]
            )
    if not rows:
        return None
    heads = ("method", "n", "paper: % above base", "here: % above base")
    table = Table(
        "table-published",
        "The paper's numbers beside these",
        (*heads, "paper: gain", "here: gain", "same sign of the gain"),
        rows,
        "Averages over families. Other models, tasks and subsets: the paper's subsets were not"
        " published, and of TIES+SB, TSV-M and Iso-C only the ends are at hand.",
    )
    signs = f"The mean gain has the sign that the paper reports in {agree} of {count} cells"
    return table, f"{signs} (method × n)."


def accuracies(families: dict[str, float], best: dict[str, float]) -> Table | None:
    """The paper's accuracies of bases and best fine-tunes; None if none of its bases was run."""
    rows: list[list[Cell]] = [
        [name, BASES[name], families[name], BEST[name], best.get(name)]
        for name in BASES
        if name in families
    ]
    heads = ("base", "paper: base", "here", "paper: best fine-tune", "here: best of all")
    note = "Percent. For both Qwen bases the paper's best fine-tune is below the base."
    return Table("table-bases", "Accuracies of the bases", heads, rows, note) if rows else None
