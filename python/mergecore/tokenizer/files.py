"""Which files make the output's tokenizer, and what becomes of token ids in its configs?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mergecore.errors import RecipeError
from mergecore.tokenizer.output import Output
from mergecore.tokenizer.tokens import FILE, SETTINGS

# Other forms of a vocabulary, which would contradict a tokenizer.json that was changed.
_OTHER_FORMS = (
    *("added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "*.tiktoken"),
    *("tokenizer.model", "spiece.model", "sentencepiece*.model"),
)
_TEMPLATE = "chat_template.jinja"
_TEMPLATES = (_TEMPLATE, "chat_template.json")
_MANNERS = (SETTINGS, "special_tokens_map.json", *_TEMPLATES)


@dataclass(frozen=True)
class TokenizerFiles:
    """What of the donor's files gives way to which others."""

    files: dict[str, bytes | str] = field(default_factory=dict)
    """Bytes, or the path of a file to copy."""
    left: tuple[str, ...] = ()
    """Patterns of the donor's files that the output does not get."""
    moved: dict[int, int] | None = None
    """The donor's token ids, and what they are in the output; None where they stay."""

    def replaces(self, name: str) -> bool:
        """Whether the output does not get this file of the donor's."""
        return name in self.files or _is(name, self.left)


def of_output(output: Output) -> TokenizerFiles:
    """The files of the output's tokenizer."""
    unchanged = output.content == json.loads((output.built_on.folder / FILE).read_text("utf-8"))
    files = _present(output.like.folder, _MANNERS)
    if unchanged:
        files |= _present(output.built_on.folder, (FILE, *_OTHER_FORMS))
    else:
        files[FILE] = _json(output.content)
    if not unchanged or output.like is not output.built_on:
        decoder = {
            str(entry["id"]): {key: value for key, value in entry.items() if key != "id"}
            for entry in output.content.get("added_tokens") or []
        }
        files[SETTINGS] = _json({**output.like.settings, "added_tokens_decoder": decoder})
    return TokenizerFiles(files, (FILE, *_OTHER_FORMS, *_MANNERS), output.moved)


def with_template(template: str, others: TokenizerFiles, donor: Path) -> TokenizerFiles:
    """The files with this chat template instead of any other.

    Args:
        template: The template's text.
        others: The files of the output's tokenizer; none if it has the donor's.
        donor: The folder of the donor.

    Raises:
        RecipeError: There is no tokenizer that could use it.
    """
    changed = {name: content for name, content in others.files.items() if name not in _TEMPLATES}
    settings = changed.get(SETTINGS, str(donor / SETTINGS))
    try:
        text = settings if isinstance(settings, bytes) else Path(settings).read_bytes()
        content = dict(json.loads(text))
    except (OSError, TypeError, ValueError, RecursionError) as error:
        raise RecipeError(
            f"chat_template: {donor / SETTINGS} cannot be read: a template needs a tokenizer"
        ) from error
    changed[_TEMPLATE] = template.encode()
    # Older versions of transformers look here, newer ones into the file.
    changed[SETTINGS] = _json({**content, "chat_template": template})
    return TokenizerFiles(changed, (*others.left, *_TEMPLATES), others.moved)


def renumbered(config: Any, moved: Mapping[int, int]) -> Any:
    """A config with its token ids as they are in the output; a token that is not there is left out.

    Ids are the values of keys that end in `token_id`, and what generation suppresses.
    """
    if isinstance(config, list):
        return [renumbered(entry, moved) for entry in config]
    if not isinstance(config, dict):
        return config
    result = {}
    for key, value in config.items():
        if not str(key).endswith(("token_id", "token_ids", "suppress_tokens", "bad_words_ids")):
            result[key] = renumbered(value, moved)
        elif (ids := _moved(value, moved)) is not None or value is None:
            result[key] = ids
    return result


def _moved(value: Any, moved: Mapping[int, int]) -> Any:
    if isinstance(value, list):
        kept = [ids for ids in (_moved(entry, moved) for entry in value) if ids is not None]
        return kept or None
    if isinstance(value, int) and value >= 0:
        return moved.get(value)
    return value


def _present(folder: Path, patterns: Iterable[str]) -> dict[str, bytes | str]:
    names = [entry.name for entry in folder.iterdir() if entry.is_file()]
    return {name: str(folder / name) for name in sorted(names) if _is(name, patterns)}


def _is(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
