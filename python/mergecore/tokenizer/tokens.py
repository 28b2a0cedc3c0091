"""Which tokens does a model know, and which of its rows is whose?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergecore.errors import ModelError

FILE = "tokenizer.json"
SETTINGS = "tokenizer_config.json"


@dataclass(frozen=True)
class Tokenizer:
    """A model's tokenizer, as tokenizer.json has it."""

    reference: str
    folder: Path
    content: dict[str, Any]
    """tokenizer.json, with the added tokens that only tokenizer_config.json names."""
    settings: dict[str, Any]
    """tokenizer_config.json; empty if there is none."""
    ids: dict[str, int]
    """Every token, added ones too."""
    rows: int
    """Rows of the model's embedding; tokens beyond it have none."""

    @property
    def added(self) -> dict[str, dict[str, Any]]:
        """Tokens that were added to the vocabulary, which are found before any other is."""
        return {entry["content"]: entry for entry in self.content.get("added_tokens") or []}

    @property
    def kind(self) -> str:
        """`BPE`, `WordPiece`, `WordLevel` or `Unigram`."""
        return str((self.content.get("model") or {}).get("type", "BPE"))

    def row(self, token: str) -> int | None:
        """The embedding's row of a token, if the model has one for it."""
        number = self.ids.get(token)
        return number if number is not None and number < self.rows else None


def read(reference: str, folder: Path, rows: int) -> Tokenizer | None:
    """Reads a model's tokenizer; None where the folder has no tokenizer.json.

    Args:
        reference: What the model is called.
        folder: Where its files are.
        rows: The rows of its embedding.

    Raises:
        ModelError: A file of the tokenizer cannot be understood.
    """
    if not (folder / FILE).is_file():
        return None
    content = _json(folder / FILE)
    settings = _json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    known = vocabulary(content, folder / FILE)
    missing = _only_in_settings(settings, known, folder / SETTINGS)
    for number, entry in sorted(missing.items()):
        content.setdefault("added_tokens", []).append({"id": number, **entry})
        known[entry["content"]] = number
    return Tokenizer(reference, folder, content, settings, known, rows)


def vocabulary(content: dict[str, Any], path: Path) -> dict[str, int]:
    """Every token of a tokenizer.json, with its id.

    Raises:
        ModelError: The tokenizers library does not take it.
    """
    import tokenizers

    try:
        known = tokenizers.Tokenizer.from_str(json.dumps(content, ensure_ascii=False))
    except Exception as error:  # the library raises no class of its own
        raise ModelError(f"{path}: is no tokenizer that can be read: {error}") from error
    return dict(known.get_vocab(with_added_tokens=True))


def _only_in_settings(
    settings: dict[str, Any], known: dict[str, int], path: Path
) -> dict[int, dict[str, Any]]:
    """Added tokens that tokenizer_config.json has and tokenizer.json lacks."""
    listed = settings.get("added_tokens_decoder")
    taken = set(known.values())
    missing = {}
    for number, entry in listed.items() if isinstance(listed, dict) else ():
        content = entry.get("content") if isinstance(entry, dict) else None
        if not number.isdecimal() or not isinstance(content, str):
            raise ModelError(f"{path}: added_tokens_decoder has {number!r}: {entry}: no token")
        if content not in known and int(number) not in taken:
            flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
            missing[int(number)] = {
                "content": content,
                **{flag: bool(entry.get(flag, False)) for flag in flags},
            }
    return missing


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: is not JSON that can be read: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: is no JSON object")
    return content
