"""Who answers? Each backend takes requests and hands back replies as they are finished."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from mergecore.errors import RecipeError
from mergecore.evaluate.decoding import Decoding


@dataclass(frozen=True)
class Request:
    """One prompt."""

    id: str
    messages: list[dict[str, str]]


@dataclass(frozen=True)
class Reply:
    """One answer."""

    id: str
    output: str
    finish_reason: str
    """`stop`, or `length` where the limit cut it off."""
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Refused:
    """A prompt that got no answer, and why."""

    id: str
    reason: str


Tell: TypeAlias = Callable[[Reply | Refused], None]
"""Called with each reply as soon as it is there."""


class Backend(Protocol):
    """What `generate` needs of a backend."""

    name: str

    def answer(self, requests: Sequence[Request], decoding: Decoding, tell: Tell) -> None:
        """Answers every request."""


def is_installed(package: str) -> bool:
    """Whether a package can be imported; it is not."""
    return importlib.util.find_spec(package) is not None


def need(package: str, extra: str) -> None:
    """Refuses to go on without a package.

    Raises:
        RecipeError: It is not installed; the message says how to.
    """
    if not is_installed(package):
        raise RecipeError(f"{package} is not installed: pip install 'mergecore[{extra}]'")
