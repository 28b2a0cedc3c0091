"""How does a page look that needs no network? One HTML file with its charts and scripts in it.

Names and texts come from checkpoints and models: they are escaped, whatever they hold.
"""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from mergecore.errors import OutputExistsError, RecipeError, RunError

Chart: TypeAlias = tuple[str, str, dict[str, Any]]
"""Its title, what it shows, and its Vega-Lite specification."""

_GLOBAL = "window.vegaEmbed = vegaEmbed;"
_EMPTY = ("–", "nan", "inf", "-inf")
_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1d2433; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.1rem; margin-top: 2.2rem; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: .25rem .9rem .25rem 0; text-align: right; border-bottom: 1px solid #e3e6ec; }}
th:first-child, td:first-child, .words {{ text-align: left; }}
th {{ font-weight: 600; color: #5a6478; }} p.note {{ color: #5a6478; max-width: 46rem; }}
div.chart {{ overflow-x: auto; }} li.warning {{ color: #9a3b00; }}
</style>
<script>{bundle}</script>
</head>
<body>
"""


def check(path: Path) -> None:
    """Finds out whether a page could be written there, before all weights are read.

    Raises:
        RecipeError: The extra `report` is missing, or the folder.
        OutputExistsError: Something else than a file is there.
    """
    try:
        import altair  # noqa: F401
        import vl_convert  # noqa: F401
    except ImportError as error:
        raise RecipeError(
            f"--report needs {error.name}: pip install 'mergecore[report]'"
        ) from error
    if not path.parent.is_dir():
        raise RecipeError(f"{path.parent}: no such folder for the report; make it first")
    if path.is_dir():
        raise OutputExistsError(f"{path}: is a folder; name a file, like {path / 'report.html'}")


def write(text: str, path: Path) -> None:
    """Writes a page; it is there whole, or what was there stays."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(text, "utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise RunError(f"{path}: {(error.strerror or str(error)).lower()}") from error


def render(title: str, parts: Sequence[str], charts: Iterable[Chart], behind: str = "") -> str:
    """A page: its title, parts that are HTML, charts, and what comes behind them."""
    import vl_convert

    bundle = vl_convert.javascript_bundle(_GLOBAL)
    found = [_HEAD.format(title=html.escape(title), bundle=bundle)]
    found += [f"<h1>{html.escape(title)}</h1>", *parts]
    found += [drawn(f"c{number}", chart) for number, chart in enumerate(charts)]
    return "\n".join([*found, behind, "</body></html>\n"])


def drawn(identity: str, chart: Chart, level: int = 2) -> str:
    """A chart under its heading."""
    head, words, content = chart
    return (
        f'<h{level}>{html.escape(head)}</h{level}><p class="note">{html.escape(words)}</p>'
        f'<div class="chart" id="{identity}"></div>'
        f'<script>vegaEmbed("#{identity}", {data(content)}, {{"actions": {{"export": true,'
        ' "source": false, "compiled": false, "editor": false}}).catch(console.error);</script>'
    )


def spec(chart: Any) -> dict[str, Any]:
    """An Altair chart's Vega-Lite specification."""
    found: dict[str, Any] = chart.to_dict()
    return found


def data(content: Any) -> str:
    """What a script may hold: no tag can begin, or end, where there is no "<"."""
    return json.dumps(content, ensure_ascii=False).replace("<", "\\u003c")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts."""
    # Words stand left, numbers right: a column is words where anything in it is.
    words = [any(map(_is_words, column)) for column in zip(*rows, strict=True)]
    marks = [' class="words"' if wordy else "" for wordy in words] or [""] * len(heads)
    cells = [
        "".join(f"<td{m}>{html.escape(c)}</td>" for m, c in zip(marks, row, strict=True))
        for row in rows
    ]
    head = "".join(f"<th{m}>{html.escape(c)}</th>" for m, c in zip(marks, heads, strict=True))
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _is_words(cell: str) -> bool:
    return bool(cell) and not cell.lstrip("-+–<> ")[:1].isdigit() and cell not in _EMPTY


def listed(said: Sequence[str], warnings: Sequence[str]) -> str:
    """Remarks, and behind them what to beware of."""
    items = [f"<li>{html.escape(line)}</li>" for line in said]
    items += [f'<li class="warning">{html.escape(line)}</li>' for line in warnings]
    return f"<ul>{''.join(items)}</ul>" if items else ""
