"""`mergecore reward`: responses in, what a reward model thinks of each out."""

from __future__ import annotations

from dataclasses import asdict

import click

from mergecore.cli import answering, terminal


@click.command()
@click.argument("responses", metavar="R.jsonl")
@click.option("--model", metavar="RM", help="The reward model  [weqweasdas/RM-Mistral-7B]")
@click.option("--out", metavar="W.jsonl", required=True, help="The file of rewards")
@answering.loading
@answering.writing
def reward(
    responses: str,
    model: str | None,
    out: str,
    backend: str,
    dtype: str | None,
    device: str | None,
    chat_template: str | None,
    batch_size: int,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Score responses with a reward model.

    A reward model is a sequence classifier of one label; the reward is its raw logit. R.jsonl may
    also be AlpacaEval's JSON.

    \b
    mergecore reward responses.jsonl --model RM --out rewards.jsonl
    """
    from mergecore.evaluate import reward as stage
    from mergecore.evaluate import rows
    from mergecore.evaluate.loading import scorer_of

    model = model or stage.DEFAULT_MODEL
    answering.check_out(out, responses)
    answered = rows.read(responses, "output", "instruction|messages")
    make, about = scorer_of(model, backend, dtype, device, chat_template, quiet or as_json)
    with terminal.count("rewards", shown=not (quiet or as_json)) as progress:
        done = stage.reward(
            answered,
            model,
            out,
            make,
            batch_size=batch_size,
            about=about,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        terminal.object_as_json(asdict(done))
    elif not quiet:
        terminal.facts(
            [
                ("reward model", model),
                ("rewards", f"{done.rewards:,} ({done.made:,} made now)"),
                ("mean", f"{done.mean:.4g}"),
                ("cut off", done.truncated or None),
                ("out", out),
            ]
        )
