"""Who answers? Each backend takes requests and hands back replies as they are finished."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias
from urllib.parse import urlsplit, urlunsplit

from mergecore.errors import RecipeError, RunError
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


class Tell(Protocol):
    """Called with each reply as soon as it is there; with those of a batch at once.

    A kill then costs whole batches, which the next run puts together as they were: answers that
    were made in other company may differ by rounding.
    """

    def __call__(self, *replies: Reply | Refused) -> None: ...


class NotTakenError(RunError):
    """A model that runs has not taken the weights that it was given."""


Weights: TypeAlias = Iterable[tuple[str, Any]]
"""A model's tensors, of torch, by name; to be read once."""


class Backend(Protocol):
    """What `generate` needs of a backend."""

    name: str

    def answer(self, requests: Sequence[Request], decoding: Decoding, tell: Tell) -> None:
        """Answers every request."""


def is_installed(package: str) -> bool:
    """Whether a package can be imported; it is not."""
    return importlib.util.find_spec(package) is not None


def address(url: str) -> str:
    """A server's URL without a name, a password or a query, which may be secrets."""
    parts = urlsplit(url)
    return urlunsplit(
        (parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", "")
    )


def without_secrets(error: BaseException, *secrets: str | None) -> str:
    """What a server says went wrong, in one line. Some quote the request, and with it the key."""
    said = " ".join(str(error).split())
    for secret in filter(None, secrets):
        said = said.replace(secret, "[secret]")
    return said[:200]


def secrets_of(key: str | None, url: str | None) -> list[str]:
    """What must not be repeated: the key, and the password of a server's URL."""
    password = urlsplit(url).password if url else None
    return [secret for secret in (key, password) if secret]


def why_not(error: BaseException) -> str:
    """Why transformers does not load a model, in one line.

    Everything is loaded with `trust_remote_code=False`: without it transformers asks the terminal,
    and a "y" that was meant for something else would run a stranger's code.
    """
    if "trust_remote_code" in str(error):
        return "it needs code of its own, and code that comes with a model is not run"
    return " ".join(str(error).split())[:300]


def no_bars() -> None:
    """Progress is shown by the commands; transformers and vLLM are not to add theirs."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def device_of(device: str | None) -> str:
    """Where a model runs by torch: as told, else on a GPU if there is one.

    Raises:
        RecipeError: There is no such device.
    """
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise RecipeError(f"device {device!r}: {str(error).splitlines()[0]}") from error
    return device


def need(package: str, extra: str) -> None:
    """Refuses to go on without a package.

    Raises:
        RecipeError: It is not installed; the message says how to.
    """
    if not is_installed(package):
        raise RecipeError(f"{package} is not installed: pip install 'mergecore[{extra}]'")
