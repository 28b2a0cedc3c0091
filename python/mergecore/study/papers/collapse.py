"""What is read off the runs of Cao et al.? Their tables and figures, each a question of its own."""

from __future__ import annotations

from mergecore.study.papers import (
    collapse_bounds,
    collapse_difficulty,
    collapse_groups,
    collapse_losses,
    collapse_pairs,
    collapse_recomputed,
    collapse_tables,
    collapse_tests,
)
from mergecore.study.results import Results
from mergecore.study.sections import Section


def sections(results: Results) -> list[Section]:
    """The paper's questions, as far as their parts were run, and its own numbers again."""
    families, adapters = collapse_losses.families(results), collapse_losses.adapters(results)
    measured = results.measured("eight")
    by_name = {one.of: one for one in measured}
    of_adapters = next(iter(results.measured("adapters")), None)
    paired = by_name.get(collapse_losses.paired(results) or "")
    replaced = collapse_losses.replaced(results)
    found = [
        collapse_tables.section(results, families),
        collapse_groups.shares(adapters),
        collapse_tests.section(families, adapters),
        collapse_pairs.section(collapse_losses.pairs(results), paired),
        collapse_difficulty.section(families, by_name, adapters, of_adapters),
        collapse_groups.replacements(replaced, adapters, of_adapters),
        collapse_bounds.section(measured, adapters, of_adapters),
        collapse_recomputed.section(),
    ]
    return [section for section in found if section is not None]
