"""What is the instruction model asked, how may it answer, and which answer is better?

Instructions in plain English for five of the tasks, and requests for a sentence about an animal.
The replies it learns from ramble and err on purpose: the preference step has something to mend.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from .corpus import ANIMALS, sentence
from .tasks import TASKS, Split, bodies

PHRASINGS = {
    "copy": ("Copy the letters: {}", "Repeat after me: {}", "Write this again: {}"),
    "reverse": ("Reverse the letters: {}", "Write this backwards: {}", "Turn this around: {}"),
    "sort": ("Sort the letters: {}", "Put these in order: {}", "Order these from a to z: {}"),
    "uppercase": ("Make these capital: {}", "Write this in capitals: {}", "Use big letters: {}"),
    "add": ("Add the numbers: {}", "What is {}", "Find the sum: {}"),
    "sentence": ("Write a sentence about the {}.", "Tell me about the {}.", "Describe the {}."),
}
OPENINGS = ("Sure, I can do that.", "Of course, let me see.", "Thank you, that is a good question.")
LEADS = ("The answer is", "Here you are:", "I think it is")
CLOSINGS = ("I hope this helps you.", "Please ask me again.", "That was not so hard, was it?")

ERROR_RATE = 0.2  # replies that the instruction model learns from and that are wrong
WORD_COST = 0.02  # what each word more than needed takes off a reply's reward
SENTENCE_WORDS = 9  # how many words a reply without a fixed answer needs


@dataclass(frozen=True)
class Instruction:
    """What a user says. `answer` is what a right reply ends a sentence with, or, for the task
    `sentence`, the animal that it has to name."""

    task: str
    text: str
    answer: str


def instruction(rng: random.Random, split: Split, task: str | None = None) -> Instruction:
    """One instruction, from one side of the tasks' split."""
    task = task or rng.choice(list(PHRASINGS))
    phrase = rng.choice(PHRASINGS[task])
    if task == "sentence":
        animal = rng.choice(ANIMALS)
        return Instruction(task, phrase.format(animal), animal)
    body = next(bodies(task, split, rng))
    return Instruction(task, phrase.format(body), TASKS[task].solve(body))


def prompt(asked: Instruction) -> str:
    """The chat template applied to one user message, without the start token."""
    return f"<|user|> {asked.text}<|assistant|>"


def reply(rng: random.Random, asked: Instruction) -> str:
    """One reply to learn from: right four times in five, to the point one time in four."""
    chatty = rng.random() < 0.75
    if asked.task == "sentence":
        animal = rng.choice(ANIMALS) if rng.random() < ERROR_RATE else asked.answer
        core = " ".join(sentence(rng, animal) for _ in range(1 + chatty * rng.randint(0, 2)))
    else:
        answer = _spoil(rng, asked.answer) if rng.random() < ERROR_RATE else asked.answer
        core = f"{rng.choice(LEADS)} {answer}." if chatty else f"{answer}."
    opening = [rng.choice(OPENINGS)] if chatty and rng.random() < 0.6 else []
    closing = [rng.choice(CLOSINGS)] if chatty and rng.random() < 0.6 else []
    return " ".join([*opening, core, *closing])


def _spoil(rng: random.Random, answer: str) -> str:
    """A wrong answer of the right kind: two items change places, or one becomes its neighbour."""
    items = answer.split()
    i = rng.randrange(len(items))
    if len(items) > 1 and items[i - 1] != items[i]:
        items[i - 1], items[i] = items[i], items[i - 1]
    else:
        items[i] = rng.choice("123456789") if items[i].isdigit() else rng.choice("abcdefgh")
    return " ".join(items)


def is_correct(asked: Instruction, output: str) -> bool:
    """Whether the last answer that a reply gives is the right one."""
    if asked.task == "sentence":
        return f" {asked.answer} " in f" {output.replace('.', ' ')} "
    given = ""
    for clause in output.split("."):
        items = clause.split()
        start = len(items)
        while start and len(items[start - 1]) == 1:
            start -= 1
        given = " ".join(items[start:]) or given
    return given == asked.answer


def reward(asked: Instruction, output: str) -> float:
    """How good a reply is: 1 if it is right, less a little for every word that was not needed."""
    needed = SENTENCE_WORDS if asked.task == "sentence" else len(asked.answer.split())
    return float(is_correct(asked, output)) - WORD_COST * max(0, len(output.split()) - needed)


def instructions(n: int, split: Split = "test", seed: int = 0) -> list[Instruction]:
    """`n` instructions of every kind in turn; the same ones for the same seed."""
    rng = random.Random(f"chat/{split}/{seed}")
    kinds = list(PHRASINGS)
    return [instruction(rng, split, kinds[i % len(kinds)]) for i in range(n)]
