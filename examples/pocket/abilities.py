"""Which small string tasks are the adapters tuned on, and what is the right answer?

None is among the eight of the family. Answers are letters and digits that stand apart, for ROUGE-L,
by which they are scored, lower-cases and sees nothing else. Most have a cue word of their own and
can live side by side. Those called `list-...` and `digits-...` share one: each is right by itself,
and a merge of two can answer for one of them only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from string import ascii_lowercase as ALPHABET

from mergecore.pocket.tasks import Example, Split, is_test

Items = list[str]

USUAL = 2.5e-3
HARD = 5e-3
"""For what is not learned in time at the usual rate; such an adapter lies farther from the base."""
LOUD = 1.2e-2
"""Far from the base, and heard in any merge."""


@dataclass(frozen=True)
class Ability:
    """`solve` answers the items that `draw` makes; a prompt reads `cue: items =`."""

    cue: str
    draw: Callable[[random.Random], Items]
    solve: Callable[[Items], Items]
    steps: int = 160
    rate: float = USUAL


def letters(rng: random.Random) -> Items:
    return rng.choices(ALPHABET, k=rng.randint(4, 8))


def digits(rng: random.Random) -> Items:
    return rng.choices("0123456789", k=rng.randint(3, 7))


def three_digits(rng: random.Random) -> Items:
    return rng.choices("0123456789", k=3)


def moved(items: Items, by: int) -> Items:
    return [ALPHABET[(ALPHABET.index(c) + by) % 26] for c in items]


def swapped(items: Items) -> Items:
    pairs = [items[i : i + 2][::-1] for i in range(0, len(items), 2)]
    return [c for pair in pairs for c in pair]


def halves_turned(items: Items) -> Items:
    middle = len(items) // 2
    return items[:middle][::-1] + items[middle:][::-1]


def doubled(items: Items) -> Items:
    return [c for c in items for _ in range(2)]


def shouted(items: Items) -> Items:
    return [c.upper() for c in items]


def _of(name: str, solve: Callable[[Items], Items], rate: float = USUAL) -> tuple[str, Ability]:
    return name, Ability(name, letters, solve, rate=rate)


def _of_digits(
    name: str, solve: Callable[[Items], Items], rate: float = USUAL
) -> tuple[str, Ability]:
    return name, Ability(name, digits, solve, rate=rate)


def _twice(items: Items) -> Items:
    return items + items


ABILITIES: dict[str, Ability] = dict(
    [
        _of("first", lambda x: x[:1]),
        _of("last", lambda x: x[-1:]),
        _of("ends", lambda x: [x[0], x[-1]]),
        _of("head", lambda x: x[:3]),
        _of("tail", lambda x: x[-3:]),
        _of("inside", lambda x: x[1:-1]),
        _of("odds", lambda x: x[::2]),
        _of("double", doubled, HARD),
        _of("rotate", lambda x: x[1:] + x[:1]),
        _of("swap", swapped),
        _of("halves", halves_turned, HARD),
        _of("mirror", lambda x: x + x[::-1], HARD),
        _of("consonants", lambda x: [c for c in x if c not in "aeiou"] or ["none"], HARD),
        _of("next", lambda x: moved(x, 1)),
        _of("previous", lambda x: moved(x, -1)),
        _of("descend", lambda x: sorted(x, reverse=True), HARD),
        _of("earliest", lambda x: sorted(x)[:1]),
        _of("latest", lambda x: sorted(x)[-1:]),
        _of("unique", lambda x: list(dict.fromkeys(x)), HARD),
        _of("length", lambda x: [str(len(x))]),
        _of("shout-back", lambda x: shouted(x)[::-1], HARD),
        _of_digits("largest", lambda x: [max(x)]),
        _of_digits("smallest", lambda x: [min(x)]),
        _of_digits("climb", sorted, HARD),
        _of_digits("complement", lambda x: [str(9 - int(c)) for c in x], HARD),
        ("plus", Ability("plus", three_digits, lambda x: list(str(sum(map(int, x)))), rate=HARD)),
        ("list-back", Ability("list", letters, lambda x: x[::-1])),
        ("list-sorted", Ability("list", letters, sorted)),
        ("list-moved", Ability("list", letters, lambda x: moved(x, 3))),
        ("list-twice", Ability("list", letters, _twice, rate=LOUD)),
        ("digits-back", Ability("digits", digits, lambda x: x[::-1], rate=HARD)),
        ("digits-last", Ability("digits", digits, lambda x: x[-1:], rate=LOUD)),
    ]
)


def examples(name: str, n: int, split: Split = "test", seed: int = 0) -> list[Example]:
    """`n` examples of an ability; the same ones for the same seed on every machine."""
    return list(islice(stream(name, split, random.Random(f"{name}/{split}/{seed}")), n))


def stream(name: str, split: Split, rng: random.Random) -> Iterator[Example]:
    """Endless examples of an ability from one side of the tasks' split."""
    ability = ABILITIES[name]
    while True:
        items = ability.draw(rng)
        body = " ".join(items)
        if is_test(body) == (split == "test"):
            yield Example(f"{ability.cue}: {body} =", " ".join(ability.solve(items)))
