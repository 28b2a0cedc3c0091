"""What do `KEY=VALUE` and `NAME:KEY=VALUE,...` say on the command line?"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import click

_CLOSES = {"[": "]", "{": "}", "'": "'", '"': '"'}


def settings(texts: Iterable[str]) -> dict[str, Any]:
    """`a.b=1` as `{"a": {"b": 1}}`; values are YAML.

    Raises:
        click.BadParameter: A text is not KEY=VALUE, a value is no YAML, or a key is given twice.
    """
    import yaml

    result: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"{text!r} is not KEY=VALUE")
        *path, last = key.strip().split(".")
        place: Any = result
        for part in path:
            place = place.setdefault(part, {}) if isinstance(place, dict) else place
        if not isinstance(place, dict) or last in place:
            raise click.BadParameter(f"{key.strip()} is given twice")
        try:
            place[last] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError) as error:  # ValueError: dates like 2020-99-99
            raise click.BadParameter(f"the value of {key.strip()} is no YAML: {value}") from error
    return result


def modifier(text: str) -> str | dict[str, Any]:
    """`boost` as it is, `boost:beta=0.2,rank-tol=1e-3` as a recipe says it.

    In names and keys hyphens are underscores. A comma inside brackets or quotes is the value's own.

    Raises:
        click.BadParameter: It is neither; which modifiers and keys there are, the engine knows.
    """
    name, colon, rest = text.partition(":")
    name = name.strip().replace("-", "_")
    if not re.fullmatch(r"\w+", name):
        raise click.BadParameter(f"{text!r} is no modifier; write it like boost or boost:beta=0.2")
    if not colon:
        return name
    pieces = []
    for piece in _pieces(rest):
        key, equals, value = piece.partition("=")
        if not equals or not all(map(str.strip, [*key.split("."), value])):
            wrong = (
                f"{piece.strip()!r} is not KEY=VALUE" if piece.strip() else "a KEY=VALUE is empty"
            )
            raise click.BadParameter(f"{text!r}: {wrong}; write it like {name}:KEY=VALUE,KEY=VALUE")
        pieces.append(f"{key.replace('-', '_')}={value}")
    try:
        return {name: settings(pieces)}
    except click.BadParameter as error:
        raise click.BadParameter(f"{text!r}: {error.message}") from error


def _pieces(text: str) -> list[str]:
    """The text cut at the commas that stand in no brackets and no quotes."""
    pieces, open_ones = [""], ""
    for letter in text:
        if open_ones and letter == _CLOSES[open_ones[-1]]:
            open_ones = open_ones[:-1]
        elif letter in _CLOSES and open_ones[-1:] not in ("'", '"'):
            open_ones += letter
        if letter == "," and not open_ones:
            pieces.append("")
        else:
            pieces[-1] += letter
    return pieces
