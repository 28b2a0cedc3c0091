"""`mergecore generate`: prompts in, a model's answers out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from mergecore.cli import answering, terminal


@click.command()
@click.argument("model", metavar="MODEL")
@click.option(
    "--prompts", metavar="FILE|alpaca_eval", required=True, help="JSON Lines, or AlpacaEval's JSON"
)
@click.option("--out", metavar="R.jsonl", required=True, help="The file of responses")
@click.option("--limit", type=click.IntRange(1), help="Only so many prompts, from the first")
@click.option("--base-url", metavar="URL", help="Ask an OpenAI-compatible server instead")
@click.option("--as-alpaca-eval", metavar="FILE", help="Also write AlpacaEval's JSON")
@answering.loading
@answering.decoding
@answering.writing
def generate(
    model: str,
    prompts: str,
    out: str,
    limit: int | None,
    base_url: str | None,
    as_alpaca_eval: str | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Let a model answer prompts.

    MODEL is a folder or a hub id; with --base-url it is the server's name for it. What is in
    R.jsonl already is not made again: the same command goes on after an interruption.

    \b
    mergecore generate merged --prompts prompts.jsonl --out responses.jsonl
    """
    from mergecore.evaluate import generate as stage
    from mergecore.evaluate import rows
    from mergecore.evaluate.decoding import Decoding
    from mergecore.evaluate.loading import backend_of

    loading = {name: options.pop(name) for name in ("backend", "dtype", "device", "chat_template")}
    batch_size = options.pop("batch_size")
    decoding = Decoding(**options)
    answering.check_out(out, prompts)
    asked = rows.prompts(prompts, limit)
    make, about = backend_of(model, base_url, batch_size, quiet or as_json, **loading)
    with terminal.count("answers", shown=not (quiet or as_json)) as progress:
        done = stage.generate(
            model, asked, out, make, decoding, about=about, overwrite=overwrite, progress=progress
        )
    if as_alpaca_eval:
        from pathlib import Path

        answered = [row for row in rows.read(out) if row["id"] in rows.by_id(asked)]
        Path(as_alpaca_eval).write_bytes(rows.as_alpaca_eval(answered, model))
    if as_json:
        terminal.object_as_json(asdict(done))
    elif not quiet:
        terminal.facts(
            [
                ("model", model),
                ("responses", f"{done.responses:,} ({done.made:,} made now)"),
                ("cut off", f"{done.length_capped:,} at {decoding.max_tokens:,} tokens"),
                ("tokens", f"{done.output_tokens:,}"),
                ("out", out),
            ]
        )
