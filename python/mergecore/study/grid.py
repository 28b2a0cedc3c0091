"""Which configurations does a grid stand for? Each combination of values, put into a recipe."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from mergecore.errors import RecipeError

_PLACE = re.compile(r"(?<!\{)\{(\w+(?:\.(?:\w+|\*))*)\}(?!\})")
_GROUPS = ("pairs", "subsets")


def points(grid: Any, where: str) -> list[dict[str, Any]]:
    """Every combination of a grid's values, the last key's changing first.

    Args:
        grid: A mapping of names to lists, of which every combination is taken; or a list of such
            mappings, whose combinations follow each other. A list of groups of models may be
            written as `{pairs: [a, b, c]}`, or as `{subsets: [a, b, c, d], sizes: [2, 3],
            count: 15, seed: 1}`: so many different subsets of each size, drawn uniformly; all where
            there are no more.
        where: What messages call it.

    Raises:
        RecipeError: It is none of these.
    """
    found: list[dict[str, Any]] = []
    for part in grid if isinstance(grid, list) else [grid]:
        if not isinstance(part, dict) or not all(isinstance(name, str) for name in part):
            raise RecipeError(f"{where}: a grid is a mapping of names to lists of values")
        lists = [_values(values, f"{where}: {name}") for name, values in part.items()]
        found += [dict(zip(part, values, strict=True)) for values in itertools.product(*lists)]
    return found


def filled(template: Any, point: Mapping[str, Any], where: str) -> Any:
    """The template with `{name}` replaced by a point's values.

    A text that is nothing but `{name}` becomes the value itself; within a text it becomes words.
    Of a value that is a mapping or a list, `{name.key}`, `{name.0}` and `{name.*.key}` are parts.
    Braces that are doubled, or hold no single word, stay as they are (chat templates have them).

    Raises:
        RecipeError: There is no such name.
    """
    if isinstance(template, dict):
        return {filled(k, point, where): filled(v, point, where) for k, v in template.items()}
    if isinstance(template, list):
        return [filled(entry, point, where) for entry in template]
    if not isinstance(template, str):
        return template
    whole = _PLACE.fullmatch(template)
    if whole:
        return _value(whole[1], point, where)
    return _PLACE.sub(lambda match: text(_value(match[1], point, where)), template)


def text(value: Any) -> str:
    """A value in a name: `0.5`, `a+b`; of a mapping that has a name, its name."""
    if isinstance(value, list):
        return "+".join(map(text, value))
    if isinstance(value, dict):
        if "name" in value:
            return text(value["name"])
        return ",".join(f"{key}={text(entry)}" for key, entry in value.items())
    return str(value)


def named(point: Mapping[str, Any]) -> str:
    """`alpha=0.3 density=0.5`"""
    return " ".join(f"{key}={text(value)}" for key, value in point.items())


def is_used(name: str, text: str) -> bool:
    """Whether a text has `{name}`, or a part of it."""
    return any(found.partition(".")[0] == name for found in _PLACE.findall(text))


def _value(path: str, point: Mapping[str, Any], where: str) -> Any:
    name, *keys = path.split(".")
    if name in point:
        return _part(point[name], keys, f"{where}: {{{path}}}")
    near = get_close_matches(name, point, n=1)
    hint = f"; did you mean {{{near[0]}}}?" if near else f" ({', '.join(point) or 'it is empty'})"
    raise RecipeError(f"{where}: {{{path}}} is no name of its grid{hint}")


def _part(value: Any, keys: Sequence[str], where: str) -> Any:
    for number, key in enumerate(keys):
        if key == "*" and isinstance(value, list):
            return [_part(entry, keys[number + 1 :], where) for entry in value]
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            raise RecipeError(f"{where}: there is no {key!r} in {text(value)}")
    return value


def _values(values: Any, where: str) -> list[Any]:
    if isinstance(values, list) and values:
        return values
    if isinstance(values, dict) and any(kind in values for kind in _GROUPS):
        return _groups(values, where)
    raise RecipeError(f"{where}: is a list of values, or pairs or subsets of a list")


def _groups(given: dict[str, Any], where: str) -> list[list[Any]]:
    kind = next(kind for kind in _GROUPS if kind in given)
    members = given[kind]
    known = {"pairs": {"pairs"}, "subsets": {"subsets", "sizes", "count", "seed"}}[kind]
    if odd := sorted(set(given) - known):
        raise RecipeError(f"{where}: {odd[0]} is not known; {kind} take {', '.join(sorted(known))}")
    if not isinstance(members, list) or len({text(member) for member in members}) != len(members):
        raise RecipeError(f"{where}: {kind} are of a list of different values")
    if kind == "pairs":
        return [list(pair) for pair in itertools.combinations(members, 2)]
    sizes, count, seed = given.get("sizes"), given.get("count"), given.get("seed", 42)
    if not isinstance(sizes, list) or not all(
        isinstance(size, int) and 1 <= size <= len(members) for size in sizes
    ):
        raise RecipeError(f"{where}: sizes are numbers from 1 to {len(members)}")
    if count is not None and not (isinstance(count, int) and count >= 1):
        raise RecipeError(f"{where}: count is how many subsets of each size, 1 or more")
    return [group for size in sizes for group in _drawn(members, size, count, seed)]


def _drawn(members: Sequence[Any], size: int, count: int | None, seed: Any) -> Iterator[list[Any]]:
    """`count` different subsets, each in the members' order; all of them if there are no more."""
    total = math.comb(len(members), size)
    if count is None or count >= total:
        yield from map(list, itertools.combinations(members, size))
        return
    rng = random.Random(f"{seed}/{size}")
    seen: set[tuple[int, ...]] = set()
    while len(seen) < count:
        chosen = tuple(sorted(rng.sample(range(len(members)), size)))
        if chosen not in seen:
            seen.add(chosen)
            yield [members[i] for i in chosen]
