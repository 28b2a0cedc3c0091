"""Which options do the commands share that read hidden states?"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click

_OPTIONS = (
    click.option("--probe", metavar="FILE", required=True, help="Rows of {id, text, task}"),
    click.option("--layer", type=int, default=-1, show_default=True, help="Whose hidden states"),
    click.option("--dtype", type=click.Choice(("bfloat16", "float16", "float32")), help="Of it"),
    click.option("--device", help="For example cuda:1  [a GPU if there is one]"),
    click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True),
)


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the probe file and how models are read."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def score(value: float) -> str:
    """A merging difficulty score."""
    return f"{value:.2f}" if math.isfinite(value) else "∞"
