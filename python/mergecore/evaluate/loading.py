"""By what is a model run, to answer or to score?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mergecore.evaluate.backends import address, is_installed
from mergecore.models import hub
from mergecore.models.stated import json_object

if TYPE_CHECKING:
    from mergecore.evaluate.backends.transformers import Load
    from mergecore.streaming import Stream

Made: TypeAlias = tuple[Callable[[], Any], dict[str, Any]]
"""What makes a backend or a reward model, and what of the request decides its rows."""


def chosen_backend(backend: str) -> str:
    """The backend's name, `auto` decided."""
    if backend != "auto":
        return backend
    return "vllm" if is_installed("vllm") else "transformers"


def fingerprint(folder: Path) -> list[list[Any]]:
    """Tells a model's weights from others under the same name: files, sizes and times."""
    place = folder if folder.is_dir() else folder.parent
    files = sorted([*place.glob("*.safetensors"), *place.glob("*.bin")])
    return [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]


def backend_of(
    model: str,
    base_url: str | None,
    batch_size: int,
    quiet: bool,
    *,
    backend: str,
    dtype: str | None,
    device: str | None,
    chat_template: str | None,
    load: Load | None = None,
    merged: Callable[[], Stream] | None = None,
) -> Made:
    """What answers.

    `load` gives transformers the model, and `merged` its weights to vLLM, if the folder `model` has
    none.
    """
    if base_url is not None:
        from mergecore.evaluate.backends.openai import Server

        return lambda: Server(base_url, model, concurrency=batch_size), {
            "base_url": address(base_url)
        }
    from mergecore.evaluate.backends.transformers import Transformers
    from mergecore.evaluate.backends.vllm import VllmEngine

    folder, name, about = _located(model, backend, dtype, chat_template, quiet)
    own: dict[str, Any] = {"template": chat_template, "dtype": dtype}
    if name == "vllm":
        return lambda: VllmEngine(folder, model, **own, merged=merged and merged()), about
    own |= {"device": device, "batch_size": batch_size, "model": load}
    return lambda: Transformers(folder, model, **own), about


def scorer_of(
    model: str,
    backend: str,
    dtype: str | None,
    device: str | None,
    chat_template: str | None,
    quiet: bool,
) -> Made:
    """What scores."""
    from mergecore.evaluate.scorers import TransformersReward, VllmReward

    folder, name, about = _located(model, backend, dtype, chat_template, quiet)
    if name == "vllm":
        return lambda: VllmReward(folder, model, dtype=dtype, template=chat_template), about
    return lambda: TransformersReward(
        folder, model, dtype=dtype, device=device, template=chat_template
    ), about


def _located(
    model: str, backend: str, dtype: str | None, chat_template: str | None, quiet: bool
) -> tuple[Path, str, dict[str, Any]]:
    """Where a model is, its backend's name, and what of both decides what comes out: rows of two
    are not mixed."""
    folder = hub.locate(model, quiet=quiet)
    name = chosen_backend(backend)
    if backend == "auto" and json_object(folder / "config.json").get("is_encoder_decoder"):
        name = "transformers"  # vLLM takes none
    about = {"backend": name, "dtype": dtype, "chat_template": chat_template}
    return folder, name, {**about, "weights": fingerprint(folder)}
