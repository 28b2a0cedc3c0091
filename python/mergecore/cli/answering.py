"""Which options do the commands share that let a model answer or score?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])

_DECODING = (
    click.option("--temperature", type=float, default=0.7, show_default=True, help="0 is greedy"),
    click.option("--top-k", type=int, default=50, show_default=True, help="0 for all tokens"),
    click.option("--top-p", type=float, default=0.9, show_default=True, help="1 for all tokens"),
    click.option("--presence-penalty", type=float, default=0.1, show_default=True),
    click.option("--frequency-penalty", type=float, default=0.1, show_default=True),
    click.option("--seed", type=int, default=42, show_default=True, help="Of the sampling"),
    click.option(
        "--max-tokens", type=int, default=2048, show_default=True, help="The longest answer"
    ),
)
_LOADING = (
    click.option(
        "--backend",
        type=click.Choice(("auto", "vllm", "transformers")),
        default="auto",
        help="auto is vllm where it is installed, else transformers",
    ),
    click.option(
        "--dtype",
        type=click.Choice(("bfloat16", "float16", "float32")),
        help="Of the arithmetic  [the weights']",
    ),
    click.option("--device", metavar="cpu|cuda[:N]", help="For transformers  [a GPU if any]"),
    click.option(
        "--chat-template",
        metavar="NAME|FILE|none",
        help="Instead of the model's own; none is plain text",
    ),
    click.option("--batch-size", type=click.IntRange(1, 4096), default=8, show_default=True),
)
_WRITING = (
    click.option("--overwrite", is_flag=True, help="Begin anew"),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object"),
    click.option("--quiet", is_flag=True, help="Print nothing but errors"),
)


def _with(options: tuple[Callable[..., Any], ...]) -> Callable[[_Command], _Command]:
    def add(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


decoding = _with(_DECODING)
"""How tokens are chosen."""
loading = _with(_LOADING)
"""By what a model is run."""
writing = _with(_WRITING)
"""What is printed, and whether to begin anew."""


def check_out(out: str, *inputs: str | None) -> None:
    """Refuses to write over what is read, which --overwrite would empty.

    Raises:
        OutputExistsError: OUT is an input.
    """
    from mergecore.errors import OutputExistsError

    place = Path(out).expanduser().resolve()
    if any(given is not None and Path(given).expanduser().resolve() == place for given in inputs):
        raise OutputExistsError(f"{out}: is an input; give another --out")
