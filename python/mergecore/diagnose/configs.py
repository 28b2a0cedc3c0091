"""Do the models' configs contradict each other? What one config.json cannot say for all of them.

A merge has one config, one tokenizer and one chat template. Where the parents have been trained
with others, the merged weights meet positions, tokens or ends of a reply that they do not know.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mergecore.errors import ModelError
from mergecore.models.stated import json_object
from mergecore.side_files import folder_of
from mergecore.tokenizer import chat_template

_MISSING = object()


@dataclass(frozen=True)
class Conflict:
    """A setting that the models do not share."""

    what: str
    values: dict[str, Any]
    """By model, of those that state it."""
    why: str
    """What it does to a merge."""

    def in_words(self) -> str:
        """One line: the setting, who says what, and what follows."""
        shown: dict[str, list[str]] = {}
        for model, value in self.values.items():
            shown.setdefault(_short(value), []).append(model)
        said = "; ".join(f"{value} ({', '.join(models)})" for value, models in shown.items())
        return f"{self.what} differs: {said}: {self.why}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def conflicts(models: Mapping[str, Path]) -> list[Conflict]:
    """The settings in which models differ, base and parents alike.

    A model that does not state a setting contradicts nobody.

    Args:
        models: By reference, where each one is.
    """
    folders = {reference: folder_of(path) for reference, path in models.items()}
    configs = {
        reference: json_object(folder / "config.json") for reference, folder in folders.items()
    }
    found = []
    for what, (look, why) in _SETTINGS.items():
        stated = {
            reference: _stated(look, configs[reference], folders[reference])
            for reference in folders
        }
        known = {model: value for model, value in stated.items() if value is not _MISSING}
        if len({json.dumps(value, sort_keys=True) for value in known.values()}) > 1:
            found.append(Conflict(what, known, why))
    return found


def _stated(look: _Look, config: dict[str, Any], folder: Path) -> Any:
    """What a model states; what cannot be made sense of contradicts nobody."""
    try:
        return _plain(look(config, folder))
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, ModelError):
        return _MISSING


def _plain(value: Any) -> Any:
    """10000.0 is 10000."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


_Look = Callable[[dict[str, Any], Path], Any]


def _key(*names: str) -> _Look:
    """What config.json, or its part for text, says under the first of these names that it has."""

    def look(config: dict[str, Any], _folder: Path) -> Any:
        for section in (config, config.get("text_config")):
            for name in names:
                if isinstance(section, dict) and section.get(name) is not None:
                    return section[name]
        return _MISSING

    return look


def _rope(key: str) -> _Look:
    """A value of RoPE, which newer configs keep in `rope_parameters`."""

    def look(config: dict[str, Any], folder: Path) -> Any:
        for place in ("rope_parameters", "rope_scaling"):
            inner = _key(place)(config, folder)
            if isinstance(inner, dict) and _by_kind(inner):
                return _MISSING  # one for each kind of layer, where others have a single one
            if isinstance(inner, dict) and inner.get(key) is not None:
                return inner[key]
        return _key(key)(config, folder)

    return look


def _rope_scaling(config: dict[str, Any], folder: Path) -> Any:
    # Both names of its kind are in use, and a plain RoPE may say so or be silent.
    for place in ("rope_parameters", "rope_scaling"):
        inner = _key(place)(config, folder)
        if isinstance(inner, dict):
            if _by_kind(inner):
                return _MISSING
            rest = {k: v for k, v in inner.items() if k not in ("rope_theta", "type", "rope_type")}
            return {"rope_type": inner.get("rope_type") or inner.get("type") or "default", **rest}
    return {"rope_type": "default"} if config else _MISSING


def _by_kind(rope: dict[str, Any]) -> bool:
    return any(isinstance(value, dict) for value in rope.values())


def _window(config: dict[str, Any], folder: Path) -> Any:
    if not config:
        return _MISSING
    window = _key("sliding_window")(config, folder)
    used = _key("use_sliding_window")(config, folder)
    return "none" if window is _MISSING or used is False else window


def _ends(config: dict[str, Any], folder: Path) -> Any:
    """What ends a reply: generation_config.json counts first, as it does in generation."""
    for source in (json_object(folder / "generation_config.json"), config):
        ids = source.get("eos_token_id")
        if ids is not None:
            return sorted(ids) if isinstance(ids, list) else [ids]
    return _MISSING


def _tokens(_config: dict[str, Any], folder: Path) -> Any:
    """A digest of every token with its id; the vocabulary and what was added to it."""
    content = json_object(folder / "tokenizer.json")
    vocabulary = (content.get("model") or {}).get("vocab")
    if not vocabulary:
        return _MISSING
    pairs = (
        dict(vocabulary)
        if isinstance(vocabulary, dict)
        else {entry[0]: i for i, entry in enumerate(vocabulary)}
    )
    pairs |= {token["content"]: token["id"] for token in content.get("added_tokens") or []}
    text = json.dumps(sorted(pairs.items(), key=lambda pair: (pair[1], pair[0])))
    return f"{len(pairs):,} tokens, {hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _template(_config: dict[str, Any], folder: Path) -> Any:
    text = chat_template.text(folder)
    if text is None:
        return _MISSING
    words = " ".join(text.split())
    return f"{len(words):,} characters, {hashlib.sha256(words.encode()).hexdigest()[:8]}"


_SETTINGS: dict[str, tuple[_Look, str]] = {
    "architecture": (_key("architectures"), "weights of one name may mean different things"),
    "model_type": (_key("model_type"), "weights of one name may mean different things"),
    "rope_theta": (
        _rope("rope_theta"),
        "positions turn at other speeds, and that alone can make a merge collapse",
    ),
    "rope_scaling": (_rope_scaling, "positions are stretched otherwise"),
    "sliding_window": (_window, "the merge attends as far as its config says, not as each parent"),
    "max_position_embeddings": (
        _key("max_position_embeddings", "n_positions"),
        "the donor's holds",
    ),
    "num_attention_heads": (_key("num_attention_heads", "n_head"), "heads are cut elsewhere"),
    "num_key_value_heads": (_key("num_key_value_heads"), "heads are cut elsewhere"),
    "head_dim": (_key("head_dim"), "heads are cut elsewhere"),
    "hidden_act": (_key("hidden_act", "activation_function"), "the same weights do other things"),
    "norm epsilon": (_key("rms_norm_eps", "layer_norm_epsilon"), "a small difference"),
    "vocab_size": (
        _key("vocab_size"),
        "embeddings have other rows: align them (tokenizer_source)",
    ),
    "tokens": (_tokens, "the same row is another token: align them (tokenizer_source)"),
    "tie_word_embeddings": (_key("tie_word_embeddings"), "one has a head of its own"),
    "eos_token_id": (_ends, "replies may not end: check generation_config.json of the merge"),
    "chat template": (_template, "the merge is asked in the donor's format"),
}


CALCULATING = (
    "rope_theta", "rope_scaling", "sliding_window", "num_attention_heads", "num_key_value_heads",
    "head_dim", "hidden_act",
)  # fmt: skip
"""Settings by which the same weights calculate something else: a merge warns of these."""


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
