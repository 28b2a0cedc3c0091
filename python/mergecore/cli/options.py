"""Which options do several commands share, and what do their values mean?"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import click

from mergecore.cli import key_value

_Function = TypeVar("_Function", bound=Callable[..., Any])

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}
_BINARY_UNITS = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}

DTYPES = ("float64", "float32", "bfloat16", "float16")


def parse_size(text: str) -> int:
    """Bytes, as `500MB`, `2GiB`, or with mergekit's suffixes, where `5B` is five billion.

    Raises:
        click.BadParameter: The text is no size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i)?b?|(b?))", text.strip().lower())
    if match is None:
        raise click.BadParameter(f"{text!r} is no size; write it like 500MB, 2GiB or 5B")
    number, unit, binary, billion = match.groups(default="")
    scale = _BINARY_UNITS[unit] if binary else _UNITS[unit + billion]
    size = int(float(number) * scale)
    if size >= 2**63:
        raise click.BadParameter(f"{text!r} is more than any machine holds")
    if size <= 0:
        raise click.BadParameter(f"{text!r} is no size; it must be more than nothing")
    return size


def _size(_ctx: click.Context, _param: click.Parameter, text: str | None) -> int | None:
    return None if text is None else parse_size(text)


def _settings(
    _ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]
) -> dict[str, Any]:
    return key_value.settings(given)


def _modifiers(
    _ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]
) -> list[str | dict[str, Any]]:
    return [key_value.modifier(text) for text in given]


def _device(_ctx: click.Context, _param: click.Parameter, name: str | None) -> str | None:
    return None if name == "auto" else name  # mergekit's word for what is there


@dataclass(frozen=True)
class Running:
    """How a merge runs and what it prints; nothing here changes a byte of the output but sizes
    of shards."""

    threads: int | None
    max_memory: int | None
    shard_size: int | None
    device: str | None
    dry_run: bool
    overwrite: bool
    as_json: bool
    quiet: bool


_RUNNING = (
    click.option("--threads", type=click.IntRange(1, 1024), help="Threads  [all cores]"),
    click.option(
        "--max-memory", metavar="SIZE", callback=_size, help="The most to take, like 300MB"
    ),
    click.option("--shard-size", metavar="SIZE", callback=_size, help="Of the output's, like 5GB"),
    click.option(
        "--device",
        metavar="cpu|cuda[:N]|cpu-torch",
        callback=_device,
        help="Where formulas are worked out  [cpu]",
    ),
    click.option("--dry-run", is_flag=True, help="Check everything, print the plan, write nothing"),
    click.option("--overwrite", is_flag=True, help="Replace the output if it is there"),
)

_PRINTING = (
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object"),
    click.option("--quiet", is_flag=True, help="Print nothing but errors"),
)


def running(command: _Function) -> Callable[..., Any]:
    """Adds the options of a merge's run, handed over as one `running=Running(...)`."""

    @functools.wraps(command)
    def gathered(*args: Any, **options: Any) -> Any:
        chosen = {field.name: options.pop(field.name) for field in fields(Running)}
        return command(*args, running=Running(**chosen), **options)

    return _decorated(gathered, (*_RUNNING, *_PRINTING))


def requesting(command: _Function) -> Callable[..., Any]:
    """Adds the options that say more about the request than models, method and base."""
    return _decorated(
        command,
        (
            click.option("--donor", metavar="MODEL", help="Whose config, tokenizer and side files"),
            click.option("--ignore", metavar="GLOB", multiple=True, help="Tensors to pass over"),
            click.option("--dtype", type=click.Choice(DTYPES), help="The output's dtype"),
            click.option("--seed", type=int, default=42, show_default=True, help="Of random masks"),
        ),
    )


def tokens(command: _Function) -> Callable[..., Any]:
    """Adds the options for the output's tokenizer and chat template."""
    return _decorated(
        command,
        (
            click.option(
                "--tokenizer-source",
                metavar="union|base|MODEL",
                help="Align models of different vocabularies to this tokenizer",
            ),
            click.option(
                "--chat-template",
                metavar="NAME|auto|JINJA",
                help="The output's, instead of the donor's",
            ),
        ),
    )


def parameters(command: _Function) -> Callable[..., Any]:
    """Adds the options for a method's parameters, and for its modifiers."""
    return _decorated(
        command,
        (
            _several("--weight", "One for all models, or one a model"),
            _several("--density", "The share kept; one for all models, or one a model"),
            _several("--lambda", "The scale of the merged change", "lambda_"),
            click.option(
                "--set",
                "settings",
                multiple=True,
                metavar="KEY=VALUE",
                callback=_settings,
                help="Any other parameter, like rescale=l1 or scope=model",
            ),
            click.option(
                "--modifier",
                "modifiers",
                multiple=True,
                metavar="NAME:KEY=VALUE,...",
                callback=_modifiers,
                help="What acts on the merged change, like boost or boost:beta=0.2; in order",
            ),
        ),
    )


def _several(option: str, meaning: str, *names: str) -> Callable[[Any], Any]:
    return click.option(option, *names, type=float, multiple=True, help=meaning)


def printing(command: _Function) -> Callable[..., Any]:
    """Adds `--json` and `--quiet`."""
    return _decorated(command, _PRINTING)


def as_json(command: _Function) -> Callable[..., Any]:
    """Adds `--json` to a command whose whole purpose is to print."""
    return _decorated(command, _PRINTING[:1])


def given_parameters(
    weight: tuple[float, ...],
    density: tuple[float, ...],
    lambda_: tuple[float, ...],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """The method's parameters as `recipe.build` takes them.

    Raises:
        click.UsageError: A parameter is given by its own option and by `--set` too.
    """
    named = {"weight": weight, "density": density, "lambda": lambda_}
    given = {name: one_or_each(values) for name, values in named.items() if values}
    for name in given.keys() & settings.keys():
        raise click.UsageError(f"{name} is given twice, by --{name} and by --set")
    return {**given, **settings}


def one_or_each(values: tuple[float, ...]) -> float | tuple[float, ...]:
    """A repeated option's meaning: one value for all models, or one a model."""
    return values[0] if len(values) == 1 else values


def _decorated(command: Callable[..., Any], options: tuple[Any, ...]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command
