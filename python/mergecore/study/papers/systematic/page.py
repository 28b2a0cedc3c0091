"""What is read off the runs of Hitit et al.? All that the paper shows, and its corrections."""

from __future__ import annotations

from mergecore.study.papers.systematic import (
    distance,
    matched,
    outperform,
    scale,
    separation,
    tasks,
)
from mergecore.study.papers.systematic.gains import of, shared
from mergecore.study.results import Results
from mergecore.study.sections import Section


def sections(results: Results) -> list[Section]:
    """The tables and figures of the parts that were run; what is missing is said at the end."""
    found = of(results)
    merges, dropped = shared([*found.part("subsets"), *found.part("matched")])
    made = []
    if merges:
        made += [
            outperform.over_the_base(found, merges),
            outperform.over_the_best(found, merges),
            distance.section(merges),
            matched.section(merges),
        ]
        if plain := [merge for merge in merges if not merge.matched]:
            made.append(tasks.section(found, plain))
    if any(found.part(part) for part in ("scale", "density", "boost")):
        made.append(scale.section(results, found))
    if separated := found.part("separation"):
        made.append(separation.section(separated))
    notes = list(found.notes)
    if dropped:
        notes.append(
            f"{dropped} merges are left out of the tables, as another method has none of their"
            " subset."
        )
    if not found.families:
        notes.insert(0, "No base was tested (part models), and gains are over the base.")
    return [*made, Section("What is missing", cautions=notes)] if notes else made
