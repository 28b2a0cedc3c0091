"""What is in the files between the stages?

JSON Lines, one row a line, each with an `id` that is a string; or the one JSON array that
AlpacaEval reads and writes, whose rows are numbered where they have no id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from mergecore.errors import RecipeError

Row: TypeAlias = dict[str, Any]

ALPACA_EVAL = "alpaca_eval"
_REPOSITORY, _FILE = "tatsu-lab/alpaca_eval", "alpaca_eval.json"


def read(path: str | Path, *needs: str) -> list[Row]:
    """Reads rows of any stage.

    Args:
        path: A file of JSON Lines, or of one JSON array.
        *needs: Keys that each row must have, each as `key` or `one|other`.

    Returns:
        The rows in their order, each with an `id` of its own.

    Raises:
        RecipeError: The file cannot be read; a row is no object, lacks a key, or has the id of
            another; the message names the line.
    """
    path = Path(path).expanduser()
    rows: list[Row] = []
    seen: dict[str, int] = {}
    for number, row in enumerate(_entries(path), start=1):
        where = f"{path}: row {number}"
        if not isinstance(row, dict):
            raise RecipeError(f"{where} is no JSON object")
        for need in needs:
            if all(row.get(key) is None for key in need.split("|")):
                raise RecipeError(f"{where} has no {' or '.join(need.split('|'))}")
        _check_texts(row, where)
        row = {**row, "id": str(number - 1 if row.get("id") is None else row["id"])}
        if row["id"] in seen:
            raise RecipeError(f"{where} has the id {row['id']!r}, as row {seen[row['id']]} has")
        seen[row["id"]] = number
        rows.append(row)
    if not rows:
        raise RecipeError(f"{path}: has no rows")
    return rows


def prompts(source: str | Path, limit: int | None = None) -> list[Row]:
    """Reads prompts: `{id, instruction | messages, task?, reference?}`.

    Args:
        source: A file, or `alpaca_eval` for the 805 of AlpacaEval, which the hub has.
        limit: How many, from the first; all if None.

    Raises:
        MergecoreError: The file cannot be read, or the hub does not give it.
    """
    rows = read(_alpaca_eval() if source == ALPACA_EVAL else source, "instruction|messages")
    return rows[:limit]


def instruction(row: Row) -> str:
    """What was asked: the instruction, or the last of the user's messages."""
    if isinstance(row.get("instruction"), str):
        return str(row["instruction"])
    asked = [turn["content"] for turn in row.get("messages") or [] if turn.get("role") == "user"]
    return str(asked[-1]) if asked else ""


def messages(row: Row) -> list[dict[str, str]]:
    """The chat that a model is to answer."""
    return row.get("messages") or [{"role": "user", "content": str(row["instruction"])}]


def as_alpaca_eval(rows: Iterable[Row], generator: str) -> bytes:
    """Responses as AlpacaEval's JSON array."""
    listed = [
        {
            "dataset": row.get("dataset", "mergecore"),
            "instruction": instruction(row),
            "output": row["output"],
            "generator": generator,
        }
        for row in rows
    ]
    return (json.dumps(listed, indent=2, ensure_ascii=False) + "\n").encode()


def digest(*parts: Any) -> str:
    """Tells what a row was made of: under the same id another prompt may stand the next time."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def by_id(rows: Sequence[Row]) -> dict[str, Row]:
    """The rows by their ids."""
    return {row["id"]: row for row in rows}


def _check_texts(row: Row, where: str) -> None:
    """Refuses a prompt or an output that is no text."""
    for key in ("instruction", "output"):
        if row.get(key) is not None and not isinstance(row[key], str):
            raise RecipeError(f"{where}: its {key} is no text")
    chat = row.get("messages")
    if chat is None:
        return
    if not isinstance(chat, list) or not all(
        isinstance(turn, dict)
        and isinstance(turn.get("role"), str)
        and isinstance(turn.get("content"), str)
        for turn in [*chat, *([] if chat else [None])]
    ):
        raise RecipeError(
            f"{where}: its messages are no list of {{role, content}}, both of them texts"
        )


def _entries(path: Path) -> Iterator[Any]:
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise RecipeError(f"{path}: {reason}") from error
    if text.lstrip().startswith("["):
        try:
            yield from json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RecipeError(f"{path}: is not valid JSON: {error}") from error
        return
    # Not splitlines: JSON strings may hold U+2028 and the like, which it takes for ends of lines.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise RecipeError(f"{path}: line {number} is not valid JSON: {error}") from error


def _alpaca_eval() -> Path:
    """AlpacaEval's prompts, from the hub or its cache; its data set script is refused today."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(_REPOSITORY, _FILE, repo_type="dataset"))
    except Exception as error:  # the client's errors have no ancestor of their own
        raise RecipeError(
            f"{ALPACA_EVAL}: {_FILE} of the data set {_REPOSITORY} is not to be had"
            f" ({type(error).__name__}); download it and give the file with --prompts"
        ) from error
