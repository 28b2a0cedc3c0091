"""What was a finished merge made of, by its own manifest, and is that still there?"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergecore import recipe
from mergecore.models.reference import each_part, split


@dataclass(frozen=True)
class Origin:
    """A merge's base and parents, as one would type them from here."""

    base: str | None
    parents: list[str]
    """Also what its change was added to, where that is not the base."""

    @property
    def lost(self) -> list[str]:
        """Those of base and parents that are no longer where they were."""
        every = [*([self.base] if self.base else []), *self.parents]
        return [reference for reference in every if not _is_there(reference)]


def of_model(model: str) -> Origin | None:
    """A model's origin, or None if it has no manifest, or one that cannot be read."""
    try:
        path = Path(model).expanduser() / "mergecore.json"
        manifest = json.loads(path.read_text("utf-8"))
        places = {entry["model"]: _place(entry) for entry in manifest["inputs"]}
        asked = manifest["recipe"]
        base, onto = asked.get("base_model"), asked.get("onto")
        named = [*recipe.models_of(asked), *([onto] if onto is not None else [])]
        parents = dict.fromkeys(places.get(name, name) for name in named if name != base)
        return Origin(None if base is None else str(places.get(base, base)), list(parents))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def identity(reference: str) -> str:
    """The same text for the same model, however it is spelled."""
    return each_part(reference, lambda part: os.path.realpath(Path(part).expanduser()))


def _place(entry: dict[str, Any]) -> str:
    parts = [entry["path"], *([entry["adapter"]] if entry.get("adapter") else [])]
    return "+".join(_nearest(str(part)) for part in parts)


def _nearest(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _is_there(reference: str) -> bool:
    return all(Path(part).expanduser().exists() for part in split(reference) if part is not None)
