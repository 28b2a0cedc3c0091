"""`mergecore run`: a recipe in, a model out."""

from __future__ import annotations

from pathlib import Path

import click

from mergecore import recipe
from mergecore.cli import options
from mergecore.cli.execute import execute


@click.command()
@click.argument("request", metavar="RECIPE.yml")
@click.argument("out", metavar="[OUT]", required=False)
@click.option("--dtype", type=click.Choice(options.DTYPES), help="Instead of the recipe's")
@click.option("--seed", type=int, help="Instead of the recipe's  [42]")
@options.running
def run(
    request: str, out: str | None, dtype: str | None, seed: int | None, running: options.Running
) -> None:
    """Run a recipe, YAML or JSON, with mergekit's keys.

    OUT is the folder to make; if left out, it has the recipe's name without its ending.
    """
    content = recipe.load(request)
    chosen = {"dtype": dtype, "seed": seed}
    content.update((key, value) for key, value in chosen.items() if value is not None)
    execute(content, out or f"./{Path(request).stem}", running, from_file=True)
