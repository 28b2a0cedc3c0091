"""`compare` and `mergeability` as pages, charts by Altair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mergecore import page

if TYPE_CHECKING:
    from mergecore.diagnose.geometry import Geometry
    from mergecore.diagnose.mergeability import Mergeability


def page_of_geometry(found: Geometry) -> str:
    """A page of `compare`. Names of models and tensors are text in it, whatever they hold."""
    said = [*(line for place in found.placements for line in place.in_words()), *found.notes]
    warnings = [conflict.in_words() for conflict in found.conflicts]
    for model, kin in zip(found.models, found.kinship, strict=True):
        warnings += [f"{model} {kin.in_words()}"] if kin.verdict != "child" else []
    title = f"{', '.join(found.models)} beside {found.base}"
    return page.render(title, [_models(found), page.listed(said, warnings)], _charts(found))


def page_of_mergeability(found: Mergeability) -> str:
    """A page of `mergeability`."""
    scores = found.difficulty
    rows = [
        [model, f"{score:.3f}", f"{weight:.2f}"]
        for model, score, weight in zip(found.models, scores, found.center, strict=True)
    ]
    table = page.table(("model", "MDS", "weight in the center"), rows)
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
    return page.render(title, [table, page.listed(said, [])], charts)


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
    return page.table(heads, rows)


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
    return page.spec(layered.properties(width=side, height=side))


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
    return page.spec(chart.facet(row=alt.Row("stack:N", title=None)) if len(stacks) > 1 else chart)


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
    return page.spec(chart)


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
    return page.spec(chart.properties(width=520))


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
    return page.spec((line + rules).properties(width=640, height=260))
