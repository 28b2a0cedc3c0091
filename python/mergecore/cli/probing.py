"""Which options do the commands share that read hidden states?"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import click

from mergecore.cli import terminal

if TYPE_CHECKING:
    from mergecore.diagnose.mergeability import Mergeability

_OPTIONS = (
    click.option("--probe", metavar="FILE", required=True, help="Rows of {id, text, task}"),
    click.option("--layer", type=int, default=-1, show_default=True, help="Whose hidden states"),
    click.option("--dtype", type=click.Choice(("bfloat16", "float16", "float32")), help="Of it"),
    click.option("--device", help="For example cuda:1  [a GPU if there is one]"),
    click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True),
)


@dataclass(frozen=True)
class Probing:
    """What models read, and how."""

    probe: str
    layer: int
    dtype: str | None
    device: str | None
    batch_size: int

    def of(
        self, models: Sequence[str], *, shown: bool, budget: float | None = None
    ) -> Mergeability:
        """Reads the hidden states, with progress if it is to be shown."""
        from mergecore.diagnose.mergeability import mergeability

        with terminal.count("reading", shown=shown) as progress:
            return mergeability(models, budget=budget, progress=progress, **asdict(self))


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the probe file and how models are read, handed over as one `probing=Probing(...)`."""

    @functools.wraps(command)
    def gathered(*args: Any, **given: Any) -> Any:
        chosen = {field.name: given.pop(field.name) for field in fields(Probing)}
        return command(*args, probing=Probing(**chosen), **given)

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered


def score(value: float) -> str:
    """A merging difficulty score."""
    return f"{value:.2f}" if math.isfinite(value) else "∞"
