"""What is a finding made of? A heading, sentences, tables and figures; on a page or as files."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from mergecore import page
from mergecore.errors import RecipeError, RunError
from mergecore.page import Chart

Cell: TypeAlias = str | float | int | None

_FOLDED = 24
"""Rows beyond which a table is folded: pages are read from top to bottom."""


@dataclass(frozen=True)
class Table:
    """Rows under heads; numbers stay numbers, None is an empty cell."""

    name: str
    """Of its files: `table-1`."""
    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A question of the paper and what was found."""

    title: str
    words: Sequence[str] = ()
    """Sentences; what was measured, not what was expected."""
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    cautions: Sequence[str] = field(default=())
    """What weakens the finding."""


def as_html(sections: Iterable[Section]) -> str:
    """The sections as a part of a page."""
    found, number = [], 0
    for section in sections:
        found.append(f"<h2>{html.escape(section.title)}</h2>")
        found.append(page.listed(section.words, section.cautions))
        for table in section.tables:
            cells = [[text(cell) for cell in row] for row in table.rows]
            shown = f'<div class="chart sortable">{page.table(table.heads, cells)}</div>'
            if len(cells) > _FOLDED:
                shown = f"<details><summary>{len(cells)} rows</summary>{shown}</details>"
            note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
            found.append(f"<h3>{html.escape(table.title)}</h3>{note}{shown}")
        for chart in section.charts:
            number += 1
            found.append(page.drawn(f"s{number}", chart, level=3))
    return "\n".join(found)


def as_csv(table: Table) -> str:
    """The table with all digits."""
    made = io.StringIO()
    writer = csv.writer(made, lineterminator="\n")
    writer.writerow(table.heads)
    writer.writerows([["" if cell is None else cell for cell in row] for row in table.rows])
    return made.getvalue()


def as_latex(table: Table) -> str:
    """The table as a `tabular` of booktabs."""
    lines = [r"\begin{tabular}{l" + "r" * (len(table.heads) - 1) + "}", r"\toprule"]
    lines += [" & ".join(map(latex, table.heads)) + r" \\", r"\midrule"]
    lines += [" & ".join(latex(text(cell)) for cell in row) + r" \\" for row in table.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def write_tables(sections: Iterable[Section], folder: Path) -> list[str]:
    """Writes every table as CSV and LaTeX.

    Raises:
        RecipeError: The folder cannot be made.
        RunError: A file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecipeError(f"{folder}: {(error.strerror or str(error)).lower()}") from error
    found = []
    for table in (table for section in sections for table in section.tables):
        for ending, content in ((".csv", as_csv(table)), (".tex", as_latex(table))):
            # Names of families may be hub ids.
            file = folder / f"{table.name.replace('/', '-')}{ending}"
            try:
                file.write_text(content, "utf-8")
            except OSError as error:
                raise RunError(f"{file}: {(error.strerror or str(error)).lower()}") from error
            found.append(str(file))
    return found


def text(cell: Cell) -> str:
    """A cell as it is read: four digits of a number."""
    return "" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def latex(words: str) -> str:
    """Words with what LaTeX would take for commands escaped."""
    marks = {"\\": r"\textbackslash{}", "‖": r"$\|$", "~": r"\textasciitilde{}"}
    marks |= {"Δ": r"$\Delta$", "α": r"$\alpha$", "λ": r"$\lambda$", "β": r"$\beta$"}
    marks |= {"ρ": r"$\rho$", "η": r"$\eta$", "²": r"$^2$", "→": r"$\to$", "–": "--", "±": r"$\pm$"}
    marks |= {"√": r"$\surd$", "₂": r"$_2$", "₀": r"$_0$", "−": "$-$", "≥": r"$\ge$", "<": "$<$"}
    marks |= {">": "$>$", "≤": r"$\le$", "θ": r"$\theta$", "δ": r"$\delta$", "Σ": r"$\Sigma$"}
    marks |= {mark: "\\" + mark for mark in "&%$#_{}"} | {"^": r"\textasciicircum{}"}
    return "".join(marks.get(letter, letter) for letter in words)
