"""Which model was this one fine-tuned from, by its own account?

A merge of task vectors needs the base. If none is given, the models' own cards and configs are
asked, and their answer is used only if all of them give the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mergecore.errors import RecipeError
from mergecore.models.hub import is_hub_id, is_known
from mergecore.models.reference import split
from mergecore.models.stated import json_object


class Ancestor(NamedTuple):
    """A base as a model names it, ready to be located."""

    reference: str
    """A local path or a hub id."""
    source: str
    """The file of the model that says so."""
    found: bool = True
    """False for a path that is not there."""

    @property
    def is_here(self) -> bool:
        return Path(self.reference).expanduser().exists()

    @property
    def identity(self) -> str:
        """The same text for the same model: the real path, or the hub id in small letters."""
        path = Path(self.reference).expanduser()
        return os.path.realpath(path) if self.is_here else self.reference.lower()


def common_base(models: Mapping[str, Path], method: str) -> Ancestor:
    """The base that all models name.

    Args:
        models: Each model's reference and where it is.
        method: The method that needs the base, for the message.

    Raises:
        RecipeError: One does not say, or two differ; the message quotes each model's answer.
    """
    answers = {reference: named_base(path, reference) for reference, path in models.items()}
    known = [answer for answer in answers.values() if answer is not None]
    agree = len(known) == len(answers) and len({answer.identity for answer in known}) == 1
    if agree and known[0].found:
        return known[0]
    said = "; ".join(f"{reference} {_says(answer)}" for reference, answer in answers.items())
    if agree:
        problem = "theirs is lost"
    else:
        problem = "the models agree on none" if known else "no model names one"
    raise RecipeError(
        f"{method} needs a base, and {problem}: {said}; "
        "give it with --base (base_model in a recipe)"
    )


def named_base(location: Path, reference: str | None = None) -> Ancestor | None:
    """The base that one model names, or None.

    The base of `model+adapter` is the model. Else asked in turn: `base_model` in the front matter
    of README.md (a string, or a list of one), adapter_config.json's `base_model_name_or_path`, and
    config.json's `base_model`, then its `_name_or_path`. The last is often the model itself or a
    path on somebody else's machine, so it counts only if it can be found and is another model.

    Args:
        location: The model's folder or file.
        reference: How the user calls it, so that a relative answer can be told in the same terms.
    """
    model, adapter = split(reference or "")
    if adapter is not None:
        return Ancestor(model, "the model that its adapter is on")
    folder = location if location.is_dir() else location.parent
    called = Path(reference).expanduser() if reference else folder
    called = folder if not called.exists() else called if called.is_dir() else called.parent
    config = json_object(folder / "config.json")
    sources: list[tuple[str, Any, Callable[[str], bool]]] = [
        ("README.md", _front_matter(folder / "README.md").get("base_model"), is_hub_id),
        (
            "adapter_config.json",
            json_object(folder / "adapter_config.json").get("base_model_name_or_path"),
            is_hub_id,
        ),
        ("config.json", config.get("base_model"), is_hub_id),
        ("config.json", config.get("_name_or_path"), is_known),
    ]
    missing: Ancestor | None = None
    for source, value, acceptable in sources:
        name = value[0] if isinstance(value, list) and len(value) == 1 else value
        if not isinstance(name, str) or not name.strip():
            continue
        found = _resolve(name.strip(), called, acceptable)
        if found is not None and not _same(found, folder, reference):
            return Ancestor(found, source)
        if found is None and acceptable is is_hub_id:
            missing = missing or Ancestor(name.strip(), source, found=False)
    return missing


def _says(answer: Ancestor | None) -> str:
    if answer is None:
        return "names none"
    where = answer.source if answer.found else f"{answer.source}; it is not there"
    return f"names {answer.reference} ({where})"


def _resolve(name: str, folder: Path, acceptable: Callable[[str], bool]) -> str | None:
    """The answer as a reference: a path, from the model's own folder or absolute, or a hub id."""
    path = Path(name).expanduser()
    if path.is_absolute():
        return str(path) if path.exists() else None
    beside = folder / path
    if beside.exists():
        # `a/../base` reads as `base`, unless a symbolic link makes the two differ.
        short = Path(os.path.normpath(beside))
        same = short.exists() and os.path.realpath(short) == os.path.realpath(beside)
        return str(short if same else beside.resolve())
    return name if acceptable(name) else None


def _same(found: str, folder: Path, reference: str | None) -> bool:
    path = Path(found).expanduser()
    if path.exists():
        return os.path.realpath(path) == os.path.realpath(folder)
    return reference is not None and found.lower() == reference.split("@")[0].lower()


def _front_matter(card: Path) -> dict[str, Any]:
    """The YAML between the `---` lines that open a model card; nothing if there is none."""
    try:
        text = card.read_text("utf-8-sig", errors="replace")
        lines = [line.rstrip() for line in text.splitlines()]
        end = lines.index("---", 1) if lines and lines[0] == "---" else 0
        content = yaml.safe_load("\n".join(lines[1:end]))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}
