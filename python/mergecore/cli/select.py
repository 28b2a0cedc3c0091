"""`mergecore select`: which of these models make the best group?"""

from __future__ import annotations

import os
from typing import Any

import click

from mergecore.cli import options, terminal
from mergecore.cli.probing import Probing, score
from mergecore.cli.probing import options as probing_options


@click.command()
@click.argument("models", metavar="MODEL MODEL...", nargs=-1, required=True)
@click.option("--keep", type=int, required=True, help="How many")
@probing_options
@options.printing
def select(
    models: tuple[str, ...],
    keep: int,
    probing: Probing,
    as_json: bool,
    quiet: bool,
) -> None:
    """Choose the models that go best together, by their hidden states.

    The group of --keep models whose worst merging difficulty score is lowest; and, were the first
    --keep models to be merged, whom to drop and whom to put in the place.

    \b
    mergecore select a b c d e --keep 3 --probe probes.jsonl
    """
    from mergecore.diagnose import selection

    if not 2 <= keep <= len(models):
        raise click.UsageError(f"--keep is {keep}: it must be from 2 to {len(models)}")
    if twice := [model for model in models if models.count(model) > 1]:
        raise click.UsageError(f"{twice[0]} is given twice: a group has each model once")
    found = probing.of(models, shown=not (as_json or quiet))
    chosen = selection.select(found.distances, keep)
    names = [os.fspath(model) for model in models]

    def told(group: selection.Group) -> list[dict[str, Any]]:
        return [
            {"model": names[i], "score": float(s) if s != float("inf") else None}
            for i, s in zip(group.members, group.scores, strict=True)
        ]

    replacement = None if chosen.replacement is None else names[chosen.replacement]
    if as_json:
        terminal.object_as_json(
            {
                "keep": keep,
                "best": told(chosen.best),
                "exact": chosen.exact,
                "given": told(chosen.given),
                "drop": names[chosen.dropped],
                "replacement": replacement,
                "replaced": None if chosen.replaced is None else told(chosen.replaced),
            }
        )
        return
    if quiet:
        return
    best = set(chosen.best.members)
    alone = found.difficulty
    rows = [
        (
            name,
            "kept" if i in best else "",
            score(chosen.best.scores[chosen.best.members.index(i)]) if i in best else "",
            score(alone[i]),
        )
        for i, name in enumerate(names)
    ]
    terminal.table(("model", "", "MDS in the group", "MDS among all"), rows, numbers_from=2)
    worst = score(chosen.given.worst)
    lines = (
        [] if chosen.exact else ["too many groups to look at each: this one was sought by swaps"]
    )
    if set(chosen.given.members) != best:
        first = (
            f"of the first {keep}, {names[chosen.dropped]} is the one to drop (worst MDS {worst}"
        )
        if chosen.replaced is None:
            lines.append(f"{first}); no other model in its place makes it better")
        else:
            better = score(chosen.replaced.worst)
            lines.append(f"{first}); with {replacement} in its place it is {better}")
    terminal.remarks(lines, [])
