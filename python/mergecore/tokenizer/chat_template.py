"""Which chat template does a model have, and which shall the output have?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from mergecore.errors import ModelError, RecipeError
from mergecore.models.stated import json_object

_FILES = ("chat_template.jinja", "chat_template.json")


def find(folder: Path) -> str | None:
    """The file of a model's folder that holds its chat template, or None if it has none."""
    for name in _FILES:
        if (folder / name).is_file():
            return name
    return "tokenizer_config.json" if _stated(folder / "tokenizer_config.json") else None


def text(folder: Path) -> str | None:
    """A model's chat template; of several the one called `default`.

    Raises:
        ModelError: Its file is no text.
    """
    file = find(folder)
    if file is None:
        return None
    if file.endswith(".jinja"):
        try:
            return (folder / file).read_text("utf-8")
        except UnicodeDecodeError as error:
            raise ModelError(f"{folder / file}: is no UTF-8 text") from error
    stated = _stated(folder / file)
    if isinstance(stated, list):
        entries = [entry for entry in stated if isinstance(entry, dict)]
        named = {entry.get("name"): entry.get("template") for entry in entries}
        stated = named.get("default") or next(iter(named.values()), None)
    return stated if isinstance(stated, str) else None


def chosen(wanted: str, folders: Iterable[Path]) -> str | None:
    """The text of the template that a recipe asks for.

    Args:
        wanted: `auto` for the one that most models have (the first of equals), the name of a
            template that mergecore knows, or a template.
        folders: The models'.

    Returns:
        The template; None if `auto` finds none.

    Raises:
        RecipeError: It is no name that is known and no template.
    """
    if wanted == "auto":
        found = [template.strip() for template in map(text, folders) if template]
        return Counter(found).most_common(1)[0][0] if found else None
    if "{" in wanted:
        return wanted
    if wanted in names():
        return str((_library() / f"{wanted}.jinja").read_text("utf-8"))
    raise RecipeError(
        f"chat_template: {wanted!r} is no template (Jinja has braces) and no name that is known:"
        f" auto, {', '.join(names())}"
    )


def names() -> list[str]:
    """The templates that mergecore knows by name."""
    files = [entry.name for entry in _library().iterdir() if entry.name.endswith(".jinja")]
    return sorted(name.removesuffix(".jinja") for name in files)


def _library() -> Any:
    return resources.files("mergecore.tokenizer") / "templates"


def _stated(file: Path) -> Any:
    return json_object(file).get("chat_template")
