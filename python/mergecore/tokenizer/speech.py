"""What does a recipe ask of the output's tokens, and what must be done for it?"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from mergecore import _mergecore, recipe, side_files
from mergecore.errors import ModelError
from mergecore.tokenizer import chat_template, files, output
from mergecore.tokenizer.files import TokenizerFiles

Located: TypeAlias = Mapping[str, tuple[Path, Path | None]]
"""For each reference its model, and the adapter on it."""


@dataclass(frozen=True)
class Speech:
    """What the keys `tokenizer_source`, `tokenizer` and `chat_template` come to."""

    vocabulary: tuple[int, dict[str, bytes], list[list[tuple[str, int]]]] | None = None
    """The rows that the engine gathers; None if the models' vocabularies stay as they are."""
    files: TokenizerFiles = field(default_factory=TokenizerFiles)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def of(
    request: recipe.Recipe, donor: str, places: Located, lender: Callable[[str], Path]
) -> Speech:
    """Decides the output's tokenizer and chat template.

    Args:
        request: The recipe, its base known.
        donor: The reference of the model whose config and side files the output gets.
        places: Every model of the recipe.
        lender: Where a model is that only the tokenizer is taken of.

    Raises:
        MergecoreError: A tokenizer is missing or cannot be extended, or a token or a template that
            the recipe names is not there.
    """
    speech = _aligned(request, donor, places, lender) if output.source_of(request) else Speech()
    wanted = request.get("chat_template")
    if not isinstance(wanted, str):
        return speech
    folders = [side_files.folder_of(places[model][0]) for model in _merged(request)]
    template = chat_template.chosen(wanted, folders)
    if template is None:
        none = "chat_template: auto, and no model has one: the output has none"
        return Speech(speech.vocabulary, speech.files, speech.notes, [*speech.warnings, none])
    folder = side_files.folder_of(places[donor][0])
    changed = files.with_template(template, speech.files, folder)
    return Speech(speech.vocabulary, changed, speech.notes, speech.warnings)


def _aligned(
    request: recipe.Recipe, donor: str, places: Located, lender: Callable[[str], Path]
) -> Speech:
    read = {name: (side_files.folder_of(p[0]), _rows(name, *p)) for name, p in places.items()}
    elsewhere = {}
    source = str(output.source_of(request))
    if source not in ("union", "base") and source not in places:
        folder = side_files.folder_of(lender(source))
        elsewhere[source] = (folder, _stated_rows(folder))
    decided = output.decide(request, _merged(request), donor, read, elsewhere)
    return Speech(
        decided.alignment.for_engine(),
        files.of_output(decided),
        decided.notes,
        decided.warnings,
    )


def _merged(request: recipe.Recipe) -> list[str]:
    """What is merged, the base first."""
    first = [request.get(key) for key in ("base_model", "onto")]
    named = [reference for reference in first if isinstance(reference, str)]
    return list(dict.fromkeys([*named, *recipe.models_of(request)]))


def _rows(reference: str, location: Path, adapter: Path | None) -> int:
    found = json.loads(
        _mergecore.checkpoint(str(location), None if adapter is None else str(adapter))
    )
    rows: int | None = found["vocabulary_rows"]
    if rows is None:
        raise ModelError(f"{reference}: has no embedding that a tokenizer could be aligned to")
    return rows


def _stated_rows(folder: Path) -> int:
    """The vocabulary's size by the config; 0 where it does not say."""
    try:
        config: Any = json.loads((folder / "config.json").read_text("utf-8"))
        sizes = [config.get("vocab_size"), (config.get("text_config") or {}).get("vocab_size")]
    except (OSError, ValueError, AttributeError, RecursionError):
        return 0
    return next((size for size in sizes if isinstance(size, int)), 0)
