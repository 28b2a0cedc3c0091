"""What becomes of mergekit-yaml's flags? Mapped, accepted with a note, or refused with a reason.

A shell script that called mergekit-yaml calls `mergecore run` instead, and keeps its flags.
docs/mergekit.md has the same table for people.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from mergecore.cli.options import parse_size

_ALWAYS_LITTLE = "memory is small anyway; --max-memory bounds it"
_CPU = "--device cuda has a GPU work formulas out; else the CPU does, and the disk is the limit"

_ACCEPTED = {
    "--allow-crimes": "tensors are matched by name and shape, whatever the architecture is called",
    "--trust-remote-code": "no code of a model is run",
    "--low-cpu-memory": _ALWAYS_LITTLE,
    "--lazy-unpickle": "files are always read in place",
    "--cuda": _CPU,
    "--read-to-gpu": _CPU,
    "--multi-gpu": _CPU,
    "--gpu-rich": _CPU,
    "--async-write": "reading, arithmetic and writing always overlap",
    "--clone-tensors": "every tensor is written by itself",
    "--copy-tokenizer": "the donor's tokenizer is always copied",
    "--write-model-card": "a model card is always written",
    "--safe-serialization": "the output is always safetensors",
}
"""Flags that ask for what is so in any case, and why."""

_ACCEPTED_WITH_VALUE = {
    "--lora-merge-cache": "adapters are applied while they are read, without a cache",
    "--lora-merge-dtype": "adapters are applied in float32",
    "--write-threads": "all threads write",
}

_REFUSED = {
    "--no-safe-serialization": "the output is always safetensors; convert it afterwards",
    "--no-copy-tokenizer": "the output is a whole model; delete its tokenizer afterwards",
    "--no-write-model-card": "the output says where it comes from; delete README.md afterwards",
    "--unsafe-truncate-embeddings": "rows of different tokens would be averaged; bring the models "
    "to one vocabulary first",
}

_OFF = (
    *("--no-allow-crimes", "--no-trust-remote-code", "--no-low-cpu-memory", "--no-lazy-unpickle"),
    *("--no-cuda", "--no-read-to-gpu", "--no-multi-gpu", "--no-async-write", "--no-clone-tensors"),
    *("--no-quiet", "--no-unsafe-truncate-embeddings"),
)
"""What is off in mergekit unless asked for: scripts that spell everything out have it, too."""


def accepted(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds mergekit-yaml's flags to a command; `mapped` tells what they mean to it."""
    for flag, reason in {**_ACCEPTED, **_REFUSED}.items():
        command = click.option(
            flag, is_flag=True, hidden=True, expose_value=False, callback=_noted(reason)
        )(command)
    for flag in _OFF:
        command = click.option(flag, is_flag=True, hidden=True, expose_value=False)(command)
    for flag, reason in _ACCEPTED_WITH_VALUE.items():
        command = click.option(flag, hidden=True, expose_value=False, callback=_noted(reason))(
            command
        )
    for names, convert in _MAPPED.items():
        command = click.option(*names, hidden=True, expose_value=False, callback=convert)(command)
    return click.option("-v", "--verbose", count=True, hidden=True, expose_value=False)(command)


def notes(ctx: click.Context) -> list[str]:
    """What is to be said of the flags that were given."""
    said: list[str] = ctx.meta.get(_NOTES, [])
    return said


def mapped(ctx: click.Context) -> dict[str, Any]:
    """`seed`, `shard_size` and `threads`, where mergekit's flags gave them."""
    chosen: dict[str, Any] = ctx.meta.get(_CHOSEN, {})
    return chosen


_NOTES, _CHOSEN = "mergecore.mergekit.notes", "mergecore.mergekit.chosen"

_Callback = Callable[[click.Context, click.Parameter, Any], None]


def _noted(reason: str) -> _Callback:
    def note(ctx: click.Context, option: click.Parameter, value: Any) -> None:
        flag = option.opts[0]
        if value and flag in _REFUSED:
            raise click.UsageError(f"mergekit's {flag} is not honoured: {reason}")
        if value:
            ctx.meta.setdefault(_NOTES, []).append(f"mergekit's {flag} changes nothing: {reason}")

    return note


def _chosen(name: str, convert: Callable[[str], Any]) -> _Callback:
    def choose(ctx: click.Context, option: click.Parameter, value: str | None) -> None:
        if value is None:
            return
        try:
            ctx.meta.setdefault(_CHOSEN, {})[name] = convert(value)
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is no whole number") from error

    return choose


def _cache(_ctx: click.Context, _option: click.Parameter, folder: str | None) -> None:
    if folder is not None:
        os.environ["HF_HUB_CACHE"] = folder  # read when the hub's client is first imported


_MAPPED: dict[tuple[str, ...], _Callback] = {
    ("--random-seed",): _chosen("seed", int),
    ("--out-shard-size",): _chosen("shard_size", parse_size),
    ("-j", "--num-threads"): _chosen("threads", int),
    ("--transformers-cache",): _cache,
}
