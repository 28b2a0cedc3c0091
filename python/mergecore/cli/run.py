"""`mergecore run`: a recipe in, a model out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from mergecore import recipe
from mergecore.cli import mergekit_flags, options
from mergecore.cli.execute import execute


@click.command()
@click.argument("request", metavar="RECIPE.yml")
@click.argument("out", metavar="[OUT]", required=False)
@click.option("--dtype", type=click.Choice(options.DTYPES), help="Instead of the recipe's")
@click.option("--seed", type=int, help="Instead of the recipe's  [42]")
@options.running
@mergekit_flags.accepted
@click.pass_context
def run(
    ctx: click.Context,
    request: str,
    out: str | None,
    dtype: str | None,
    seed: int | None,
    running: options.Running,
) -> None:
    """Run a recipe, YAML or JSON, with mergekit's keys.

    OUT is the folder to make; if left out, it has the recipe's name without its ending.
    mergekit-yaml's own flags are understood, too: docs/mergekit.md says what becomes of each.
    """
    content = recipe.load(request)
    theirs = mergekit_flags.mapped(ctx)
    chosen = {"dtype": dtype, "seed": theirs.get("seed") if seed is None else seed}
    content.update((key, value) for key, value in chosen.items() if value is not None)
    running = replace(
        running,
        threads=running.threads or theirs.get("threads"),
        shard_size=running.shard_size or theirs.get("shard_size"),
    )
    execute(
        content,
        f"./{Path(request).stem}" if out is None else out,
        running,
        from_file=True,
        notes=mergekit_flags.notes(ctx),
    )
