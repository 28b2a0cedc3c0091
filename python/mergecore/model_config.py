"""What must the output's config.json say? The donor's, made true of the output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mergecore.errors import ModelError
from mergecore.tokenizer.files import renumbered

_LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers")

# Where a config speaks of a part of the model, and what it calls the number of that part's layers;
# and what it calls it where the part has no section of its own.
_SECTIONS = {
    "text_decoder": ("text_config", "llm_config"),
    "vision_tower": ("vision_config",),
    "audio_tower": ("audio_config",),
    "encoder": ("encoder",),
    "decoder": ("decoder",),
}
_IN_SECTION = (*_LAYER_COUNTS, "depth", "encoder_layers")
_WITHOUT_SECTION = {
    "text_decoder": _LAYER_COUNTS,
    "encoder": ("encoder_layers", "num_layers", "num_hidden_layers"),
    "decoder": ("decoder_layers", "num_decoder_layers"),
}

# Lists of some layers by their numbers. To those of the second kind belong tensors outside of the
# layers, one each, so that none may be left out or come twice.
_CHOSEN = ("fullatt_block_indexes", "mlp_only_layers", "moe_layers")
_CHOSEN_FOR_GOOD = ("deepstack_visual_indexes",)


def rendered(
    donor: Path, summary: Mapping[str, Any], moved: Mapping[int, int] | None = None
) -> bytes:
    """The donor's config.json with what it says of the weights made true of the output.

    Args:
        donor: The donor's config.json.
        summary: The plan's summary; `dtype`, `layers`, `stacks`, `tied`, `untied` and `vocabulary`
            are read.
        moved: The donor's token ids, and what they are in the output.

    Raises:
        ModelError: The file is not a JSON object, or cannot be made true of the output.
    """
    config = read(donor)
    try:
        corrected = corrected_config(config, summary)
    except ModelError as error:
        raise ModelError(f"{donor}: {error}") from error
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
    except (ValueError, RecursionError) as error:
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
    stacks = summary.get("stacks") or []
    for stack in stacks:
        layers = [layer for _, layer in stack["origins"]]
        if stack["part"] is not None:
            _make_part_true(config, text, stack["part"], layers)
        elif summary.get("layers"):
            _gather_layers(text or config, layers)
        else:
            raise _silent_on(stack["name"])
    if summary.get("layers") and all(stack["part"] is None for stack in stacks):
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


def _make_part_true(
    config: dict[str, Any], text: dict[str, Any], part: str, origins: list[int]
) -> None:
    """What a config says of the layers of one part, of a model that has several."""
    if part in ("encoder", "decoder") and "num_layers" in config:
        # T5's decoder has as many layers as its encoder, unless it says otherwise.
        config.setdefault("num_decoder_layers", config["num_layers"])
    places: list[tuple[dict[str, Any], tuple[str, ...]]] = []
    for name in _SECTIONS.get(part, ()):
        if isinstance(config.get(name), dict):
            section = text if name == "text_config" else dict(config[name])
            config[name] = section
            places.append((section, _IN_SECTION))
    if not places or part == "text_decoder":  # whose settings some keep in both
        places.append((config, _WITHOUT_SECTION.get(part, ())))
    places = [(section, keys) for section, keys in places if any(key in section for key in keys)]
    if not places:
        raise _silent_on(part)
    for section, keys in places:
        if section is not config or part == "text_decoder":
            _gather_layers(section, origins)
        _set_layers(section, len(origins), keys)


def _gather_layers(config: dict[str, Any], origins: list[int]) -> None:
    """What is said of each layer (`layer_types`), or of some, follows them to their places."""
    count = next((config[key] for key in _IN_SECTION if key in config), None)
    for key, value in config.items():
        if not isinstance(value, list):
            continue
        if key in (*_CHOSEN, *_CHOSEN_FOR_GOOD):
            config[key] = [place for place, layer in enumerate(origins) if layer in value]
            if key in _CHOSEN_FOR_GOOD and [origins[place] for place in config[key]] != value:
                raise ModelError(f"{key} names layers that slices leave out, repeat or reorder")
        elif len(value) == count and max(origins) < count:
            config[key] = [value[layer] for layer in origins]


def _silent_on(part: str) -> ModelError:
    return ModelError(
        f"it does not say how many layers {part} has, which slices change; give that module models"
    )


def _set_layers(config: dict[str, Any], layers: int, keys: tuple[str, ...] = _LAYER_COUNTS) -> None:
    # Layers that predict further tokens are numbered on behind the others, and not counted.
    extra = config.get("num_nextn_predict_layers") or 0
    for key in keys:
        if key in config and config[key] not in (layers, layers - extra):
            config[key] = layers
