"""`mergecore extract-lora`: what a fine-tune changed, as a LoRA adapter."""

from __future__ import annotations

import math
from pathlib import Path

import click

from mergecore.cli import options, terminal


@click.command("extract-lora")
@click.argument("model", metavar="MODEL")
@click.option("--base", metavar="MODEL", help="What it was tuned from  [as it says]")
@click.option("--rank", type=click.IntRange(min=1), required=True, help="The rank of each product")
@click.option("--out", metavar="DIR", required=True, help="The adapter's folder")
@click.option("--seed", type=int, default=42, show_default=True, help="Of random projections")
@options.printing
def extract_lora(
    model: str, base: str | None, rank: int, out: str, seed: int, as_json: bool, quiet: bool
) -> None:
    """Write what a model changed from its base as a LoRA adapter.

    Each changed matrix is approximated by a product of the given rank, as well as that rank can;
    norms and other small tensors are saved whole. The relative error is told for each tensor and in
    all. BASE+DIR is then a model again.

    \b
    mergecore extract-lora tuned --base base --rank 16 --out adapter
    """
    from mergecore.errors import RecipeError
    from mergecore.models import extraction, hub, lineage

    place = hub.locate(model, quiet=quiet or as_json)
    if base is None:
        base = lineage.common_base({model: place}, "extract-lora").reference
    start = hub.locate(base, quiet=quiet or as_json)
    if Path(out).resolve() in (place.resolve(), start.resolve()):
        raise RecipeError(f"{out}: the output is also an input; choose another --out")
    parts = extraction.extract(place, start, Path(out), rank=rank, base_name=base, seed=seed)
    change = math.hypot(*(part.change for part in parts))
    rest = math.hypot(*(part.rest for part in parts))
    left_out = [part.name for part in parts if part.how == "left out"]
    warnings = [f"left out, since PEFT cannot say it: {', '.join(left_out)}"] if left_out else []
    if as_json:
        tensors = [{**part._asdict(), "error": part.rest / part.change} for part in parts]
        said = {"out": out, "base": base, "rank": rank, "delta_norm": change}
        error = rest / change
        terminal.object_as_json({**said, "error": error, "tensors": tensors, "warnings": warnings})
    elif quiet:
        terminal.remarks([], warnings)
    else:
        rows = [
            (p.name, p.how, str(p.rank or ""), f"{p.change:.6g}", f"{p.rest / p.change:.3g}")
            for p in parts
        ]
        terminal.table(("tensor", "how", "rank", "‖Δ‖", "error"), rows, numbers_from=2)
        terminal.facts(
            [
                ("base", base),
                ("‖Δ‖", f"{change:.6g}"),
                ("error", f"{rest / change:.3g} of it"),
                ("out", out),
            ]
        )
        terminal.remarks([], warnings)
