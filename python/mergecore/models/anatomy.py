"""What is in a model? Its tensors, and what its config says of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mergecore import _mergecore, side_files
from mergecore.models.stated import json_object
from mergecore.tokenizer import chat_template


def describe(location: Path, adapter: Path | None = None) -> dict[str, Any]:
    """Describes a model from its headers and config; no weight is read.

    Args:
        location: A model's folder, or a weights file.
        adapter: The folder of an adapter on it.

    Returns:
        `path`, `format` (safetensors or torch), `passed_over` (entries of a torch file that are no
        tensors), `files` (name and bytes of each), `bytes`, `parameters`, `dtypes` (how
        many tensors of each), `layers`, `vocabulary_rows` (of the embedding), `architecture`,
        `tied` (whether one tensor is embedding and head; None if that cannot be told),
        `chat_template` (the file that has it, or None), and `tensors`
        (name, dtype, shape and file of each).

    Raises:
        ModelError: The checkpoint is malformed.
        ModelNotFoundError: There is none.
    """
    found = json.loads(
        _mergecore.checkpoint(str(location), None if adapter is None else str(adapter))
    )
    config = json_object(side_files.folder_of(location) / "config.json")
    names = [tensor["name"] for tensor in found["tensors"]]
    return {
        "path": found["path"],
        "architecture": (config.get("architectures") or [config.get("model_type")])[0],
        "format": found["format"],
        "passed_over": found["passed_over"],
        "files": found["files"],
        "bytes": found["bytes"],
        "parameters": found["parameter_count"],
        "dtypes": dict(Counter(tensor["dtype"] for tensor in found["tensors"]).most_common()),
        "layers": found["layers"],
        "vocabulary_rows": found["vocabulary_rows"],
        "tied": _tied(names, config),
        "chat_template": chat_template.find(side_files.folder_of(location)),
        "tensors": found["tensors"],
    }


def _tied(names: Iterable[str], config: dict[str, Any]) -> bool | None:
    """A head that is a tensor of its own is used unless the config says that it is tied."""
    has_head = any(name.endswith("lm_head.weight") for name in names)
    stated = config.get("tie_word_embeddings")
    if isinstance(stated, bool):
        return stated
    return None if not config else not has_head
