"""Which figures does a run have? Curves over the coefficient, the trade-off, a map, a histogram."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergecore import page
from mergecore.errors import RecipeError, RunError
from mergecore.evaluate import rows as files
from mergecore.evaluate import tally
from mergecore.page import Chart

if TYPE_CHECKING:
    from mergecore.study.report import Run

_MEASURES = {
    "reward": "mean reward",
    "degeneration_of_lowest": "degenerate, of the 100 of lowest reward",
    "degeneration": "degenerate, of all answers",
}


def of(run: Run) -> Iterator[Chart]:
    """The figures that the run's columns allow."""
    keys = [c for c in run.table[0] if c.startswith("grid.")]
    numbers = [key for key in keys if _varies(run, key)]
    for key in numbers:
        for measure, words in _MEASURES.items():
            if any(row.get(measure) is not None and row.get(key) is not None for row in run.table):
                yield (
                    f"{words.capitalize()} against {key.removeprefix('grid.')}",
                    "Bars are 95 % intervals; dashed lines the models as they are.",
                    _curve(run, key, measure, [k for k in keys if k != key]),
                )
    if any(r["reward"] is not None and r["degeneration"] is not None for r in run.table):
        words = "Better is right and low."
        yield "Reward against degeneration", words, _trade_off(run)
    for i, one in enumerate(numbers):
        for other in numbers[i + 1 :]:
            for measure in ("reward", "degeneration"):
                if any(row[measure] is not None for row in run.table):
                    names = [key.removeprefix("grid.") for key in (one, other)]
                    title = f"{_MEASURES[measure].capitalize()}, {names[0]} × {names[1]}"
                    yield (
                        title,
                        "The mean where a cell has several merges.",
                        _map(run, one, other, measure),
                    )
    values = _by_verdict(run)
    if values:
        yield (
            "Rewards of degenerate answers and of others",
            "All answers of all configurations.",
            _histogram(values),
        )


def write(run: Run, folder: Path, formats: tuple[str, ...]) -> list[str]:
    """Writes each figure of a run as files; see `write_charts`."""
    return write_charts(of(run), folder, formats)


def write_charts(charts: Iterable[Chart], folder: Path, formats: Sequence[str]) -> list[str]:
    """Writes figures as files.

    Raises:
        RecipeError: The folder cannot be made.
        RunError: A file cannot be written.
    """
    import vl_convert

    to: dict[str, Callable[[dict[str, Any]], bytes]] = {
        "svg": lambda spec: vl_convert.vegalite_to_svg(spec).encode(),
        "png": lambda spec: vl_convert.vegalite_to_png(spec, scale=2),
        "pdf": vl_convert.vegalite_to_pdf,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecipeError(f"{folder}: {(error.strerror or str(error)).lower()}") from error
    found = []
    for title, _, spec in charts:
        words = _spelled(title).split()
        for kind in formats:
            file = folder / f"{'-'.join(words)}.{kind}"
            try:
                file.write_bytes(to[kind](spec))
            except OSError as error:
                raise RunError(f"{file}: {(error.strerror or str(error)).lower()}") from error
            found.append(str(file))
    return found


def _spelled(title: str) -> str:
    """Words of plain letters, for the name of a file: `lambda` for λ."""
    found = []
    for letter in title.lower():
        greek = unicodedata.name(letter, "").removeprefix("GREEK SMALL LETTER ")
        plain = letter if letter.isascii() and letter.isalnum() else " "
        found.append(f" {greek.split()[0].lower()} " if "α" <= letter <= "ω" else plain)
    return "".join(found).replace("lamda", "lambda")


def _varies(run: Run, key: str) -> bool:
    values = {row[key] for row in run.table if row.get(key) is not None}
    return len(values) > 1 and all(isinstance(value, float) for value in values)


def _curve(run: Run, key: str, measure: str, others: list[str]) -> dict[str, Any]:
    import altair as alt

    points = []
    for row in run.table:
        if row.get(key) is None or row.get(measure) is None:
            continue
        rest = [f"{k.removeprefix('grid.')}={row[k]}" for k in others if row.get(k) is not None]
        points.append(
            {
                "x": row[key],
                "y": row[measure],
                "low": row[f"{measure}_low"],
                "high": row[f"{measure}_high"],
                "series": " ".join([row["method"] or "", *rest]).strip() or "merges",
                "name": row["configuration"],
            }
        )
    models = [
        {"model": row["configuration"], "y": row[measure]}
        for row in run.table
        if row["kind"] == "model" and row.get(measure) is not None
    ]
    x = alt.X("x:Q", title=key.removeprefix("grid."))
    y = alt.Y("y:Q", title=_MEASURES[measure], scale=alt.Scale(zero=False))
    color = alt.Color("series:N", title=None)
    chart = alt.Chart(alt.Data(values=points))
    tips = ["name:N", alt.Tooltip("y:Q", format=".4f")]
    layers = chart.mark_rule(opacity=0.5).encode(x=x, y="low:Q", y2="high:Q", color=color)
    layers += chart.mark_line(point=True).encode(x=x, y=y, color=color, tooltip=tips)
    if models:
        lines = alt.Chart(alt.Data(values=models)).encode(y="y:Q")
        layers += lines.mark_rule(strokeDash=[4, 4], color="#5a6478")
        layers += lines.mark_text(align="left", dx=4, dy=-6, color="#5a6478").encode(
            x=alt.value(0), text="model:N"
        )
    return page.spec(layers.properties(width=640, height=260))


def _trade_off(run: Run) -> dict[str, Any]:
    import altair as alt

    points = [
        {
            "reward": row["reward"],
            "degeneration": row["degeneration"],
            "name": row["configuration"],
            "kind": row["method"] or "model",
        }
        for row in run.table
        if row["reward"] is not None and row["degeneration"] is not None
    ]
    chart = alt.Chart(alt.Data(values=points)).encode(
        x=alt.X("reward:Q", title="mean reward", scale=alt.Scale(zero=False)),
        y=alt.Y("degeneration:Q", title=_MEASURES["degeneration"]),
        color=alt.Color("kind:N", title=None),
        tooltip=["name:N", "reward:Q", "degeneration:Q"],
    )
    layers = chart.mark_point(size=70, filled=True)
    if len(points) <= 24:
        layers += chart.mark_text(dy=-10, fontSize=10).encode(text="name:N")
    return page.spec(layers.properties(width=640, height=320))


def _map(run: Run, one: str, other: str, measure: str) -> dict[str, Any]:
    import altair as alt

    cells = [
        {"a": row[one], "b": row[other], "value": row[measure]}
        for row in run.table
        if row.get(one) is not None and row.get(other) is not None and row[measure] is not None
    ]
    chart = alt.Chart(alt.Data(values=cells)).encode(
        x=alt.X("a:O", title=one.removeprefix("grid.")),
        y=alt.Y("b:O", title=other.removeprefix("grid.")),
    )
    scheme = "oranges" if measure == "degeneration" else "blues"
    color = alt.Color("mean(value):Q", title=measure, scale=alt.Scale(scheme=scheme))
    layers = chart.mark_rect().encode(color=color)
    layers += chart.mark_text(fontSize=11).encode(text=alt.Text("mean(value):Q", format=".3g"))
    return page.spec(layers.properties(width=alt.Step(70), height=alt.Step(44)))


def _by_verdict(run: Run) -> list[dict[str, Any]]:
    found = []
    for row in run.table:
        name = row["configuration"]
        rewards = files.by_id(run.rows(name, "rewards"))
        for verdict in run.rows(name, "verdicts"):
            bad = tally.degenerate(verdict)
            if verdict["id"] in rewards and bad is not None:
                reward = round(float(rewards[verdict["id"]]["reward"]), 4)
                found.append({"reward": reward, "verdict": "degenerate" if bad else "sound"})
    return found


def _histogram(values: list[dict[str, Any]]) -> dict[str, Any]:
    import altair as alt

    chart = alt.Chart(alt.Data(values=values)).mark_bar(opacity=0.7)
    chart = chart.encode(
        x=alt.X("reward:Q", bin=alt.Bin(maxbins=40), title="reward"),
        y=alt.Y("count():Q", stack=None, title="answers"),
        color=alt.Color("verdict:N", title=None),
    )
    return page.spec(chart.properties(width=640, height=240))
