"""What is read off the runs of Cao et al.? Their tables and figures, each a question of its own."""

from __future__ import annotations

from mergecore.study.papers.collapse import (
    bounds,
    difficulty,
    groups,
    losses,
    pairs,
    recomputed,
    significance,
    tables,
)
from mergecore.study.results import Results
from mergecore.study.sections import Section


def sections(results: Results) -> list[Section]:
    """The paper's questions, as far as their parts were run, and its own numbers again."""
    families, adapters = losses.families(results), losses.adapters(results)
    measured = results.measured("eight")
    by_name = {one.of: one for one in measured}
    of_adapters = next(iter(results.measured("adapters")), None)
    paired = by_name.get(losses.paired(results) or "")
    replaced = losses.replaced(results)
    found = [
        tables.section(results, families),
        groups.shares(adapters),
        significance.section(families, adapters),
        pairs.section(losses.pairs(results), paired),
        difficulty.section(families, by_name, adapters, of_adapters),
        groups.replacements(replaced, adapters, of_adapters),
        bounds.section(measured, adapters, of_adapters),
        recomputed.section(),
    ]
    return [section for section in found if section is not None]
