"""What did a study find? Its page: the paper's tables and figures, with what weakens them."""

from __future__ import annotations

import html
import importlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from mergecore import page
from mergecore.study import figures, report, sections
from mergecore.study.results import Results
from mergecore.study.sections import Section

_known: WeakKeyDictionary[Results, list[Section]] = WeakKeyDictionary()
_SHOWN = 12
"""Answers of each configuration that the page shows: a study has hundreds of configurations."""


def of(results: Results) -> list[Section]:
    """The sections of the study's own module, as far as its parts were run."""
    if results not in _known:
        name = f"mergecore.study.papers.{results.about['name']}"
        # A study of the user's own has its tables, and no page that reads them.
        own = str(results.about["name"])
        known = own.isidentifier() and importlib.util.find_spec(name) is not None
        _known[results] = importlib.import_module(f"{name}.page").sections(results) if known else []
    return _known[results]


def page_of(results: Results) -> str:
    """The whole page."""
    about = results.about
    title = f"{about['name']}: {about['title']}"
    paper = ", ".join(filter(None, (about["paper"], about["url"])))
    said = [*filter(None, (paper, str(about["about"]))), f"Models: {about['family']}."]
    failed = [
        f"{part}: {row['configuration']} failed: {row['error']}"
        for part, row in results.everything()
        if row["error"]
    ]
    parts = [report.STYLE, page.listed(said, failed), sections.as_html(of(results))]
    parts += [_parts(results), *_browsers(results)]
    return page.render(
        title, [*parts, _provenance(results), f"<script>{report.SORTING}</script>"], []
    )


def write(results: Results, folder: Path, formats: tuple[str, ...]) -> list[str]:
    """Writes every figure in these formats, and every table as CSV and LaTeX.

    Raises:
        RecipeError: The folder cannot be made.
        RunError: A file cannot be written.
    """
    found = of(results)
    drawn = figures.write_charts([c for section in found for c in section.charts], folder, formats)
    return [*drawn, *sections.write_tables(found, folder)]


def _parts(results: Results) -> str:
    """Every part's whole table, folded."""
    found = []
    for name, run in results.parts.items():
        about = next(entry for entry in results.about["parts"] if entry["name"] == name)
        head = f"{name}: {about['about']} ({len(run.table):,} configurations)"
        found.append(
            f"<details><summary>{html.escape(head)}</summary>"
            f'<div class="chart sortable">{report.table_of(run.table)}</div></details>'
        )
    return "<h2>All configurations</h2>" + "".join(found)


def _browsers(results: Results) -> Iterator[str]:
    answered = [run for run in results.parts.values() if run.about["stages"].get("generate")]
    if answered:
        yield report.browser(answered, _SHOWN)


def _provenance(results: Results) -> str:
    about: dict[str, Any] = {k: v for k, v in results.about.items() if k != "parts"}
    about["parts"] = {e["name"]: f"{e['seconds']:,.0f} s" for e in results.about["parts"]}
    text = json.dumps(about, indent=2, ensure_ascii=False)
    folded = f"<details><summary>settings</summary><pre>{html.escape(text)}</pre></details>"
    return f"<h2>Provenance</h2>{folded}"
