"""`mergecore report`: a run as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mergecore.cli import options, terminal


@click.command()
@click.argument("run", metavar="RUN/")
@click.option("--out", metavar="FILE.html", help="The page  [RUN/report.html]")
@click.option("--figures", metavar="DIR", help="Write every figure, and a study's tables, as files")
@click.option(
    "--format",
    "formats",
    type=click.Choice(("svg", "png", "pdf")),
    multiple=True,
    default=("svg",),
    show_default=True,
    help="Of the figures; repeatable",
)
@click.option("--open", "opened", is_flag=True, help="Show it in a browser")
@options.printing
def report(
    run: str,
    out: str | None,
    figures: str | None,
    formats: tuple[str, ...],
    opened: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write what a sweep or a study found as one HTML page that needs no network.

    Verdicts, curves with their intervals, tables that sort, and the answers of lowest reward with
    what is wrong with them.

    \b
    mergecore report run --open
    mergecore report run --figures figures --format pdf
    """
    from mergecore import page
    from mergecore.study import figures as drawing
    from mergecore.study import findings, results, running
    from mergecore.study import report as reports

    place = Path(out) if out else Path(run).expanduser() / "report.html"
    load: Any = reports.load
    page_of: Any = reports.page_of
    write: Any = drawing.write
    if (Path(run).expanduser() / running.FILE).exists():
        load, page_of, write = results.load, findings.page_of, findings.write
    found = load(run)
    page.check(place)
    page.write(page_of(found), place)
    written = write(found, Path(figures), formats) if figures else []
    if as_json:
        terminal.object_as_json({"page": str(place), "figures": written})
    elif not quiet:
        terminal.facts([("page", place), ("figures", len(written) or None)])
    if opened:
        click.launch(str(place.absolute()))
