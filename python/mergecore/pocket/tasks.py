"""What can a pocket model be asked, and what is the right answer?

Eight string tasks, each an endless seeded stream of (prompt, answer). Prompts read
`reverse: b e a d =`; answers read `d a e b`. Items stand apart, so that every letter and every
digit is one token, whatever the tokenizer has merged.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from string import ascii_lowercase as ALPHABET
from typing import Literal

Split = Literal["train", "test"]

CAESAR_SHIFT = 3


@dataclass(frozen=True)
class Example:
    """One question in the pocket format and its only right answer."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Task:
    """`draw` makes the body of a prompt, `solve` answers a body."""

    draw: Callable[[random.Random], str]
    solve: Callable[[str], str]
    chance: float = 0.0  # what guessing well without understanding scores


def _letters(rng: random.Random) -> str:
    return " ".join(rng.choices(ALPHABET, k=rng.randint(4, 8)))


def _sum(rng: random.Random) -> str:
    left, right = rng.randint(10, 99), rng.randint(10, 99)
    return f"{_spell(left)} + {_spell(right)}"


def _needle(rng: random.Random) -> str:
    hay = rng.choices("abcd", k=rng.randint(3, 7))
    return f"{rng.choice('abcd')} in {' '.join(hay)}"


def _spell(number: int) -> str:
    return " ".join(str(number))


def _add(body: str) -> str:
    left, right = (int(term.replace(" ", "")) for term in body.split(" + "))
    return _spell(left + right)


def _count(body: str) -> str:
    needle, hay = body.split(" in ")
    return str(hay.split().count(needle))


def _parity(body: str) -> str:
    return ("even", "odd")[int(_count(body)) % 2]


def _caesar(body: str) -> str:
    return " ".join(ALPHABET[(ALPHABET.index(c) + CAESAR_SHIFT) % 26] for c in body.split())


TASKS: dict[str, Task] = {
    "copy": Task(_letters, lambda body: body),
    "reverse": Task(_letters, lambda body: body[::-1]),
    "sort": Task(_letters, lambda body: " ".join(sorted(body.split()))),
    "add": Task(_sum, _add),
    "parity": Task(_needle, _parity, chance=0.5),
    "count": Task(_needle, _count, chance=0.4),
    "uppercase": Task(_letters, str.upper),
    "caesar": Task(_letters, _caesar),
}
LETTER_TASKS = tuple(name for name, task in TASKS.items() if task.draw is _letters)


def is_test(body: str) -> bool:
    """Whether a body is held out. One rule for all tasks: no model of the family, whatever it was
    tuned on, has met a test body under any task's name."""
    return zlib.crc32(body.encode()) % 10 == 0


def bodies(task: str, split: Split, rng: random.Random) -> Iterator[str]:
    """Endless bodies of one task from one side of the split."""
    draw = TASKS[task].draw
    while True:
        body = draw(rng)
        if is_test(body) == (split == "test"):
            yield body


def prompt(task: str, body: str) -> str:
    """The question in the pocket format."""
    return f"{task}: {body} ="


def examples(task: str, n: int, split: Split = "test", seed: int = 0) -> list[Example]:
    """`n` examples of a task; the same ones for the same seed on every machine."""
    rng = random.Random(f"{task}/{split}/{seed}")
    solve = TASKS[task].solve
    return [Example(prompt(task, b), solve(b)) for b in islice(bodies(task, split, rng), n)]
