"""Which row of which model becomes which row of the output?

A token's row is each model's own. A model that lacks the token takes, as in mergekit: the row of
the only model that has it; else the base's; else the mean of all that have it; else zero. What the
recipe says of a token comes before that.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from mergecore.errors import RecipeError
from mergecore.tokenizer.tokens import Tokenizer

Row: TypeAlias = tuple[str, int]
"""A model, and the number of a row of its embedding."""

_MEAN_OF_ROWS = -(2**63)


@dataclass
class Alignment:
    """The rows of the output's vocabulary, as the engine takes them."""

    rows: int
    maps: dict[str, array[int]]
    """For each model, where each row comes from: a row of its own, or ~number of one in `made`, or
    the mean of its tokens' rows (-2**63)."""
    made: list[list[Row]] = field(default_factory=list)
    unowned: list[str] = field(default_factory=list)
    """Tokens that no model has a row for."""

    def for_engine(self) -> tuple[int, dict[str, bytes], list[list[Row]]]:
        """What `Plan` takes as `vocabulary`."""
        return self.rows, {name: codes.tobytes() for name, codes in self.maps.items()}, self.made


def align(
    ids: Mapping[str, int],
    models: Sequence[Tokenizer],
    *,
    readers: Sequence[Tokenizer] = (),
    base: str | None = None,
    least: int = 0,
    multiple: int | None = None,
    tokens: Mapping[str, Mapping[str, Any]] | None = None,
) -> Alignment:
    """Maps each model's rows to the output's.

    Args:
        ids: The output's tokens.
        models: The tokenizers of the models that are merged, in order; rows are taken of these.
        readers: Tokenizers of models that need a map, too, and give no rows to others.
        base: The reference of the base, if the merge has one.
        least: The output has at least as many rows: a padded vocabulary keeps its size.
        multiple: The number of rows is rounded up to a multiple of this; `least` is not looked at.
        tokens: The recipe's words on single tokens: `{token: {source, force}}`.

    Raises:
        RecipeError: A token's source does not have it.
    """
    count = max(ids.values(), default=-1) + 1
    rows = -(-count // multiple) * multiple if multiple else max(count, least)
    by_row = dict.fromkeys(range(rows))
    by_row |= {number: token for token, number in ids.items()}
    everyone = [*models, *readers]
    # Rows that are asked for are new, whatever a model's own padding holds there.
    kept = count if multiple else rows
    own = {model.reference: _own_rows(model, ids, rows, kept) for model in everyone}
    alignment = Alignment(rows, own)
    numbers: dict[tuple[Row, ...], int] = {}

    def made(sources: list[Row]) -> int:
        number = numbers.setdefault(tuple(sources), len(numbers))
        if number == len(alignment.made):
            alignment.made.append(sources)
        return ~number

    words = {ids[token]: (token, words) for token, words in (tokens or {}).items()}
    lacking = {n for codes in own.values() for n, code in enumerate(codes) if code < 0}
    for number in sorted(lacking | words.keys()):
        token, said = words.get(number, (by_row[number], {}))
        owners = [
            (model.reference, own[model.reference][number])
            for model in models
            if own[model.reference][number] >= 0
        ]
        if said.get("source") is not None:
            code = made(_chosen(str(token), said["source"], models))
        elif not owners and token is None:
            code = _MEAN_OF_ROWS
        else:
            of_base = [row for row in owners if row[0] == base]
            code = made(of_base or owners)
            if not owners:
                alignment.unowned.append(str(token))
        for codes in own.values():
            if codes[number] < 0 or said.get("force"):
                codes[number] = code
    return alignment


def _own_rows(model: Tokenizer, ids: Mapping[str, int], rows: int, kept: int) -> array[int]:
    """Where a model has each row of the output; -1 where it has it not.

    Rows below `kept` that are no token's (padding) are each other's counterparts where they stand.
    """
    codes = array("q", [-1]) * rows
    spoken = set(model.ids.values())
    taken = set(ids.values())
    for row in range(min(kept, model.rows)):
        if row not in spoken and row not in taken:
            codes[row] = row
    for token, number in ids.items():
        own = model.row(token)
        if own is not None:
            codes[number] = own
    return codes


def _chosen(token: str, source: Any, models: Sequence[Tokenizer]) -> list[Row]:
    """The row that the recipe names for a token; none for zero."""
    if isinstance(source, dict) and source.get("kind") == "zero":
        return []
    reference = source["model"] if isinstance(source, dict) else source
    model = next((model for model in models if model.reference == reference), None)
    if model is None:
        raise RecipeError(
            f"tokenizer: the token {token!r} takes its row from {reference}, which is not merged"
        )
    wanted = source.get("token", token) if isinstance(source, dict) else token
    row = source["token_id"] if isinstance(source, dict) and "token_id" in source else None
    if row is None:
        row = model.row(wanted)
    if row is None or row >= model.rows:
        what = f"row {row}" if row is not None else f"token {wanted!r}"
        raise RecipeError(
            f"tokenizer: the token {token!r} takes its row from {reference}, which has no {what}"
        )
    return [(reference, row)]
