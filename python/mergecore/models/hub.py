"""Where is a model? A reference becomes a folder or file on this machine.

A reference is a local path, or a hub id `org/name[@revision]`; `model+adapter` is two of them. What
exists locally wins.
"""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from mergecore.errors import ModelError, ModelNotFoundError
from mergecore.models import reference as references

_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
    "pytorch_model.bin.index.json", "adapter_model.safetensors", "adapter_model.bin",
)  # fmt: skip


def locate_both(reference: str, *, quiet: bool = False) -> tuple[Path, Path | None]:
    """Finds a model, and the adapter on it if the reference is `model+adapter`.

    Raises:
        MergecoreError: As `locate` does.
    """
    model, adapter = references.split(reference)
    if adapter is None:
        return locate(model, quiet=quiet), None
    if not model or not adapter:
        raise ModelError(f"{reference}: an adapter on a model is given as MODEL+ADAPTER")
    return locate(model, quiet=quiet), locate(adapter, wanted="adapter", quiet=quiet)


def locate(
    reference: str,
    *,
    wanted: Literal["model", "adapter", "tokenizer"] = "model",
    quiet: bool = False,
) -> Path:
    """Finds a model on this machine, or fetches it from the hub.

    Args:
        reference: A local folder or weights file, or `org/name[@revision]`.
        wanted: What of it is fetched: of an adapter the weights and their config, of a tokenizer's
            model no weights.
        quiet: Show no progress of a download.

    Returns:
        The folder or file. A hub model's is in the hub's cache, and is not downloaded again.

    Raises:
        ModelNotFoundError: It is neither here nor to be had; the message says the way out.
        ModelError: The reference is one that cannot be merged, or what is there is no model's.
    """
    path = Path(reference).expanduser()
    if path.exists():
        _check_plain(path)
        return path
    match = _HUB_ID.fullmatch(reference)
    if match is None or _looks_local(reference):
        raise ModelNotFoundError(f"{reference}: no such file or folder{_sibling(path)}")
    from mergecore.models import download

    hint = _sibling(Path(match["repo"]))
    return download.fetch(
        reference, match["repo"], match["revision"], wanted=wanted, quiet=quiet, hint=hint
    )


def is_hub_id(reference: str) -> bool:
    """Whether a reference that is not a local path reads as `org/name[@revision]`."""
    return _HUB_ID.fullmatch(reference) is not None and not _looks_local(reference)


def is_here(reference: str, config: str = "config.json") -> bool:
    """Whether a model, or an adapter by its config's name, need not be fetched. Never downloads.

    In the hub's cache a config alone may be there of an earlier look; the weights are what takes
    gigabytes.
    """
    if Path(reference).expanduser().exists():
        return True
    match = _HUB_ID.fullmatch(reference)
    if match is None or _looks_local(reference):
        return False
    from huggingface_hub import try_to_load_from_cache

    def is_kept(file: str) -> bool:
        found = try_to_load_from_cache(match["repo"], file, revision=match["revision"])
        return isinstance(found, str)

    return is_kept(config) and any(map(is_kept, _WEIGHTS))


def is_known(reference: str) -> bool:
    """Whether the hub, or its cache on this machine, has a model of that id. Never raises."""
    match = _HUB_ID.fullmatch(reference)
    if match is None:
        return False
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(match["repo"], "config.json", revision=match["revision"])
    except Exception:  # as in download.fetch
        return False
    return True


def _check_plain(model: Path) -> None:
    """Refuses a pipe or a device among a model's files: who opens it may wait for ever."""
    try:
        entries = list(model.iterdir()) if model.is_dir() else [model]
    except OSError:
        return  # whoever reads the files says what is wrong
    for entry in entries:
        if entry.exists() and not entry.is_file() and not entry.is_dir():
            raise ModelError(f"{entry}: is no regular file; move it out of the model's folder")


def _looks_local(reference: str) -> bool:
    path = Path(reference).expanduser()
    return (
        path.is_absolute()
        or reference.startswith((".", "~"))
        or reference.endswith((".safetensors", ".bin", ".pt", ".pth", "/"))
    )


def _sibling(path: Path) -> str:
    """`; did you mean "x"?` for the entry beside `path` whose name is nearest."""
    try:
        names = [entry.name for entry in os.scandir(path.parent) if not entry.name.startswith(".")]
    except OSError:
        return ""
    near = get_close_matches(path.name, names, n=1)
    return f'; did you mean "{path.parent / near[0]}"?' if near else ""
