"""`mergecore judge`: responses in, what is wrong with each out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mergecore.cli import answering, terminal

if TYPE_CHECKING:
    from mergecore.evaluate.judge.cost import Bill

JUDGING = (
    click.option(
        "--judge",
        "who",
        type=click.Choice(("rules", "openai")),
        default="rules",
        show_default=True,
        help="rules are offline; openai asks a language model",
    ),
    click.option("--judge-model", metavar="M", help="The language model that judges"),
    click.option("--judge-url", metavar="URL", help="Its server, if it is not OpenAI's"),
    click.option(
        "--prices", metavar="FILE", help="YAML, M: {input: 2.5, output: 10}, $ a M tokens"
    ),
    click.option("--max-cost", type=float, metavar="USD", help="The most to spend"),
    click.option(
        "--concurrency", type=click.IntRange(1, 256), default=8, help="Requests at a time"
    ),
)


def judging(command: Any) -> Any:
    """Adds the options that say who judges."""
    for option in reversed(JUDGING):
        command = option(command)
    return command


@click.command()
@click.argument("responses", metavar="R.jsonl")
@click.option("--out", metavar="V.jsonl", help="The file of verdicts  [none is written]")
@click.option("--lowest", type=click.IntRange(1), metavar="K", help="Only the K of lowest reward")
@click.option("--by", metavar="W.jsonl", help="The rewards that --lowest goes by")
@judging
@click.option("--model", "judge_model_too", metavar="M", help="The same as --judge-model")
@click.option("--base-url", "judge_url_too", metavar="URL", help="The same as --judge-url")
@click.option("--batch", is_flag=True, help="By the Batch API: half the price, within a day")
@answering.writing
def judge(
    responses: str,
    out: str | None,
    lowest: int | None,
    by: str | None,
    judge_model_too: str | None,
    judge_url_too: str | None,
    batch: bool,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    **who: Any,
) -> None:
    """Say of each response whether it is repetitive, code-switched or nonsense.

    The rules judge works offline and always says the same. R.jsonl may also be AlpacaEval's JSON of
    outputs.

    \b
    mergecore judge responses.jsonl --out verdicts.jsonl
    mergecore judge outputs.json --json
    """
    from mergecore.errors import RunError
    from mergecore.evaluate import rows, verdicts

    if (lowest is None) != (by is None):
        raise click.UsageError("--lowest K goes by the rewards that --by names: give both")
    if batch and out is None:
        raise click.UsageError("--batch needs --out, beside which the batch's id is kept")
    if out is not None:
        answering.check_out(out, responses, by)
    answered = rows.read(responses, "output")
    if lowest is not None and by is not None:
        answered = verdicts.of_lowest(answered, rows.read(by, "reward"), lowest)
    who["judge_model"] = who["judge_model"] or judge_model_too
    who["judge_url"] = who["judge_url"] or judge_url_too
    state = Path(out + ".batch.json") if batch and out else None
    chosen, bill = judge_of(**who, batch=state)
    if bill is not None and not quiet and not as_json:
        _estimate(bill, answered)
    with terminal.count("verdicts", shown=not (quiet or as_json)) as progress:
        done = verdicts.judge_all(answered, out, chosen, overwrite=overwrite, progress=progress)
    said = {**asdict(done), **({"cost": spent(bill)} if bill is not None else {})}
    if as_json:
        terminal.object_as_json(said)
    elif not quiet:
        _show(said, out)
    if done.n and done.errors == done.n:
        raise RunError(
            "no response could be judged; OUT says of each why, and the same command tries again"
        )


def judge_of(
    who: str,
    judge_model: str | None,
    judge_url: str | None,
    prices: str | None,
    max_cost: float | None,
    concurrency: int,
    batch: Path | None = None,
) -> tuple[Any, Bill | None]:
    """The judge, and what it may spend."""
    from mergecore.evaluate.judge import choice

    if who == "rules":
        given = {"--judge-model": judge_model, "--judge-url": judge_url, "--max-cost": max_cost}
        if odd := [name for name, value in given.items() if value is not None]:
            raise click.UsageError(f"{odd[0]} is for --judge openai")
        return choice.rules(), None
    if judge_model is None:
        raise click.UsageError("--judge openai needs --judge-model: the name on the server")
    return choice.language_model(judge_model, judge_url, prices, max_cost, concurrency, batch)


def _estimate(bill: Bill, answered: list[dict[str, Any]]) -> None:
    from mergecore.evaluate.judge.cost import estimated_tokens
    from mergecore.evaluate.rows import instruction

    asked = [(row["id"], instruction(row), str(row["output"])) for row in answered]
    tokens_in, tokens_out = estimated_tokens(asked)
    price = bill.of(tokens_in, tokens_out)
    money = "the price is not known" if price is None else f"about $ {price:.4f}"
    terminal.say(f"estimate: {tokens_in:,} tokens in, {tokens_out:,} out, {money}", err=True)


def spent(bill: Bill) -> dict[str, Any]:
    """What a judge took, for the summary."""
    return {
        "usd": bill.spent,
        "requests": bill.requests,
        "input_tokens": bill.input_tokens,
        "output_tokens": bill.output_tokens,
        "cached": bill.cached,
    }


def _show(said: dict[str, Any], out: str | None) -> None:
    cost = said.get("cost")
    judged = said["n"] - said["errors"]
    share = f" ({100 * said['degenerate'] / judged:.1f} %)" if judged else ""
    terminal.facts(
        [
            ("judge", said["judge"]),
            ("responses", f"{said['n']:,} ({said['made']:,} judged now)"),
            ("degenerate", f"{said['degenerate']:,}{share}"),
            ("repetition", f"{said['repetition']:,}"),
            ("code-switching", f"{said['code_switching']:,}"),
            ("nonsense", f"{said['nonsense']:,}"),
            ("errors", f"{said['errors']:,}, in no figure" if said["errors"] else None),
            ("cost", cost_text(cost) if cost else None),
            ("out", out),
        ]
    )


def cost_text(cost: dict[str, Any]) -> str:
    """The same in words."""
    money = "" if cost["usd"] is None else f"$ {cost['usd']:.4f}, "
    tokens = f"{cost['input_tokens']:,} tokens in, {cost['output_tokens']:,} out"
    return f"{money}{tokens}, {cost['cached']:,} known before"
