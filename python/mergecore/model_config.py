"""What must the output's config.json say? The donor's, made true of the output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mergecore.errors import ModelError
from mergecore.tokenizer.files import renumbered

_LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers")


def rendered(
    donor: Path, summary: Mapping[str, Any], moved: Mapping[int, int] | None = None
) -> bytes:
    """The donor's config.json with what it says of the weights made true of the output.

    Args:
        donor: The donor's config.json.
        summary: The plan's summary; `dtype`, `layers`, `tied`, `untied` and `vocabulary` are read.
        moved: The donor's token ids, and what they are in the output.

    Raises:
        ModelError: The file is not a JSON object.
    """
    config = read(donor)
    corrected = corrected_config(config, summary)
    if moved is not None:
        corrected = renumbered(corrected, moved)
    return donor.read_bytes() if corrected == config else as_json(corrected)


def read(file: Path) -> dict[str, Any]:
    """The content of a config.

    Raises:
        ModelError: The file is not a JSON object.
    """
    try:
        config = json.loads(file.read_bytes())
    except ValueError as error:
        raise ModelError(f"{file}: not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{file}: a config is a JSON object")
    return config


def as_json(config: Mapping[str, Any]) -> bytes:
    """A config as its file has it."""
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()


def corrected_config(config: dict[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a config with dtype, layer count, vocabulary and tied embeddings made true."""
    config = dict(config)
    # A multimodal model's language part has a config of its own inside.
    text = dict(config["text_config"]) if isinstance(config.get("text_config"), dict) else {}
    parts = (config, text) if text else (config,)
    if summary.get("dtype"):
        _set_dtype(parts, summary["dtype"])
    if summary.get("layer_origins"):
        _gather_layers(text or config, [layer for _, layer in summary["layer_origins"]])
    if summary.get("layers"):
        _set_layers(text or config, summary["layers"])
    if summary.get("vocabulary"):
        for part in parts:
            if "vocab_size" in part or part is parts[-1]:
                part["vocab_size"] = summary["vocabulary"]["rows"]
    if summary.get("tied") or summary.get("untied"):
        config["tie_word_embeddings"] = bool(summary.get("tied"))
        if "tie_word_embeddings" in text:
            text["tie_word_embeddings"] = config["tie_word_embeddings"]
    if text:
        config["text_config"] = text
    return config


def _set_dtype(parts: tuple[dict[str, Any], ...], dtype: str) -> None:
    # Transformers 5 writes `dtype`, every version before it `torch_dtype`; all read the latter.
    stated = [(part, key) for part in parts for key in ("dtype", "torch_dtype") if key in part]
    for part, key in stated or [(parts[0], "torch_dtype")]:
        part[key] = dtype


def _gather_layers(config: dict[str, Any], origins: list[int]) -> None:
    """Lists that say something of each layer (`layer_types`) follow the layers to their places."""
    count = next((config[key] for key in _LAYER_COUNTS if key in config), None)
    for key, value in config.items():
        if isinstance(value, list) and len(value) == count and max(origins) < count:
            config[key] = [value[layer] for layer in origins]


def _set_layers(config: dict[str, Any], layers: int) -> None:
    key = next((key for key in _LAYER_COUNTS if key in config), None)
    # Layers that predict further tokens are numbered on behind the others, and not counted.
    extra = config.get("num_nextn_predict_layers") or 0
    if key is not None and config[key] not in (layers, layers - extra):
        config[key] = layers
