"""What is the output's tokenizer, if it is to know the tokens of several?

One tokenizer is built upon; its tokens keep their ids. What others know beyond it comes behind, in
the order of the models: words of their vocabularies first, then added tokens, as mergekit has it.
mergekit makes added tokens of the words, too, which are then cut out of any text before the
tokenizer sees it; here they join the vocabulary, and so that they can be reached, byte-pair merges
that lead to them come after the tokenizer's own, and a Unigram's words keep their scores.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

from mergecore.errors import ModelError
from mergecore.tokenizer.tokens import FILE, Tokenizer, vocabulary

_FAR_BELOW = 100.0  # below the least score (a logarithm), so that no sum with it is the best

_PLAIN = {
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "special": False,
}


def build(
    base: Tokenizer, others: Sequence[Tokenizer], extra: Iterable[str]
) -> tuple[dict[str, Any], dict[str, int]]:
    """Joins tokenizers.

    Args:
        base: The tokenizer that is built upon.
        others: Tokenizers whose tokens join it; tokens without a row in their model do not.
        extra: Tokens to add, if they are not there.

    Returns:
        The output's tokenizer.json, and its tokens with their ids.

    Raises:
        ModelError: The tokenizer cannot be extended.
    """
    content, ids = _stripped(base)
    words: list[str] = []
    added: dict[str, dict[str, Any]] = {}
    for other in others:
        marked = other.added
        for token, number in sorted(other.ids.items(), key=lambda item: item[1]):
            if number >= other.rows:
                continue
            if token in marked:
                added.setdefault(token, marked[token])
            elif token not in ids:
                words.append(token)
    for token in extra:
        if token not in ids and token not in words:
            added.setdefault(token, {**_PLAIN, "content": token})
    words = [token for token in dict.fromkeys(words) if token not in added]
    there = {entry["content"] for entry in content.get("added_tokens") or []}
    added = {token: entry for token, entry in added.items() if token not in there}
    if not words and not added:
        return content, ids
    ids = _extend(content, ids, words, added, others)
    merges = [merge for other in others for merge in _merges(other)]
    _append_merges(content["model"], merges, set(words))
    if vocabulary(content, base.folder / FILE) != ids:
        raise ModelError(
            f"{base.folder / FILE}: cannot be joined with other tokenizers: its ids would change"
        )
    return content, ids


def _stripped(base: Tokenizer) -> tuple[dict[str, Any], dict[str, int]]:
    """A copy without the tokens that have no row."""
    content = copy.deepcopy(base.content)
    beyond = {token for token, number in base.ids.items() if number >= base.rows}
    ids = {token: number for token, number in base.ids.items() if token not in beyond}
    if not beyond:
        return content, ids
    content["added_tokens"] = [
        entry for entry in content.get("added_tokens") or [] if entry["content"] not in beyond
    ]
    model = content["model"]
    if isinstance(model["vocab"], list):
        model["vocab"] = model["vocab"][: base.rows]
    elif any(token in beyond for token in model["vocab"]):
        model["vocab"] = {t: number for t, number in model["vocab"].items() if t not in beyond}
        if model.get("merges"):
            model["merges"] = [
                merge
                for merge in model["merges"]
                if not beyond.intersection([*_pair(merge), "".join(_pair(merge))])
            ]
    return content, ids


def _extend(
    content: dict[str, Any],
    ids: dict[str, int],
    words: list[str],
    added: dict[str, dict[str, Any]],
    others: Sequence[Tokenizer],
) -> dict[str, int]:
    """Gives new tokens the ids behind the last one."""
    ids = dict(ids)
    following = max(ids.values(), default=-1) + 1
    for token in [*words, *(token for token in added if token not in ids)]:
        ids[token] = following
        following += 1
    # The library numbers added tokens by itself, from the size of the vocabulary on, unless the
    # vocabulary has them: then they keep the ids that they have there.
    entries = [*(content.get("added_tokens") or [])]
    entries += [{**entry, "id": ids[token]} for token, entry in added.items()]
    model = content["model"]
    if isinstance(model["vocab"], list):
        marked = {entry["content"] for entry in entries}
        model["vocab"] = _lengthened(model["vocab"], ids, marked, others)
    else:
        model["vocab"] = dict(sorted(ids.items(), key=lambda item: item[1]))
    content["added_tokens"] = sorted(entries, key=lambda entry: int(entry["id"]))
    return ids


def _lengthened(
    vocabulary: list[list[Any]], ids: dict[str, int], added: set[str], others: Sequence[Tokenizer]
) -> list[list[Any]]:
    """A Unigram's words, which are numbered by their places, with those that are behind them.

    A word's score is that of the first Unigram that has one for it. What nobody has scored (words
    of other kinds of tokenizers) comes after all else; so do added tokens, found before any word.
    """
    scores: dict[str, float] = {}
    for other in others:
        for word, score in _entries(other.content):
            scores.setdefault(word, score)
    least = min([*scores.values(), *(score for _, score in vocabulary)], default=0.0) - _FAR_BELOW
    behind = sorted((number, token) for token, number in ids.items() if number >= len(vocabulary))
    return [
        *vocabulary,
        *([token, least if token in added else scores.get(token, least)] for _, token in behind),
    ]


def _entries(content: dict[str, Any]) -> list[list[Any]]:
    """The words of a Unigram with their scores; none in the other kinds."""
    words = (content.get("model") or {}).get("vocab")
    return words if isinstance(words, list) else []


def _merges(tokenizer: Tokenizer) -> list[Any]:
    return (tokenizer.content.get("model") or {}).get("merges") or []


def _pair(merge: Any) -> tuple[str, str]:
    """The two halves; older files write them as one text with a blank between."""
    first, second = merge.split(" ", 1) if isinstance(merge, str) else merge
    return first, second


def _append_merges(model: dict[str, Any], merges: list[Any], words: set[str]) -> None:
    """Those merges that lead to a new word, from what is known, behind the tokenizer's own."""
    if "merges" not in model:
        return
    known = model["vocab"]
    new = dict.fromkeys(_pair(merge) for merge in merges)
    chosen = [(a, b) for a, b in new if a + b in words and a in known and b in known]
    as_text = all(isinstance(merge, str) for merge in model["merges"])
    if as_text and not any(" " in half for pair in chosen for half in pair):
        model["merges"] = [*model["merges"], *(f"{a} {b}" for a, b in chosen)]
    else:
        model["merges"] = [list(_pair(merge)) for merge in model["merges"]] + [
            [a, b] for a, b in chosen
        ]
