"""`mergecore sweep`: many merges, each evaluated, in one table."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mergecore.cli import options, terminal

if TYPE_CHECKING:
    from mergecore.study.estimate import Estimate
    from mergecore.study.spec import Sweep


@click.command()
@click.argument("spec", metavar="SPEC.yml")
@click.option("--out", metavar="RUN/", help="The folder of the run  [./SPEC]")
@click.option("--limit", type=click.IntRange(1), help="Only so many prompts, from the first")
@click.option(
    "--engine",
    type=click.Choice(("local", "ray")),
    default="local",
    show_default=True,
    help="ray runs over a cluster whose nodes share RUN/",
)
@click.option("--address", metavar="ADDRESS", help="Of the ray cluster  [one on this machine]")
@click.option("--jobs", type=click.IntRange(1), default=1, help="Configurations at a time  [1]")
@click.option("--keep", is_flag=True, help="Keep the merged weights")
@click.option("--dry-run", is_flag=True, help="Only say what it would take")
@options.printing
def sweep(
    spec: str,
    out: str | None,
    limit: int | None,
    engine: str,
    address: str | None,
    jobs: int,
    keep: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run many merges and evaluate each.

    SPEC.yml names models, merges with a grid of values, and stages. The same command goes on after
    an interruption, and only what changed is run again. A merge that fails is a row of the table.

    \b
    mergecore sweep sweep.yml --out run
    mergecore sweep sweep.yml --dry-run
    """
    from dataclasses import replace
    from pathlib import Path

    from mergecore.study import spec as specs
    from mergecore.study import sweep as sweeps

    asked = specs.load(spec)
    if limit is not None and asked.answers is not None:
        asked = replace(asked, answers=replace(asked.answers, limit=limit))
    asked = replace(asked, keep=asked.keep or keep)
    place = out or Path(spec).stem
    shown = not (as_json or quiet)
    if dry_run:
        _dry_run(asked, place, as_json, quiet)
        return 0
    swept = sweeps.run(
        asked,
        place,
        engine=engine,
        address=address,
        jobs=jobs,
        announce=(lambda what: terminal.say(what, err=True)) if shown else None,
        foresee=_foresee if shown else None,
    )
    if as_json:
        terminal.object_as_json(asdict(swept))
    elif not quiet:
        _show(swept.table)
        done = swept.configurations - len(swept.failed)
        terminal.facts(
            [
                ("configurations", f"{swept.configurations:,}, {done:,} done"),
                ("time", f"{swept.seconds:,.0f} s"),
                ("table", swept.table),
            ]
        )
    return 1 if swept.failed else 0


def _dry_run(asked: Sweep, place: str, as_json: bool, quiet: bool) -> None:
    from pathlib import Path

    from mergecore.study import estimate, work
    from mergecore.study.sweep import judge_of

    told = estimate.estimate(work.Work(asked, Path(place), judge_of(asked.judging)))
    if as_json:
        terminal.object_as_json(asdict(told))
    elif not quiet:
        _foresee(told)


def _foresee(told: Estimate) -> None:
    seconds = told.seconds
    terminal.facts(
        [
            ("configurations", f"{told.configurations:,}, {told.left:,} to do"),
            ("merges", f"{told.merges:,}: {terminal.size(told.bytes_to_read)} to read"),
            ("disk", f"{terminal.size(told.disk)} at a time, {terminal.size(told.free)} free"),
            ("memory", f"{terminal.size(told.memory)} a merge" if told.memory else None),
            ("time", None if seconds is None else f"about {seconds:,.0f} s, as those done took"),
        ]
    )
    terminal.remarks([], [f"{name}: {why}" for name, why in told.impossible.items()])


def _show(table: str) -> None:
    import pyarrow.parquet as pq

    rows = pq.read_table(table).to_pylist()
    tasks = [key for key in rows[0] if key.startswith("task.") and f"{key}_n" in rows[0]]
    columns = ["delta_norm", "reward", "degeneration_of_lowest", "degeneration", *tasks]
    columns = [key for key in columns if any(row[key] is not None for row in rows)]
    titles = {"delta_norm": "‖Δ‖", "degeneration_of_lowest": "degenerate, of the lowest"}
    titles |= {"degeneration": "of all", **{key: key[len("task.") :] for key in tasks}}
    terminal.table(
        ("configuration", *(titles.get(key, key) for key in columns)),
        [(row["configuration"], *(_cell(row, key) for key in columns)) for row in rows],
        1,
    )
    failed = [f"{row['configuration']} failed: {row['error']}" for row in rows if row["error"]]
    terminal.remarks([], failed)


def _cell(row: dict[str, object], key: str) -> str:
    value = row[key]
    return "–" if not isinstance(value, int | float) else f"{value:.3g}"
