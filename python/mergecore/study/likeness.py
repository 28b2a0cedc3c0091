"""Does a family say its values as the paper's are said? A list where one is, with the same keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mergecore.errors import RecipeError

_OPTIONS = ("generate", "reward", "judge")
"""Of a sweep, which knows them itself; and `tasks`, of whatever name, by their names."""


def check(given: Any, model: Any, where: str) -> None:
    """Refuses a value that is of another form than the paper's.

    Args:
        given: A family's value.
        model: The paper's.
        where: What messages call the value.

    Raises:
        RecipeError: It is; the message names what is wrong, and the form.
    """
    if isinstance(model, list):
        if not isinstance(given, list):  # an empty one leaves out a part
            raise RecipeError(f"{where}: is {given!r}, and is to be a list")
        for number, entry in enumerate(given, start=1):
            name = entry.get("name") if isinstance(entry, dict) else None
            check(entry, _common(model), f"{where}: {name or f'number {number}'}")
    elif isinstance(model, dict):
        if not isinstance(given, dict):
            raise RecipeError(f"{where}: is {given!r}, and is to be a mapping")
        if "names" in model:
            return
        for key, value in model.items():
            if key not in given:
                raise RecipeError(f"{where}: has no {key} (it takes {', '.join(model)})")
            if key not in _OPTIONS:
                check(given[key], value, f"{where}: {key}")
    elif isinstance(model, str) and not (isinstance(given, str) and given):
        raise RecipeError(f"{where}: is {given!r}, and is to be a text")
    elif isinstance(model, int) and (isinstance(given, bool) or not isinstance(given, int)):
        raise RecipeError(f"{where}: is {given!r}, and is to be a whole number")


def values(given: Mapping[str, Any], model: Mapping[str, Any], where: str) -> None:
    """The same of all values that a family gives.

    Raises:
        RecipeError: As `check` does.
    """
    for key, value in given.items():
        if key not in _OPTIONS:
            check(value, model[key], f"{where}: {key}")


def _common(entries: list[Any]) -> Any:
    """What all entries of a list have: the keys of each, where they are mappings."""
    if not all(isinstance(entry, dict) for entry in entries):
        return entries[0]
    shared = [key for key in entries[0] if all(key in entry for entry in entries)]
    return {key: entries[0][key] for key in shared}
