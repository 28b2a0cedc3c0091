"""`mergecore report`: a run as one page."""

from __future__ import annotations

from pathlib import Path

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
    drawn = Path(figures) if figures else None
    if (Path(run).expanduser() / running.FILE).exists():
        study = results.load(run)
        page.check(place)
        page.write(findings.page_of(study), place)
        written = findings.write(study, drawn, formats) if drawn else []
    else:
        found = reports.load(run)
        page.check(place)
        page.write(reports.page_of(found), place)
        written = drawing.write(found, drawn, formats) if drawn else []
    if as_json:
        terminal.object_as_json({"page": str(place), "figures": written})
    elif not quiet:
        terminal.facts([("page", place), ("figures", len(written) or None)])
    if opened:
        click.launch(str(place.absolute()))
