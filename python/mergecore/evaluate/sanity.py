"""Can this model be judged at all? A broken tokenizer must not pass for a collapse.

Many merges that were called degenerate had a vocabulary that did not fit their rows, an end of text
that no token was, or no chat template: what they said was garbage because of it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mergecore.errors import ModelError
from mergecore.evaluate.chat import PLAIN, Chat
from mergecore.models import anatomy

_TEXT = "The quick brown fox jumps over the lazy dog, 1 2 3: ok?\nYes."


def check(
    folder: Path,
    reference: str,
    template: str | None = None,
    embedding: Callable[[], int | None] | None = None,
) -> Chat:
    """Checks tokenizer, embedding rows, end of text and chat template; reads headers only.

    Args:
        folder: The model's folder.
        reference: What messages call it.
        template: As in `Chat`.
        embedding: Tells its rows, None if it is not known which tensor it is; those of the weights
            in the folder, if it is left out.

    Returns:
        The tokenizer and template.

    Raises:
        ModelError: Something does not fit; the message says what.
    """
    chat = Chat(folder, reference, template)
    tokenizer = chat.tokenizer
    rows = embedding() if embedding else anatomy.describe(folder)["vocabulary_rows"]
    last = max(tokenizer.get_vocab().values())
    if rows is not None and last >= rows:
        raise ModelError(
            f"{reference}: its tokenizer has a token for row {last}, and its embedding {rows} rows;"
            " merge it with tokenizer_source, or take the tokenizer that belongs to it"
        )
    _check_round_trip(tokenizer, reference)
    _check_end(tokenizer, folder, rows, reference)
    if template != PLAIN:
        asked = chat.tokens([{"role": "user", "content": _TEXT}])
        if "quick brown fox" not in chat.text(asked):
            raise ModelError(f"{reference}: its chat template leaves out what the user says")
    return chat


def _check_round_trip(tokenizer: Any, reference: str) -> None:
    ids = tokenizer(_TEXT, add_special_tokens=False)["input_ids"]
    back = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    same = "".join(back.lower().split()) == "".join(_TEXT.lower().split())
    unknown = tokenizer.unk_token_id
    if not same and (unknown is None or unknown not in ids):
        raise ModelError(
            f"{reference}: its tokenizer does not give back what it reads ({back[:40]!r}); it is"
            " broken, or not this model's"
        )


def _check_end(tokenizer: Any, folder: Path, rows: int | None, reference: str) -> None:
    import json

    stated = []
    for name in ("generation_config.json", "config.json"):
        file = folder / name
        if file.is_file():
            said = json.loads(file.read_text("utf-8")).get("eos_token_id")
            stated += said if isinstance(said, list) else [said]
    ends = {int(end) for end in [*stated, tokenizer.eos_token_id] if end is not None}
    known = set(tokenizer.get_vocab().values())
    reachable = {end for end in ends if end in known and (rows is None or end < rows)}
    if not reachable:
        raise ModelError(
            f"{reference}: no token ends a text (eos_token_id {sorted(ends) or 'is not set'}):"
            " every answer would run to the limit"
        )
