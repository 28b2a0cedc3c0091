"""`mergecore merge`: models in, one model out."""

from __future__ import annotations

from typing import Any

import click

from mergecore import recipe, registry
from mergecore.cli import options
from mergecore.cli.execute import default_out, execute


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option("--method", required=True, help="The merge method; `mergecore methods` lists them")
@click.option("--base", metavar="MODEL", help="What the models were tuned from  [as they say]")
@click.option("--out", metavar="DIR", help="The folder to make  [./a-b-method]")
@options.parameters
@options.tokens
@options.requesting
@options.running
def merge(
    models: tuple[str, ...],
    method: str,
    base: str | None,
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
    """Merge models into a new one.

    A MODEL is a folder, a weights file, a hub id org/name[@revision], or MODEL+ADAPTER, a LoRA
    adapter on one of them. For methods that need a base, --base may be left out if the models' own
    cards or configs name the same one.

    \b
    mergecore merge a b --method dare-ties
    mergecore merge a b --method ties --base base --density 0.3 --weight 0.7 --weight 0.3
    mergecore merge a b --method ties --modifier boost:beta=0.2
    """
    known = registry.find(method)
    request = recipe.build(
        known.name,
        models,
        base,
        options.given_parameters(weight, density, lambda_, settings),
        modifiers,
        donor=donor,
        ignore=list(ignore) or None,
        dtype=dtype,
        seed=seed,
        tokenizer_source=tokenizer_source,
        chat_template=chat_template,
    )
    if out is None:
        out = default_out(models, known.name.replace("_", "-"))
    execute(request, out, running)
