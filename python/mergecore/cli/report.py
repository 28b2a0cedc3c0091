"""`mergecore report`: a run as one page."""

from __future__ import annotations

from pathlib import Path

import click

from mergecore.cli import options, terminal


@click.command()
@click.argument("run", metavar="RUN/")
@click.option("--out", metavar="FILE.html", help="The page  [RUN/report.html]")
@click.option("--figures", metavar="DIR", help="Write every figure as files, too")
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
    """Write what a sweep found as one HTML page that needs no network.

    Verdicts, curves with their intervals, tables that sort, and the answers of lowest reward with
    what is wrong with them.

    \b
    mergecore report run --open
    mergecore report run --figures figures --format pdf
    """
    from mergecore import page
    from mergecore.study import figures as drawing
    from mergecore.study import report as reports

    found = reports.load(run)
    place = Path(out) if out else found.folder / "report.html"
    page.check(place)
    page.write(reports.page_of(found), place)
    written = drawing.write(found, Path(figures), formats) if figures else []
    if as_json:
        terminal.object_as_json({"page": str(place), "figures": written})
    elif not quiet:
        terminal.facts([("page", place), ("figures", len(written) or None)])
    if opened:
        click.launch(str(place.absolute()))
