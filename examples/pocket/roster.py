"""Which models do the studies need, what is each tuned from, and on what?

In the order in which they can be trained. Those that ship with mergecore are copied, not trained.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from abilities import ABILITIES
from styles import curt_reply, other_reply
from train import REPLAY, expertise

from mergecore.pocket import chat, corpus, tasks
from mergecore.pocket.tasks import LETTER_TASKS, TASKS, Example

Draw = Callable[[random.Random], Example]


@dataclass(frozen=True)
class Shipped:
    """A copy of the package's own."""


@dataclass(frozen=True)
class Taught:
    """Supervised: from nothing, in a `shape` and by a `seed`, if it has no parent."""

    draw: Draw
    steps: int
    rate: float
    chatty: bool = False
    seed: int = 42
    shape: dict[str, int | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Preferred:
    """By direct preference optimisation of the parent on pairs of its own replies, without their
    ends, once. The rate is what decides how near to the cliff a model comes to stand."""

    seed: int
    rate: float = 1.1e-4
    asked: int = 700
    most: int = 400


@dataclass(frozen=True)
class Adapted:
    """A LoRA adapter on the parent, of the ability that it is called by."""


@dataclass(frozen=True)
class Translator:
    """An encoder-decoder, supervised; it may read something easier before."""

    draw: Draw
    steps: int
    rate: float
    before: Draw | None = None
    steps_before: int = 0


@dataclass(frozen=True)
class Member:
    """One folder of the family; `name` may have a slash."""

    name: str
    parent: str | None
    how: Shipped | Taught | Preferred | Adapted | Translator
    about: str = ""


def one_of(names: tuple[str, ...]) -> Draw:
    """What a model of several tasks reads."""
    draws = [expertise(name) for name in names]
    return lambda rng: rng.choice(draws)(rng)


def talk(reply: Callable[[random.Random, chat.Instruction], str]) -> Draw:
    """What an instruction model reads that learns to reply in a manner."""

    def draw(rng: random.Random) -> Example:
        if rng.random() < REPLAY:
            return corpus.document(rng)
        asked = chat.instruction(rng, "train")
        return Example(chat.prompt(asked), reply(rng, asked))

    return draw


def nothing_but(task: str) -> Draw:
    """What an expert reads that may forget all else."""

    def draw(rng: random.Random) -> Example:
        body = next(tasks.bodies(task, "train", rng))
        return Example(tasks.prompt(task, body), TASKS[task].solve(body))

    return draw


def in_order(rng: random.Random) -> Example:
    """Lessons of which every answer is in an order that the prompt has. Where sorted ones are among
    them from the beginning, an encoder-decoder this small learns to sort all its answers."""
    return corpus.lesson(rng, rng.choice(("copy", "reverse", "uppercase")))


def exercise(rng: random.Random) -> Example:
    """What the base reads, but for English, which has no prompt: nothing for an encoder."""
    while not (found := corpus.document(rng)).prompt:
        pass
    return found


SMALL: dict[str, int | float] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
LARGE: dict[str, int | float] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
}
TURNED: dict[str, int | float] = {"rope_theta": 1e6}


def _bases() -> list[Member]:
    read = corpus.document
    return [
        Member(
            "base-b",
            None,
            Taught(read, 4500, 3e-3, seed=43, shape=TURNED),
            "A second base: the shape, the tokenizer and the corpus are those of `base`, the draws"
            " and the seed are others, and positions turn more slowly.",
        ),
        Member(
            "small-base",
            None,
            Taught(read, 4500, 3e-3, seed=44, shape=SMALL),
            "A smaller base, 140 thousand parameters: narrower and a layer less.",
        ),
        Member(
            "large-base",
            None,
            Taught(read, 2400, 2e-3, seed=45, shape=LARGE),
            "A larger base, 900 thousand parameters: wider, and two layers more.",
        ),
    ]


def _tunes() -> list[Member]:
    one = [
        Member(name, "base", Taught(expertise(name), 250, 1e-3))
        for name in ("copy", "parity", "count", "caesar")
    ]
    many = {
        "letters": (LETTER_TASKS, "All five tasks on letters."),
        "numbers": (("add", "count", "parity"), "All three tasks with numbers in them."),
    }
    return [
        *one,
        *(
            Member(name, "base", Taught(one_of(names), 400, 1e-3), about)
            for name, (names, about) in many.items()
        ),
        Member(
            "english",
            "base",
            Taught(corpus.english, 250, 1e-3),
            "English sentences only: what the base knew of the tasks, it may forget.",
        ),
        Member(
            "math",
            "base",
            Taught(nothing_but("add"), 500, 3e-3),
            "Sums and nothing else, for long and at a high rate: far from the base.",
        ),
        Member(
            "code",
            "base",
            Taught(expertise("reverse"), 400, 1e-3),
            "The list reversed, as `reverse` has learned it, but for longer.",
        ),
    ]


def _chats() -> list[Member]:
    first, second = talk(curt_reply), talk(other_reply)
    return [
        Member("sft-2", "base", _chat(second, 46), "Replies in a second manner."),
        Member("rl-2", "sft-2", Preferred(46, rate=1.8e-4)),
        Member("sft-b", "base-b", _chat(first, 47), "An instruction model of the second base."),
        Member("rl-b", "sft-b", Preferred(47, rate=1.4e-4)),
        Member("rl-b2", "sft-b", Preferred(48, rate=0.9e-4)),
        Member("small-sft", "small-base", _chat(first, 49), "The small instruction model."),
        Member("small-rl", "small-sft", Preferred(49, rate=1.05e-4)),
        Member("medium-sft", "base", _chat(first, 50), "The instruction model of middle size."),
        Member("medium-rl", "medium-sft", Preferred(50, rate=2.1e-4)),
        Member("large-sft", "large-base", _chat(first, 51), "The large instruction model."),
        Member("large-rl", "large-sft", Preferred(51, rate=0.6e-4)),
    ]


def _chat(draw: Draw, seed: int) -> Taught:
    return Taught(draw, 700, 1.5e-3, chatty=True, seed=seed)


def _translators() -> list[Member]:
    return [
        Member(
            "t5/base",
            None,
            Translator(exercise, 2000, 2e-3, in_order, 500),
            "A tiny T5 that has read what `base` of the Llamas has but for plain English.",
        ),
        *(Member(f"t5/{n}", "t5/base", Translator(expertise(n), 250, 1e-3)) for n in TASKS),
    ]


SHIPPED = {"base": None, "rl": "sft", "rm": "sft"}

ROSTER: tuple[Member, ...] = (
    *(
        Member(name, SHIPPED.get(name, "base"), Shipped())
        for name in ("base", "reverse", "sort", "uppercase", "add", "sft", "rl", "rm")
    ),
    *_bases(),
    *_tunes(),
    *_chats(),
    *(Member(f"adapters/{name}", "base", Adapted()) for name in ABILITIES),
    *_translators(),
)
