"""In which other manners may replies be written, for further instruction models to learn from?

`mergecore.pocket.chat` rambles, and preference teaches its reader to be short. These break off: half
of the replies end after some words. Preference then teaches to go on, and whoever goes too far in
that direction does not come to an end. A right answer is right by the same reward in each manner.
"""

from __future__ import annotations

import random

from mergecore.pocket import chat
from mergecore.pocket.corpus import ANIMALS, sentence

OPENINGS = ("Yes:", "Good:", "So we have")

BREAKS_OFF = 0.5
MOST_WORDS = 3  # of those that break off; soon, so that stopping there is a likely thing to do
ERROR_RATE = 0.1


def curt_reply(rng: random.Random, asked: chat.Instruction) -> str:
    """The bare answer, or its beginning."""
    return " ".join(_broken_off(rng, _answer(rng, asked)))


def other_reply(rng: random.Random, asked: chat.Instruction) -> str:
    """The answer, or its beginning, often after some words that lead to it."""
    words = _broken_off(rng, _answer(rng, asked))
    opening = [rng.choice(OPENINGS)] if rng.random() < 0.5 else []
    return " ".join([*opening, *words])


def _answer(rng: random.Random, asked: chat.Instruction) -> list[str]:
    errs = rng.random() < ERROR_RATE
    if asked.task == "sentence":
        return sentence(rng, rng.choice(ANIMALS) if errs else asked.answer).split()
    items = asked.answer.split()
    words = rng.sample(items, k=len(items)) if errs else items
    return [*words[:-1], f"{words[-1]}."]


def _broken_off(rng: random.Random, words: list[str]) -> list[str]:
    if rng.random() < BREAKS_OFF and len(words) > 1:
        return words[: rng.randint(1, min(MOST_WORDS, len(words) - 1))]
    return words
