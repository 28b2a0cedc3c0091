"""`mergecore extrapolate`: RL + A·f(RL − SFT)."""

from __future__ import annotations

import os
from typing import Any

import click

from mergecore import recipe
from mergecore.cli import options
from mergecore.cli.execute import default_out, execute


@click.command()
@click.option("--from", "sft", metavar="SFT", required=True, help="The model that it started from")
@click.option("--to", "rl", metavar="RL", required=True, help="The model to go on from")
@click.option("--alpha", type=float, required=True, help="How far; 0.3 to 0.5 is usual")
@click.option("--method", default="task_arithmetic", show_default=True, help="The f of the formula")
@click.option("--out", metavar="DIR", help="The folder to make  [./RL-expo-ALPHA]")
@options.parameters
@options.tokens
@options.requesting
@options.running
def extrapolate(
    sft: str,
    rl: str,
    alpha: float,
    method: str,
    out: str | None,
    weight: tuple[float, ...],
    density: tuple[float, ...],
    lambda_: tuple[float, ...],
    settings: dict[str, Any],
    modifiers: list[Any],
    tokenizer_source: str | None,
    chat_template: str | None,
    donor: str | None,
    ignore: tuple[str, ...],
    dtype: str | None,
    seed: int,
    running: options.Running,
) -> None:
    """Go on from a model in the direction it came: RL + ALPHA·f(RL − SFT).

    f is a method of task vectors: task_arithmetic leaves the change as it is, ties and dare make
    it sparse first. Config and tokenizer are RL's.

    \b
    mergecore extrapolate --from sft --to rl --alpha 0.5
    mergecore extrapolate --from sft --to rl --alpha 0.5 --method ties --density 0.2
    """
    if lambda_:
        raise click.UsageError("--lambda is what --alpha says here")
    if os.path.realpath(sft) == os.path.realpath(rl):
        raise click.UsageError(
            f"--from and --to are the same model, {rl}: there is no way to go on"
        )
    given = options.given_parameters(weight or (1.0,), density, (alpha,), settings)
    request = recipe.build(
        method,
        [rl],
        sft,
        given,
        modifiers,
        onto=rl,
        donor=donor,
        ignore=list(ignore) or None,
        dtype=dtype,
        seed=seed,
        tokenizer_source=tokenizer_source,
        chat_template=chat_template,
    )
    execute(request, default_out([rl], f"expo-{alpha:g}") if out is None else out, running)
