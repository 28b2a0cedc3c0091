"""What is read off the runs of Hitit et al.? All that the paper shows, and its corrections."""

from __future__ import annotations

from mergecore.study.papers import (
    systematic_base,
    systematic_distance,
    systematic_matched,
    systematic_scale,
    systematic_separation,
    systematic_tasks,
)
from mergecore.study.papers.systematic_gains import of, shared
from mergecore.study.results import Results
from mergecore.study.sections import Section


def sections(results: Results) -> list[Section]:
    """The tables and figures of the parts that were run; what is missing is said at the end."""
    found = of(results)
    merges, dropped = shared([*found.part("subsets"), *found.part("matched")])
    made = []
    if merges:
        made += [
            systematic_base.over_the_base(found, merges),
            systematic_base.over_the_best(found, merges),
            systematic_distance.section(merges),
            systematic_matched.section(merges),
        ]
        if plain := [merge for merge in merges if not merge.matched]:
            made.append(systematic_tasks.section(found, plain))
    if any(found.part(part) for part in ("scale", "density", "boost")):
        made.append(systematic_scale.section(results, found))
    if separated := found.part("separation"):
        made.append(systematic_separation.section(separated))
    notes = list(found.notes)
    if dropped:
        notes.append(
            f"{dropped} merges are left out of the tables, as another method has none of their"
            " subset."
        )
    if not found.families:
        notes.insert(0, "No base was tested (part models), and gains are over the base.")
    return [*made, Section("What is missing", cautions=notes)] if notes else made
