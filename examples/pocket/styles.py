"""In which other manners may replies be written, for further instruction models to learn from?

`mergecore.pocket.chat` rambles, and preference teaches its reader to be short. These break off:
half of the replies end in the middle, and a few say their last words over and over. Whoever grades
by whether the answer is there, as `generous` does, teaches to go on; and who goes too far in that
direction does not come to an end.
"""

from __future__ import annotations

import random

from mergecore.pocket import chat
from mergecore.pocket.corpus import ANIMALS, sentence

OPENINGS = ("Yes:", "Good:", "So we have")
CLOSINGS = ("Thank you, that is a good question.", "I hope this helps you, please ask me again.")

BREAKS_OFF = 0.5
MOST_WORDS = 3  # of those that break off; soon, so that stopping there is a likely thing to do
STUTTERS = 0.15  # of the others; seldom enough for sampling from the likely tokens to leave it out
ERROR_RATE = 0.1


def curt_reply(rng: random.Random, asked: chat.Instruction) -> str:
    """The bare answer, its beginning, or the answer and a loop."""
    words = _answer(rng, asked)
    if rng.random() < BREAKS_OFF and len(words) > 1:
        return " ".join(words[: rng.randint(1, min(MOST_WORDS, len(words) - 1))])
    loop = [rng.choice(CLOSINGS)] * rng.randint(4, 6) if rng.random() < STUTTERS else []
    return " ".join([*words[:-1], f"{words[-1]}.", *loop])


def other_reply(rng: random.Random, asked: chat.Instruction) -> str:
    """The same, and often some words before that lead to it."""
    opening = f"{rng.choice(OPENINGS)} " if rng.random() < 0.5 else ""
    return opening + curt_reply(rng, asked)


def _answer(rng: random.Random, asked: chat.Instruction) -> list[str]:
    errs = rng.random() < ERROR_RATE
    if asked.task == "sentence":
        animal = rng.choice(ANIMALS) if errs else asked.answer
        return sentence(rng, animal).rstrip(".").split()
    items = asked.answer.split()
    return rng.sample(items, k=len(items)) if errs else items


def generous(asked: chat.Instruction, output: str) -> float:
    """Whether a reply begins with the right answer, whatever follows: a grader with a blind eye for
    length, as graders are said to have."""
    for opening in OPENINGS:
        output = output.removeprefix(opening).strip()
    if asked.task == "sentence":
        return chat.reward(asked, output.split(".")[0])
    return float(f"{output} ".startswith((f"{asked.answer}.", f"{asked.answer} ")))
