"""`mergecore evaluate`: models in, how good and how sound each is out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from mergecore.cli import answering, terminal
from mergecore.cli.judge import cost_text, judge_of, judging, spent


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option(
    "--prompts", metavar="FILE|alpaca_eval", required=True, help="JSON Lines, or AlpacaEval's JSON"
)
@click.option("--reward-model", metavar="RM", help="A sequence classifier  [no rewards]")
@click.option("--out", metavar="RUN/", required=True, help="The folder of the run")
@click.option("--with-parents", is_flag=True, help="Also those that merges were made from")
@click.option("--limit", type=click.IntRange(1), help="Only so many prompts, from the first")
@judging
@answering.loading
@answering.decoding
@answering.writing
def evaluate(
    models: tuple[str, ...],
    prompts: str,
    reward_model: str | None,
    out: str,
    with_parents: bool,
    limit: int | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Evaluate models beside each other: answers, rewards, verdicts, and what they come to.

    Name a merge and its parents (or --with-parents): differences from the parents are told with
    their intervals. The same command goes on after an interruption.

    \b
    mergecore evaluate merged a b --prompts prompts.jsonl --reward-model RM --out run
    """
    from mergecore.evaluate import evaluation, rows
    from mergecore.evaluate.decoding import Decoding
    from mergecore.evaluate.loading import backend_of, scorer_of
    from mergecore.models import hub

    silent = quiet or as_json
    loading = {name: options.pop(name) for name in ("backend", "dtype", "device", "chat_template")}
    batch_size = options.pop("batch_size")
    judge_options = {
        name: options.pop(name)
        for name in ("who", "judge_model", "judge_url", "prices", "max_cost", "concurrency")
    }
    chosen, bill = judge_of(**judge_options)
    decoding = Decoding(**options)
    asked = rows.prompts(prompts, limit)
    places = {model: hub.locate(model, quiet=silent) for model in models}
    found = evaluation.subjects(evaluation.with_parents(places) if with_parents else places)
    scorer = None
    if reward_model is not None:
        own = (loading["backend"], loading["dtype"], loading["device"], None, silent)
        scorer = (reward_model, *scorer_of(reward_model, *own))
    metrics = evaluation.evaluate(
        found,
        asked,
        Path(out),
        backend=lambda subject: backend_of(subject.reference, None, batch_size, silent, **loading),
        decoding=decoding,
        scorer=scorer,
        judge=chosen,
        template=loading["chat_template"],
        batch_size=batch_size,
        overwrite=overwrite,
        announce=None if silent else lambda what: terminal.say(what, err=True),
    )
    cost = spent(bill) if bill is not None else None
    if as_json:
        terminal.object_as_json({"out": out, **metrics, **({"cost": cost} if cost else {})})
    elif not quiet:
        show(metrics)
        terminal.facts([("cost", cost_text(cost) if cost else None), ("out", out)])


def show(metrics: Mapping[str, Any]) -> None:
    """Prints the figures of each model, and what sets merges apart from their parents."""
    rows = [
        (
            name,
            _figure(model["reward"], "mean"),
            _percent(model["degeneration_of_lowest"]),
            _percent(model["degeneration"]),
            *(str(model["labels"][label]) for label in model["labels"]),
            _percent(model["length_capped"]),
        )
        for name, model in metrics["models"].items()
    ]
    columns = ("model", "reward", "degenerate, of the lowest", "of all")
    terminal.table((*columns, "repetition", "code-switching", "nonsense", "cut off"), rows, 1)
    pairs = [
        (
            f"{pair['model']} − {pair['parent']}",
            _figure(pair["reward"], "mean"),
            _flips(pair["degeneration"]),
        )
        for pair in metrics["comparisons"]
    ]
    if pairs:
        terminal.table(("difference", "reward", "degenerate where the other is not"), pairs, 1)


def _figure(value: Mapping[str, Any] | None, key: str) -> str:
    if value is None:
        return "–"
    interval = value["interval"]
    around = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
    return f"{value[key]:.3f}{around}"


def _percent(value: Mapping[str, Any] | None) -> str:
    if value is None or value["rate"] is None:
        return "–"
    interval = value["interval"]
    around = f" [{100 * interval[0]:.0f}, {100 * interval[1]:.0f}]" if interval else ""
    return f"{100 * value['rate']:.1f} %{around} of {value['count']}"


def _flips(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "–"
    return f"{value['first_only']} against {value['second_only']}, p = {value['p']:.2g}"
