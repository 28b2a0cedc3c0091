"""What tokenizer does the output get, and which rows are its tokens' in each model?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from mergecore.errors import ModelError
from mergecore.tokenizer import union
from mergecore.tokenizer.alignment import Alignment, align
from mergecore.tokenizer.tokens import FILE, Tokenizer, read

Places: TypeAlias = Mapping[str, tuple[Path, int]]
"""For each model its folder, and the rows of its embedding."""


@dataclass(frozen=True)
class Output:
    """The output's tokenizer, and the models aligned to it."""

    built_on: Tokenizer
    like: Tokenizer
    """Whose special tokens, settings and chat template it has."""
    donor: Tokenizer
    """Whose config the output gets."""
    content: dict[str, Any]
    """tokenizer.json."""
    ids: dict[str, int]
    alignment: Alignment
    notes: list[str]
    warnings: list[str]

    @property
    def moved(self) -> dict[int, int] | None:
        """The donor's token ids, and what they are here; None where all stay as they are.

        A token that is not here has none.
        """
        ids = self.donor.ids
        moved = {number: self.ids[token] for token, number in ids.items() if token in self.ids}
        return None if all(moved.get(number) == number for number in ids.values()) else moved


def source_of(request: Mapping[str, Any]) -> str | None:
    """Whose tokenizer a recipe asks for: `union`, `base` or a model; None if it says nothing."""
    if request.get("tokenizer_source") is not None:
        return str(request["tokenizer_source"])
    if isinstance(request.get("tokenizer"), dict):
        return str(request["tokenizer"].get("source") or "union")
    return None


def decide(
    request: Mapping[str, Any],
    models: Iterable[str],
    donor: str,
    places: Places,
    elsewhere: Places,
) -> Output:
    """Builds the output's tokenizer and aligns every model to it.

    Args:
        request: The recipe, which asks for it (`source_of`).
        models: The references of what is merged, the base among them, in order.
        donor: Whose config and side files the output gets.
        places: Every model that is read.
        elsewhere: The model that only the tokenizer is taken of, if there is one.

    Raises:
        ModelError: A tokenizer is missing, or cannot be extended.
        RecipeError: The recipe names a token that is not there.
    """
    source, models = source_of(request), list(models)
    said = request.get("tokenizer") or {}
    base = str(request.get("base_model") or models[0])
    known, notes = _all(places, base)
    merged = [known[model] for model in models]
    built_on, others = known[base], merged
    if source != "union":
        built_on, others = _named(source, known, elsewhere) if source != "base" else built_on, []
    others = [tokenizer for tokenizer in others if tokenizer is not built_on]
    content, ids = union.build(built_on, others, said.get("tokens") or {})
    alignment = align(
        ids,
        merged,
        readers=[tokenizer for name, tokenizer in known.items() if name not in models],
        base=request.get("base_model"),
        least=built_on.rows,
        multiple=said.get("pad_to_multiple_of"),
        tokens=said.get("tokens"),
    )
    more = len(ids.keys() - built_on.ids.keys())
    notes.append(
        f"vocabulary: {alignment.rows:,} rows; {len(ids):,} tokens, {built_on.reference}'s"
        + (f" and {more:,} more" if more else "")
    )
    like = known[donor] if source == "union" else built_on
    warnings = _warnings(alignment)
    return Output(built_on, like, known[donor], content, ids, alignment, notes, warnings)


def _all(places: Places, base: str) -> tuple[dict[str, Tokenizer], list[str]]:
    """Every model's tokenizer; a fine-tune that ships none speaks as the base does."""
    folder, rows = places[base]
    standard = read(base, folder, rows) or _missing(base, folder)
    known, notes = {}, []
    for name, (folder, rows) in places.items():
        tokenizer = standard if name == base else read(name, folder, rows)
        if tokenizer is None:
            if rows != standard.rows:
                raise ModelError(
                    f"{name}: has no {FILE}, and {rows} rows where {base} has {standard.rows}:"
                    " which token has which row cannot be told; put its tokenizer into its folder"
                )
            tokenizer = replace(standard, reference=name)
            notes.append(f"{name} has no {FILE}: taken to be {base}'s")
        known[name] = tokenizer
    return known, notes


def _named(source: str | None, known: Mapping[str, Tokenizer], elsewhere: Places) -> Tokenizer:
    """The tokenizer of the model that a recipe names, with all its tokens, rows or not."""
    name = str(source)
    if name in known:
        tokenizer = known[name]
    else:
        folder, rows = elsewhere[name]
        tokenizer = read(name, folder, rows) or _missing(name, folder)
    return replace(tokenizer, rows=max(tokenizer.rows, max(tokenizer.ids.values()) + 1))


def _missing(reference: str, folder: Path) -> Tokenizer:
    raise ModelError(
        f"{folder / FILE}: is missing, and {reference}'s tokenizer is asked for; transformers makes"
        " one: AutoTokenizer.from_pretrained(MODEL).save_pretrained(MODEL)"
    )


def _warnings(alignment: Alignment) -> list[str]:
    if not alignment.unowned:
        return []
    named = ", ".join(map(repr, alignment.unowned[:5]))
    rest = ", …" if len(alignment.unowned) > 5 else ""
    return [f"no model has a row for {named}{rest}: set to zero"]
