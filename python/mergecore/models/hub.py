"""Where is a model? A reference becomes a folder or file on this machine.

A reference is a local path, or a hub id `org/name[@revision]`; `model+adapter` is two of them. What
exists locally wins.
"""

from __future__ import annotations

import json
import os
import re
import sys
from difflib import get_close_matches
from pathlib import Path

from mergecore.errors import ModelError, ModelNotFoundError
from mergecore.models import reference as references

_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")

# Weights in safetensors and all side files. What nothing reads stays where it is: other formats of
# the same weights, Mistral's consolidated second copy, and folders, which hold other models.
_WANTED = [
    *("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.py", "*.tiktoken", "*.bpe"),
    *("*.md", "LICENSE*", "NOTICE*"),
]
_UNWANTED = ["consolidated*", "*/*"]
_OF_AN_ADAPTER = ["adapter_*.safetensors", "adapter_*.json"]


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
    return locate(model, quiet=quiet), locate(adapter, adapter=True, quiet=quiet)


def locate(reference: str, *, adapter: bool = False, quiet: bool = False) -> Path:
    """Finds a model on this machine, or fetches it from the hub.

    Args:
        reference: A local folder or `.safetensors` file, or `org/name[@revision]`.
        adapter: Whether it is an adapter, of which only the weights and their config are fetched.
        quiet: Show no progress of a download.

    Returns:
        The folder or file. A hub model's is in the hub's cache, and is not downloaded again.

    Raises:
        ModelNotFoundError: It is neither here nor to be had; the message says the way out.
        ModelError: The reference is one that cannot be merged.
    """
    path = Path(reference).expanduser()
    if path.exists():
        return path
    match = _HUB_ID.fullmatch(reference)
    if match is None or _looks_local(reference):
        raise ModelNotFoundError(f"{reference}: no such file or folder{_sibling(path)}")
    wanted = _OF_AN_ADAPTER if adapter else _WANTED
    folder = _fetch(reference, match["repo"], match["revision"], wanted, quiet)
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{reference}: the hub has no safetensors weights of it, the only format that is read; "
            "save it once with transformers' save_pretrained and give the folder"
        )
    if not adapter and all(
        file.name.startswith("adapter_") for file in folder.glob("*.safetensors")
    ):
        base = _base_of_adapter(folder)
        raise ModelError(f"{reference}: is an adapter, not a model; give {base}+{reference}")
    return folder


def is_hub_id(reference: str) -> bool:
    """Whether a reference that is not a local path reads as `org/name[@revision]`."""
    return _HUB_ID.fullmatch(reference) is not None and not _looks_local(reference)


def is_known(reference: str) -> bool:
    """Whether the hub, or its cache on this machine, has a model of that id. Never raises."""
    match = _HUB_ID.fullmatch(reference)
    if match is None:
        return False
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(match["repo"], "config.json", revision=match["revision"])
    except Exception:  # see _fetch
        return False
    return True


def _fetch(reference: str, repo: str, revision: str | None, wanted: list[str], quiet: bool) -> Path:
    from huggingface_hub import snapshot_download, utils

    # The client's progress bar is for terminals; in a pipe it is a line after a line.
    hush = quiet or not sys.stderr.isatty()
    hush = hush and not utils.are_progress_bars_disabled()  # type: ignore[attr-defined]
    if hush:
        utils.disable_progress_bars()  # type: ignore[attr-defined]
    try:
        folder = snapshot_download(
            repo, revision=revision, allow_patterns=wanted, ignore_patterns=_UNWANTED
        )
    except Exception as error:
        # The client lets through the errors of its HTTP library, which has changed before and
        # whose classes have no ancestor of their own. Nothing but the client runs here.
        raise ModelNotFoundError(f"{reference}: {_refusal(error, repo, revision)}") from error
    finally:
        if hush:
            utils.enable_progress_bars()  # type: ignore[attr-defined]
    return Path(folder)


def _base_of_adapter(folder: Path) -> str:
    """The model that an adapter says it is for."""
    try:
        base = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        return str(base["base_model_name_or_path"] or "MODEL")
    except (OSError, ValueError, KeyError, TypeError):
        return "MODEL"


def _refusal(error: Exception, repo: str, revision: str | None) -> str:
    """Why the hub gave nothing, and the way out, in one line."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    local = _sibling(Path(repo).expanduser())
    if isinstance(error, GatedRepoError):
        page = f"{constants.ENDPOINT}/{repo}"
        return f"the model is gated; accept its terms at {page} and log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return (
            "no such folder, and the hub has no such model "
            f"(a private one needs `hf auth login`){local}"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"the model has no revision {revision!r}"
    if isinstance(error, HFValidationError):
        return f"no such folder, and not a hub id{local}"
    if constants.HF_HUB_OFFLINE:
        return (
            "no such folder, not in the hub's cache, and HF_HUB_OFFLINE forbids fetching it; "
            f"unset it, or give a local folder{local}"
        )
    if isinstance(error, LocalEntryNotFoundError | ConnectionError):
        return (
            "no such folder, not in the hub's cache, and the hub cannot be reached; "
            f"check the network, or give a local folder{local}"
        )
    return f"the hub refused it: {' '.join(str(error).split())}"


def _looks_local(reference: str) -> bool:
    path = Path(reference).expanduser()
    return (
        path.is_absolute()
        or reference.startswith((".", "~"))
        or reference.endswith((".safetensors", "/"))
    )


def _sibling(path: Path) -> str:
    """`; did you mean "x"?` for the entry beside `path` whose name is nearest."""
    try:
        names = [entry.name for entry in os.scandir(path.parent) if not entry.name.startswith(".")]
    except OSError:
        return ""
    near = get_close_matches(path.name, names, n=1)
    return f'; did you mean "{path.parent / near[0]}"?' if near else ""
