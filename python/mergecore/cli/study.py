"""`mergecore study`: a paper's experiments, rerun by one command."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from mergecore.cli import options, terminal

if TYPE_CHECKING:
    from mergecore.study.estimate import Estimate


def _family(command: Any) -> Any:
    """The options that say on which models."""
    for option in (
        click.option("--models", metavar="DIR", help="The family's folder  [as the family says]"),
        click.option(
            "--family",
            default="paper",
            show_default=True,
            metavar="NAME|FILE.yml",
            help="Whose models: paper, pocket, or a file of yours",
        ),
    ):
        command = option(command)
    return command


@click.group()
def study() -> None:
    """Rerun a paper's experiments: as they were, or on other models.

    \b
    mergecore study list
    mergecore study check degeneration --family pocket
    mergecore study run degeneration --family pocket --out run
    """


@study.command(name="list")
@options.printing
def list_(as_json: bool, quiet: bool) -> None:
    """Name the studies and the families of models."""
    from mergecore.study import study as studies

    found = [studies.load(name) for name in studies.names()]
    if as_json:
        kept = ("name", "title", "paper", "url", "about")
        told = [{key: asdict(one)[key] for key in kept} for one in found]
        terminal.object_as_json({"studies": told, "families": studies.families()})
    elif not quiet:
        rows = [(one.name, f"{one.title} ({one.paper})") for one in found]
        terminal.table(("study", "paper"), rows)
        terminal.facts([("families", ", ".join(studies.families()))])


@study.command()
@click.argument("name", metavar="NAME")
@_family
@options.printing
def show(name: str, family: str, models: str | None, as_json: bool, quiet: bool) -> None:
    """Show a study's parts, and how many configurations each has."""
    from mergecore.study import running, spec
    from mergecore.study import study as studies

    asked = studies.load(name, family, models)
    found = []
    for key in asked.parts:
        part = running.ready(asked, key)
        entries = spec.parse(part.sweep, f"{asked.name}: {key}").configurations
        stages = [*part.sweep["stages"], *(k for m in part.measures for k in m if k != "of")]
        found.append((key, len(entries), list(dict.fromkeys(stages)), part.about))
    if as_json:
        keys = ("name", "configurations", "stages", "about")
        parts = [dict(zip(keys, part, strict=True)) for part in found]
        terminal.object_as_json({"name": asked.name, "title": asked.title, "parts": parts})
    elif not quiet:
        terminal.facts(
            [
                ("study", asked.title),
                ("paper", f"{asked.paper}, {asked.url}"),
                ("about", asked.about),
                ("models", asked.family),
            ]
        )
        rows = [(part, about, ", ".join(st), f"{count:,}") for part, count, st, about in found]
        total = ("in all", "", "", f"{sum(entry[1] for entry in found):,}")
        terminal.table(("part", "what", "stages", "configurations"), [*rows, total], 3)


@study.command()
@click.argument("name", metavar="NAME")
@_family
@options.printing
def check(name: str, family: str, models: str | None, as_json: bool, quiet: bool) -> int:
    """Find out what is missing, before anything is run.

    Looks at every model of the family: whether it is here, whether it is a child of the base that
    it is merged on, whether configs and vocabularies agree; then at disk and memory. Nothing is
    downloaded. The exit status is 1 if something is missing or does not fit.
    """
    from mergecore.study import check as checks
    from mergecore.study import study as studies

    found = checks.check(studies.load(name, family, models))
    if as_json:
        terminal.object_as_json(asdict(found))
    elif not quiet:
        for kin in found.kinship:
            terminal.say(kin)
        terminal.facts(
            [
                ("models", f"{found.models:,}, {found.away:,} of them not here"),
                ("configurations", f"{found.configurations:,}"),
                (
                    "disk",
                    f"{terminal.size(found.disk)} at a time, {terminal.size(found.free)} free",
                ),
                ("memory", f"{terminal.size(found.memory)} a merge" if found.memory else None),
            ]
        )
        terminal.remarks(found.notes, [*found.missing, *found.problems])
    return 1 if found.missing or found.problems else 0


@study.command()
@click.argument("name", metavar="NAME")
@_family
@click.option("--out", metavar="RUN/", help="The folder of the run  [./NAME-FAMILY]")
@click.option("--part", "parts", multiple=True, help="Only this part; repeatable")
@click.option("--limit", type=click.IntRange(1), help="Only so many prompts, and items of a task")
@click.option("--engine", type=click.Choice(("local", "ray")), default="local", show_default=True)
@click.option("--address", metavar="ADDRESS", help="Of the ray cluster  [one on this machine]")
@click.option("--jobs", type=click.IntRange(1), help="Configurations at a time  [the family's]")
@options.printing
def run(
    name: str,
    family: str,
    models: str | None,
    out: str | None,
    parts: tuple[str, ...],
    limit: int | None,
    engine: str,
    address: str | None,
    jobs: int | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run a study, and write its page: RUN/report.html.

    The same command goes on after an interruption. A configuration that fails is a row of its
    part's table.
    """
    from pathlib import Path

    from mergecore import page
    from mergecore.study import findings, results, running
    from mergecore.study import study as studies

    asked = studies.load(name, family, models)
    place = out or f"{asked.name}-{Path(family).stem}"
    shown = not (as_json or quiet)

    def foresee(part: str, told: Estimate) -> None:
        left = f"{told.left:,} of {told.configurations:,} configurations to do"
        time = "" if told.seconds is None else f", about {told.seconds:,.0f} s"
        terminal.say(f"{part}: {left}{time}", err=True)

    ran = running.run(
        asked,
        place,
        parts=parts,
        limit=limit,
        engine=engine,
        address=address,
        jobs=jobs,
        announce=(lambda what: terminal.say(what, err=True)) if shown else None,
        foresee=foresee if shown else None,
    )
    file = Path(place) / "report.html"
    page.check(file)
    page.write(findings.page_of(results.load(place)), file)
    if as_json:
        terminal.object_as_json({**asdict(ran), "page": str(file)})
    elif not quiet:
        done = ran.configurations - len(ran.failed)
        terminal.facts(
            [
                ("configurations", f"{ran.configurations:,}, {done:,} done"),
                ("time", f"{ran.seconds:,.0f} s"),
                ("page", file),
            ]
        )
        terminal.remarks([], [f"{who} failed: {why}" for who, why in ran.failed.items()])
    return 1 if ran.failed else 0
