"""What of a hub's model is fetched, and what is said when the hub gives nothing?

Side files first: among them are the indexes, which say what the weights are. Then the weights, in
one format. The client goes on within a file when a connection breaks, and keeps every file that
came whole; of a file that a killed process was fetching it keeps nothing (huggingface_hub 2).
"""

from __future__ import annotations

import contextlib
import errno
import json
import sys
from collections.abc import Iterator, Sequence
from glob import escape
from pathlib import Path

from mergecore.errors import ModelError, ModelNotFoundError
from mergecore.models.stated import json_object

# What nothing reads stays where it is: pictures, and folders, which hold other models.
_SIDE_FILES = [
    *("*.json", "*.jinja", "*.txt", "*.model", "*.py", "*.tiktoken", "*.bpe", "*.md"),
    *("LICENSE*", "NOTICE*"),
]

# In the order of preference, as in the engine: the index, the single file, the endings.
_FORMATS = (
    ("model.safetensors.index.json", "model.safetensors", (".safetensors",)),
    ("pytorch_model.bin.index.json", "pytorch_model.bin", (".bin", ".pt", ".pth")),
)
_OF_AN_ADAPTER = ["adapter_*.safetensors", "adapter_*.json"]
_NO_WEIGHTS = (
    *("training_args", "optimizer", "scheduler", "scaler", "rng_state", "random_states"),
    *("adapter_", "consolidated"),  # Mistral's second copy of the weights
)


def fetch(
    reference: str,
    repo: str,
    revision: str | None,
    *,
    wanted: str = "model",
    quiet: bool,
    hint: str = "",
) -> Path:
    """Fetches a model, or finds it in the hub's cache.

    Args:
        reference: What the user wrote, for messages.
        repo: `org/name`.
        revision: A branch, tag or commit; the main branch if left out.
        wanted: `model`; `adapter` for its weights and their config; `tokenizer` for no weights.
        quiet: Show no progress.
        hint: What to add where the user may have meant a local folder.

    Returns:
        The folder in the hub's cache.

    Raises:
        ModelNotFoundError: The hub does not give it; the message says the way out.
        ModelError: It has no weights that can be merged.
    """
    from huggingface_hub import HfApi, snapshot_download

    @contextlib.contextmanager
    def asking() -> Iterator[None]:
        try:
            with _progress(quiet):
                yield
        except Exception as error:
            # The client lets through the errors of its HTTP library, which has changed before and
            # whose classes have no ancestor of their own. Nothing but the client runs here.
            refusal = _refusal(error, repo, revision, hint)
            raise ModelNotFoundError(f"{reference}: {refusal}") from error

    if wanted == "adapter":
        with asking():
            found = snapshot_download(repo, revision=revision, allow_patterns=_OF_AN_ADAPTER)
        if not any(Path(found).glob("*.safetensors")):
            raise ModelError(
                f"{reference}: the hub has no adapter_model.safetensors of it, the only adapters "
                "that are read; save it once with peft's save_pretrained and give the folder"
            )
        return Path(found)
    with asking():
        side_files = snapshot_download(
            repo, revision=revision, allow_patterns=_SIDE_FILES, ignore_patterns=["*/*"]
        )
    folder = Path(side_files)
    if wanted == "tokenizer":
        return folder
    weights = _weights([path.name for path in folder.iterdir()], folder)
    if weights and all((folder / name).exists() for name in weights):
        return folder
    with asking():
        # Unlike a download this does not try again for half a minute if the network is down.
        siblings = HfApi().model_info(repo, revision=folder.name).siblings or []
    names = [sibling.rfilename for sibling in siblings]
    weights = _weights(names, folder)
    if not weights:
        raise ModelError(f"{reference}: {_why_none(names, reference, folder)}")
    if len(weights) > 1 and not any(_shards(folder / index) for index, _, _ in _FORMATS):
        raise ModelError(
            f"{reference}: the hub has {len(weights)} weights files of it ({weights[0]}, …) and no "
            "index that says which belong together; download one and give the file"
        )
    with asking():
        exactly = [escape(name) for name in weights]
        snapshot_download(repo, revision=folder.name, allow_patterns=exactly)
    return folder


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[None]:
    """The client's progress bars are for terminals; in a pipe they are a line after a line."""
    from huggingface_hub import utils

    hush = quiet or not sys.stderr.isatty()
    hush = hush and not utils.are_progress_bars_disabled()  # type: ignore[attr-defined]
    if hush:
        utils.disable_progress_bars()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if hush:
            utils.enable_progress_bars()  # type: ignore[attr-defined]


def _weights(names: Sequence[str], folder: Path) -> list[str]:
    """The files that hold the weights: those of the preferred format's index, if it has one."""
    for index, single, endings in _FORMATS:
        if index in names and (shards := _shards(folder / index)):
            return sorted(shards)
        if single in names:
            return [single]
        others = [name for name in names if name.endswith(endings) and "/" not in name]
        chosen = [name for name in others if not name.startswith(_NO_WEIGHTS)]
        if chosen:
            return sorted(chosen)
        if others == ["consolidated.safetensors"]:
            return others
    return []


def _shards(index: Path) -> set[str]:
    """The files that an index names; none if it is not one, which the engine then says."""
    try:
        files = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return set()
    return {file for file in files if isinstance(file, str)}


def _why_none(names: Sequence[str], reference: str, folder: Path) -> str:
    if "adapter_config.json" in names:
        return f"is an adapter, not a model; give {_base_of_adapter(folder)}+{reference}"
    if any(name.endswith(".gguf") for name in names):
        return (
            "the hub has only GGUF weights of it, which are quantised; "
            "give the model that they were made from"
        )
    return (
        "the hub has no safetensors or .bin weights of it, the formats that are read; "
        "save it once with transformers' save_pretrained and give the folder"
    )


def _base_of_adapter(folder: Path) -> str:
    """The model that an adapter says it is for."""
    base = json_object(folder / "adapter_config.json").get("base_model_name_or_path")
    return str(base or "MODEL")


def _refusal(error: Exception, repo: str, revision: str | None, hint: str) -> str:
    """Why the hub gave nothing, and the way out, in one line."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        page = f"{constants.ENDPOINT}/{repo}"
        return (
            f"the model is gated; accept its terms at {page} and log in with `hf auth login`, "
            "or set HF_TOKEN"
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            "no such folder, and the hub has no such model "
            f"(a private one needs `hf auth login` or HF_TOKEN){hint}"
        )
    if isinstance(error, RevisionNotFoundError):
        page = f"{constants.ENDPOINT}/{repo}/tree/main"
        return f"the model has no revision {revision!r}; {page} lists those that it has"
    if isinstance(error, HFValidationError):
        return f"no such folder, and not a hub id{hint}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk of the hub's cache, {constants.HF_HUB_CACHE}, is full; free some or set "
            "HF_HOME to another disk, and run the same command again: whole files are kept"
        )
    if constants.HF_HUB_OFFLINE:
        return (
            "no such folder, not whole in the hub's cache, and HF_HUB_OFFLINE forbids fetching it; "
            f"unset it, or give a local folder{hint}"
        )
    status = _status(error)
    if status in (401, 403):
        return (
            f"the hub forbids it ({status}); is the token (`hf auth login` or HF_TOKEN) one that "
            f"may read {constants.ENDPOINT}/{repo}?"
        )
    if status is not None:
        again = "try again later" if status == 429 or status >= 500 else "check HF_ENDPOINT"
        return f"{constants.ENDPOINT} refused it with HTTP status {status}; {again}"
    if isinstance(error, LocalEntryNotFoundError | ConnectionError) or _is_network(error):
        return (
            f"no such folder, not whole in the hub's cache, and {constants.ENDPOINT} cannot be "
            f"reached; check the network, or give a local folder{hint}"
        )
    return f"the hub refused it: {' '.join(str(error).split())}"


def _status(error: BaseException | None) -> int | None:
    """The HTTP status behind an error: the client wraps what it could not make up for."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None


def _is_network(error: Exception) -> bool:
    """Whether it is the HTTP library's: its classes are named, not imported, since it changes."""
    return type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "requests")
