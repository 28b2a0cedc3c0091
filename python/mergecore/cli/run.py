"""`mergecore run`: a recipe in, a model out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from mergecore import documents
from mergecore.cli import mergekit_flags, options, several
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

    Of a file of several documents, each but one has a `name` that the others may use as a model;
    the one without is the output. --seed holds for all of them, --dtype for the output alone.
    """
    theirs = mergekit_flags.mapped(ctx)
    seed = theirs.get("seed") if seed is None else seed
    content = documents.with_keys(documents.load(request), seed, dtype)
    running = replace(
        running,
        threads=running.threads or theirs.get("threads"),
        shard_size=running.shard_size or theirs.get("shard_size"),
    )
    out = f"./{Path(request).stem}" if out is None else out
    notes = mergekit_flags.notes(ctx)
    if len(content) > 1:
        several.execute(content, out, running, notes=notes)
    else:
        execute(content[0].recipe, out, running, from_file=True, notes=notes)
