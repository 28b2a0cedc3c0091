"""`mergecore tasks`: what does a model reach in benchmarks?"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from mergecore.cli import options, terminal

if TYPE_CHECKING:
    from mergecore.evaluate.tasks.run import Tested

_DTYPES = ("bfloat16", "float16", "float32")


def _names(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> list[str]:
    return [name.strip() for text in given for name in text.split(",") if name.strip()]


def _by_task(
    _ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]
) -> dict[str, str]:
    """`TASK=VALUE` by task; a value alone is of every task, under the name of none."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        name, value = (name, value) if equals else ("", text)
        if name in found or not value:
            raise click.BadParameter(f"{text!r}: give each task once, as TASK=VALUE")
        found[name] = value
    return found


def _files(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    found = _by_task(ctx, param, given)
    if "" in found:
        raise click.BadParameter(f"{found['']!r} is not TASK=FILE")
    return found


def _numbers(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, int]:
    found = _by_task(ctx, param, given)
    for value in found.values():
        if not value.isdecimal():
            raise click.BadParameter(f"{value!r} is no number of examples; give 8 or gsm8k=8")
    return {name: int(value) for name, value in found.items()}


@click.command()
@click.argument("model", metavar="MODEL")
@click.option(
    "--tasks",
    "names",
    multiple=True,
    required=True,
    metavar="NAME,...",
    callback=_names,
    help="gsm8k, mbpp, rouge_l, glue or its parts, or any of lm-evaluation-harness",
)
@click.option(
    "--data",
    multiple=True,
    metavar="TASK=FILE",
    callback=_files,
    help="Rows instead of the hub's: .jsonl, .json, .csv, .tsv, .parquet; for glue a folder",
)
@click.option("--out", metavar="T.jsonl", help="The rows  [./MODEL-tasks.jsonl]")
@click.option("--limit", type=click.IntRange(min=1), help="Only so many items of each task")
@click.option(
    "--few-shot",
    multiple=True,
    metavar="[TASK=]N",
    callback=_numbers,
    help="Worked examples in the prompt  [gsm8k 0, mbpp 3]",
)
@click.option(
    "--chat-template",
    metavar="TEMPLATE",
    help="A name, a file, none for plain text, own for the model's also in choices"
    "  [the model's own for answers, none for choices]",
)
@click.option("--max-tokens", type=click.IntRange(min=1), help="Of an answer  [each task's own]")
@click.option("--length-normalized", is_flag=True, help="Choices by log-likelihood a byte")
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--dtype", type=click.Choice(_DTYPES), help="Of the arithmetic  [the weights']")
@click.option("--device", metavar="DEVICE", help="Like cuda:1  [a GPU if there is one]")
@click.option("--allow-code-execution", is_flag=True, help="Run code that the model writes")
@click.option("--include-path", metavar="DIR", help="Tasks of lm-evaluation-harness that you wrote")
@click.option("--overwrite", is_flag=True, help="Begin anew if the output is there")
@options.printing
def tasks(model: str, names: list[str], as_json: bool, quiet: bool, **given: Any) -> int:
    """Test a model in benchmarks.

    GSM8K, MBPP, GLUE and ROUGE-L are mergecore's own, every other task is run by
    lm-evaluation-harness. Killed at any moment, the same command goes on where it was.

    \b
    mergecore tasks merged --tasks gsm8k,glue --limit 200
    mergecore tasks merged --tasks mbpp --allow-code-execution
    mergecore tasks merged --tasks rouge_l --data rouge_l=questions.jsonl
    """
    shown = not (as_json or quiet)
    if not (shown and sys.stderr.isatty()):
        # Read when tqdm is imported: its bars are for terminals, in a pipe they are many lines.
        os.environ.setdefault("TQDM_DISABLE", "1")
    from mergecore.evaluate.loading import fingerprint
    from mergecore.evaluate.tasks.request import Prepared, Request

    prepared = Prepared(Request(model, names, quiet=not shown, **given))
    about = {"weights": fingerprint(prepared.folder)}
    with terminal.count("items", shown=shown) as progress:
        tested = prepared.run(about=about, progress=progress)
    if as_json:
        terminal.object_as_json(asdict(tested))
    elif not quiet:
        _print(tested)
    return 0


def _print(tested: Tested) -> None:
    rows = [
        (
            entry["task"],
            _figure(entry["score"]),
            "–".join(map(_figure, entry["interval"] or [])),
            str(entry["n"]),
            ", ".join(f"{name} {_figure(entry[name])}" for name in ("f1", "mcc") if name in entry),
        )
        for entry in tested.tasks
    ]
    terminal.table(("task", "score", "95 % interval", "items", ""), rows, numbers_from=1)
    new = "all there already" if not tested.made else f"{tested.made:,} new"
    terminal.say(f"{terminal.plural(tested.rows, 'row')} ({new}) in {tested.out}")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
