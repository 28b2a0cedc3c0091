"""`mergecore tasks`: what does a model reach in benchmarks?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mergecore.cli import options, terminal

if TYPE_CHECKING:
    from mergecore.evaluate.backends.transformers import Transformers
    from mergecore.evaluate.tasks.run import Asked, Tested
    from mergecore.evaluate.tasks.task import Task

_DTYPES = ("bfloat16", "float16", "float32")
_OWN, _PLAIN = "own", "none"


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
    tested = _Request(model, names, quiet=not shown, **given).run()
    if as_json:
        from dataclasses import asdict

        terminal.object_as_json(asdict(tested))
    elif not quiet:
        _print(tested)
    return 0


class _Request:
    """What was asked for, checked before the model is loaded."""

    def __init__(
        self,
        model: str,
        names: list[str],
        *,
        data: dict[str, str],
        few_shot: dict[str, int],
        chat_template: str | None,
        allow_code_execution: bool,
        include_path: str | None,
        quiet: bool,
        **given: Any,
    ) -> None:
        from mergecore.evaluate import tasks as registry
        from mergecore.models import hub

        self.model, self.template, self.given, self.quiet = model, chat_template, given, quiet
        self.few_shot, self.data = few_shot, data
        self.native, other = registry.chosen(names)
        self._check_names(other)
        self._check_packages(allow_code_execution)
        self.harness = None
        if other:
            if chat_template not in (None, _OWN, _PLAIN):
                raise click.UsageError(
                    f"{other[0]} is run by lm-evaluation-harness, which knows no --chat-template"
                    " but own and none"
                )
            from mergecore.evaluate.tasks.harness import Harness

            self.harness = Harness(other, include_path)
        self.asked, self.about = self._asked()
        self.folder = hub.locate(model, quiet=quiet)

    def _check_names(self, other: Sequence[str]) -> None:
        from mergecore.evaluate.tasks import GROUPS

        named = {task.name for task in self.native}
        whole = {group for group, parts in GROUPS.items() if named & set(parts)}
        for option, known, given in (
            ("--data", named | whole, self.data),
            ("--few-shot", named | {"", *other}, self.few_shot),
        ):
            for name in given:
                if name not in known:
                    raise click.UsageError(f"{option} {name}=…: {name} is not among the --tasks")

    def _check_packages(self, allowed: bool) -> None:
        from mergecore.evaluate.backends import need

        need("torch", "generate")
        need("transformers", "generate")
        for task in self.native:
            for package in task.packages:
                need(package, "tasks")
            if task.runs_code:
                if not allowed:
                    raise click.UsageError(
                        f"{task.name} runs code that the model writes; --allow-code-execution"
                        " allows it, in a sandbox"
                    )
                from mergecore.evaluate.tasks import sandbox

                sandbox.check()

    def _asked(self) -> tuple[list[Asked], dict[str, Any]]:
        """The items, and what they come from."""
        from mergecore.evaluate.tasks import data, run

        asked, about = [], {}
        for task in self.native:
            found = data.load(task, self.data)
            shots = self._shots(task)
            plain = self.template == _PLAIN
            asked.append(run.ask(task, found.rows, shots, plain=plain, limit=self.given["limit"]))
            about[task.name] = {"few_shot": shots, "data": found.digest}
        return asked, about

    def _shots(self, task: Task) -> int:
        shots = self.few_shot.get(task.name, self.few_shot.get("", task.usual_examples))
        if shots > task.examples:
            most = f"at most {task.examples}" if task.examples else "no"
            raise click.UsageError(f"--few-shot {shots}: {task.name} has {most} worked examples")
        return shots

    def run(self) -> Tested:
        """Does it."""
        from mergecore.evaluate.tasks import run

        given = self.given
        out = given["out"] or f"{Path(self.model).name}-tasks.jsonl"
        total = sum(len(entry.items) for entry in self.asked)
        with terminal.steps("testing", total, shown=not self.quiet) as step:
            return run.assess(
                self.model,
                self.asked,
                out,
                self._backend,
                self._settings(),
                max_tokens=given["max_tokens"],
                chat=self.template not in (None, _PLAIN),
                normalized=given["length_normalized"],
                overwrite=given["overwrite"],
                others=self._others if self.harness else None,
                progress=step,
            )

    def _settings(self) -> dict[str, Any]:
        """A higher limit goes on, except in the harness, whose figures are of all its items."""
        harness = self.harness and {"tasks": self.harness.names, "limit": self.given["limit"]}
        if harness:
            harness["few_shot"] = {name: self.few_shot[name] for name in self._own_shots()}
        return {
            "model": self.model,
            "tasks": self.about,
            "harness": harness,
            "dtype": self.given["dtype"] or "auto",
            "chat_template": self.template,
            "max_tokens": self.given["max_tokens"],
            "length_normalized": self.given["length_normalized"],
        }

    def _own_shots(self) -> list[str]:
        names = self.harness.names if self.harness else []
        return [name for name in self.few_shot if name in names or not name]

    def _backend(self) -> Transformers:
        from mergecore.evaluate.backends.transformers import Transformers

        template = None if self.template == _OWN else self.template
        if template is None and self.template is None and not self._talks():
            template = _PLAIN  # a model that does not chat can still choose
        return Transformers(
            self.folder,
            self.model,
            template=template,
            dtype=self.given["dtype"],
            device=self.given["device"],
            batch_size=self.given["batch_size"],
        )

    def _talks(self) -> bool:
        return any(task.score is not None for task in self.native)

    def _others(self, stage: Any) -> list[dict[str, Any]]:
        assert self.harness is not None
        everywhere = self.few_shot.get("")
        shots = {} if everywhere is None else dict.fromkeys(self.harness.names, everywhere)
        return self.harness.run(
            self.folder,
            stage,
            dtype=self.given["dtype"],
            device=self.given["device"],
            batch_size=self.given["batch_size"],
            few_shot={**shots, **self.few_shot},
            limit=self.given["limit"],
            chat=self.template == _OWN,
        )


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
    click.echo(f"{terminal.plural(tested.rows, 'row')} ({new}) in {tested.out}")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
