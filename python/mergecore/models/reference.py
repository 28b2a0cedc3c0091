"""What does a reference name? A model, or a model with an adapter on it: `model+adapter`.

Each part is a local path or a hub id `org/name[@revision]`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def split(reference: str) -> tuple[str, str | None]:
    """The model, and the adapter if there is one.

    Paths may hold a `+` of their own: what is there as a whole is a model, and of several places to
    cut, one where both parts are there comes first, then one where either is.
    """
    if "+" not in reference or _is_here(reference):
        return reference, None
    plus = [place for place, letter in enumerate(reference) if letter == "+"]
    cuts = [(reference[:place], reference[place + 1 :]) for place in plus]
    # max() takes the first of equals.
    return max(cuts, key=lambda parts: sum(map(_is_here, parts)))


def each_part(reference: str, change: Callable[[str], str]) -> str:
    """The same reference with the model and the adapter passed through `change`."""
    return "+".join(change(part) for part in split(reference) if part is not None)


def _is_here(part: str) -> bool:
    return bool(part) and Path(part).expanduser().exists()
