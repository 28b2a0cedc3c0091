"""`compare` and `mergeability` as pages: one HTML file that needs no network, charts by Altair."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergecore.errors import OutputExistsError, RecipeError, RunError

if TYPE_CHECKING:
    from mergecore.diagnose.geometry import Geometry
    from mergecore.diagnose.mergeability import Mergeability

_GLOBAL = "window.vegaEmbed = vegaEmbed;"
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
th:first-child, td:first-child {{ text-align: left; }}
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
        raise OutputExistsError(f"{path}: is a folder; name a file, like {path / 'compare.html'}")


def write(text: str, path: Path) -> None:
    """Writes a page; it is there whole, or what was there stays."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(text, "utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise RunError(f"{path}: {(error.strerror or str(error)).lower()}") from error


def page_of_geometry(found: Geometry) -> str:
    """A page of `compare`. Names of models and tensors are text in it, whatever they hold."""
    said = [*(line for place in found.placements for line in place.in_words()), *found.notes]
    warnings = [conflict.in_words() for conflict in found.conflicts]
    for model, kin in zip(found.models, found.kinship, strict=True):
        warnings += [f"{model} {kin.in_words()}"] if kin.verdict != "child" else []
    title = f"{', '.join(found.models)} beside {found.base}"
    return _page(title, _models(found), said, warnings, _charts(found))


def page_of_mergeability(found: Mergeability) -> str:
    """A page of `mergeability`."""
    scores = found.difficulty
    rows = [
        [model, f"{score:.3f}", f"{weight:.2f}"]
        for model, score, weight in zip(found.models, scores, found.center, strict=True)
    ]
    table = _table(("model", "MDS", "weight in the center"), rows)
    said = [
        f"the diameter is {found.diameter:.4g}, Jung's bound {found.jung:.4g}, the exact radius"
        f" {found.radius:.4g}, and the mean distance from the mean {found.to_centroid:.4g}, all of"
        " them squared"
    ]
    bars = [
        {"model": model, "score": float(score)}
        for model, score in zip(found.models, scores, strict=True)
        if score != float("inf")
    ]
    charts = [
        (
            "Similarity of hidden states",
            "1 − dᵢⱼ / max d: 1 is the same, 0 the farthest pair.",
            _matrix(found.models, found.similarity, "similarity", "blues", (0, 1)),
        ),
        ("Merging difficulty", "One over the mean similarity to the others.", _scores(bars)),
        (
            "Rate and distortion",
            "How many bits about which model is meant buy how small a squared distance.",
            _curve(found),
        ),
    ]
    title = f"Mergeability of {', '.join(found.models)}"
    return _page(title, table, said, [], charts)


def _page(
    title: str,
    table: str,
    said: Sequence[str],
    warnings: Sequence[str],
    charts: Iterable[tuple[str, str, dict[str, Any]]],
) -> str:
    import vl_convert

    bundle = vl_convert.javascript_bundle(_GLOBAL)
    parts = [_HEAD.format(title=html.escape(title), bundle=bundle)]
    parts += [f"<h1>{html.escape(title)}</h1>", table]
    items = [f"<li>{html.escape(line)}</li>" for line in said]
    items += [f'<li class="warning">{html.escape(line)}</li>' for line in warnings]
    parts.append(f"<ul>{''.join(items)}</ul>" if items else "")
    for number, (head, words, spec) in enumerate(charts):
        # No tag can begin, or end, in a script that holds no "<".
        text = json.dumps(spec).replace("<", "\\u003c")
        parts.append(
            f'<h2>{head}</h2><p class="note">{words}</p><div class="chart" id="c{number}"></div>'
            f'<script>vegaEmbed("#c{number}", {text}, {{"actions": {{"export": true, "source":'
            ' false, "compiled": false, "editor": false}}).catch(console.error);</script>'
        )
    parts.append("</body></html>\n")
    return "\n".join(parts)


def _models(found: Geometry) -> str:
    f = found.overall
    heads = ("model", "‖δ‖", "‖δ‖ / ‖θ₀‖", "zeros", "noise", "NaN, Inf", "descent")
    rows = [
        [
            model,
            f"{f.norms[i]:.4g}",
            f"{f.relative[i]:.3g}",
            f"{f.zero_share[i]:.1%}",
            f"{f.noise_share[i]:.1%}",
            f"{f.nan[i] + f.inf[i]:,.0f}",
            found.kinship[i].verdict,
        ]
        for i, model in enumerate(found.models)
    ]
    return _table(heads, rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _charts(found: Geometry) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Titles, what they show, and Vega-Lite specifications."""
    figures = found.overall
    if len(found.models) > 1:
        yield (
            "Cosines of the task vectors",
            "1: the same direction; 0: nothing in common; −1: opposite. Of the whole models.",
            _matrix(found.models, figures.cosine, "cosine", "blueorange", (-1, 1)),
        )
        yield (
            "Conflicting magnitude",
            "Σ|δᵢ − δⱼ| where signs differ, over Σ(|δᵢ| + |δⱼ|).",
            _matrix(
                found.models, figures.conflicting_magnitude_change, "conflict", "oranges", (0, 0.5)
            ),
        )
    layers = [
        {"stack": stack, "layer": number, "model": model, "relative": float(of.relative[i])}
        for (stack, number), of in found.layers.items()
        for i, model in enumerate(found.models)
    ]
    if layers:
        yield (
            "How far each layer has moved",
            "‖δ‖ / ‖θ₀‖ of all tensors of a layer.",
            _lines(layers),
        )
    kinds = [
        {"kind": kind, "model": model, "relative": float(of.relative[i])}
        for kind, of in found.kinds.items()
        for i, model in enumerate(found.models)
        if of.base_square
    ]
    if kinds:
        yield (
            "How far each kind of module has moved",
            "‖δ‖ / ‖θ₀‖ over all layers.",
            _bars(kinds, list(found.kinds)),
        )


def _matrix(
    models: Sequence[str], values: Any, name: str, scheme: str, domain: tuple[float, float]
) -> dict[str, Any]:
    import altair as alt

    cells = [
        {"a": one, "b": other, name: float(values[i, j])}
        for i, one in enumerate(models)
        for j, other in enumerate(models)
        if values[i, j] == values[i, j]
    ]
    side = min(44 * len(models) + 40, 640)
    chart = alt.Chart(alt.Data(values=cells)).encode(
        x=alt.X("a:N", sort=list(models), title=None),
        y=alt.Y("b:N", sort=list(models), title=None),
        tooltip=["a:N", "b:N", alt.Tooltip(f"{name}:Q", format=".4f")],
    )
    color = alt.Color(f"{name}:Q", scale=alt.Scale(scheme=scheme, domain=list(domain)))
    layered = chart.mark_rect().encode(color=color)
    if len(models) <= 16:
        layered += chart.mark_text(fontSize=11).encode(text=alt.Text(f"{name}:Q", format=".2f"))
    return _spec(layered.properties(width=side, height=side))


def _lines(rows: list[dict[str, Any]]) -> dict[str, Any]:
    import altair as alt

    stacks = list(dict.fromkeys(row["stack"] for row in rows))
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(point=True)
        .encode(
            x=alt.X("layer:Q", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("relative:Q", title="‖δ‖ / ‖θ₀‖"),
            color=alt.Color("model:N", title=None),
            tooltip=["model:N", "stack:N", "layer:Q", alt.Tooltip("relative:Q", format=".4f")],
        )
        .properties(width=640, height=240)
    )
    return _spec(chart.facet(row=alt.Row("stack:N", title=None)) if len(stacks) > 1 else chart)


def _bars(rows: list[dict[str, Any]], kinds: Sequence[str]) -> dict[str, Any]:
    import altair as alt

    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar()
        .encode(
            y=alt.Y("kind:N", sort=list(kinds), title=None, axis=alt.Axis(labelLimit=320)),
            yOffset=alt.YOffset("model:N"),
            x=alt.X("relative:Q", title="‖δ‖ / ‖θ₀‖"),
            color=alt.Color("model:N", title=None),
            tooltip=["kind:N", "model:N", alt.Tooltip("relative:Q", format=".4f")],
        )
        .properties(width=520)
    )
    return _spec(chart)


def _scores(rows: list[dict[str, Any]]) -> dict[str, Any]:
    import altair as alt

    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar()
        .encode(
            y=alt.Y("model:N", sort="-x", title=None, axis=alt.Axis(labelLimit=320)),
            x=alt.X("score:Q", title="MDS"),
            tooltip=["model:N", alt.Tooltip("score:Q", format=".3f")],
        )
    )
    return _spec(chart.properties(width=520))


def _curve(found: Mergeability) -> dict[str, Any]:
    import altair as alt

    pairs = zip(*found.curve, strict=True)
    rows = [{"distortion": float(d), "rate": float(r)} for d, r in pairs]
    marks = [
        {"distortion": found.radius, "bound": "exact radius"},
        {"distortion": found.jung, "bound": "Jung's bound"},
    ]
    line = (
        alt.Chart(alt.Data(values=rows))
        .mark_line()
        .encode(
            x=alt.X("distortion:Q", title="mean squared distance"),
            y=alt.Y("rate:Q", title="bits"),
        )
    )
    rules = (
        alt.Chart(alt.Data(values=marks))
        .mark_rule(strokeDash=[4, 3])
        .encode(x="distortion:Q", color=alt.Color("bound:N", title=None))
    )
    return _spec((line + rules).properties(width=640, height=260))


def _spec(chart: Any) -> dict[str, Any]:
    spec: dict[str, Any] = chart.to_dict()
    return spec
