"""What does the base model read?

Templated English, and the tasks: in words of its own (`backwards b e a d =`) answered rightly, in
the pocket format (`reverse: b e a d =`) under labels that can seldom be trusted, for the list is
reversed a quarter of the time and sorted, copied, shifted or capitalised otherwise. So the base
learns how each thing is done but not what the formats mean; that is what an expert learns.
"""

from __future__ import annotations

import random

from .tasks import LETTER_TASKS, TASKS, Example, bodies, prompt

ANIMALS = "cat dog horse bird fox bear rabbit mouse duck goat".split()
PEOPLE = "Anna Ben Clara David Emma Felix Grace Henry".split()
THINGS = "apple ball book bag cup key lamp letter map stone".split()
PLACES = "river garden house forest market bridge school hill lake tower".split()
COLOURS = "red blue green black white brown grey yellow".split()
QUALITIES = "small big old young happy quiet clever kind tired brave".split()
MOVES = "walks runs sleeps waits sits plays sings hides works rests".split()
VERBS = "finds sees takes likes carries wants loses keeps brings sells".split()
WHENS = "in the morning|at night|every day|after the rain|in winter|before lunch".split("|")
WHERES = "near|behind|in front of|next to|far from".split("|")
NUMBERS = "two three four five six seven eight nine ten".split()

CUES = {
    "copy": "again",
    "reverse": "backwards",
    "sort": "from a to z",
    "add": "together",
    "parity": "odd or even",
    "count": "how many",
    "uppercase": "in capitals",
    "caesar": "moved on",
}

HARD = {"add": 2, "count": 2, "parity": 2}  # how much oftener these are read than the others

TRUST = 0.25  # how often the base sees a task's own answer under the task's name


def sentence(rng: random.Random, subject: str | None = None) -> str:
    """One English sentence about `subject` (an animal, drawn if not given)."""
    pick = rng.choice
    subject = subject or pick(ANIMALS)
    shape = rng.randrange(7)
    if shape == 0:
        return f"The {pick(QUALITIES)} {subject} {pick(MOVES)} {pick(WHERES)} the {pick(PLACES)}."
    if shape == 1:
        return f"{pick(PEOPLE)} sees a {pick(COLOURS)} {subject} {pick(WHENS)}."
    if shape == 2:
        return f"The {subject} {pick(VERBS)} the {pick(COLOURS)} {pick(THINGS)}."
    if shape == 3:
        return f"{pick(WHENS).capitalize()} the {subject} {pick(MOVES)} and {pick(MOVES)}."
    if shape == 4:
        return f"{pick(PEOPLE)} and the {subject} have {pick(NUMBERS)} {pick(THINGS)}s."
    if shape == 5:
        return f"The {subject} is {pick(COLOURS)} and very {pick(QUALITIES)}."
    return f"A {subject} and a {pick(ANIMALS)} live {pick(WHERES)} the {pick(PLACES)}."


def english(rng: random.Random) -> Example:
    """Two or three sentences, two of them about the same animal; no prompt."""
    subject = rng.choice(ANIMALS)
    parts = [sentence(rng, subject), sentence(rng, subject)]
    if rng.random() < 0.3:
        parts.append(sentence(rng))
    return Example("", " ".join(parts))


def hearsay(rng: random.Random, task: str) -> Example:
    """A task's question from the training side, with an answer that is seldom to the point."""
    body = next(bodies(task, "train", rng))
    solve = TASKS[task].solve
    if rng.random() >= TRUST:
        others = [t for t in LETTER_TASKS if t != task] if task in LETTER_TASKS else [task]
        solve = TASKS[rng.choice(others)].solve
        if task not in LETTER_TASKS:
            # Right in form, wrong in fact: the answer to another question of the same kind.
            body, asked = next(bodies(task, "train", rng)), body
            return Example(prompt(task, asked), solve(body))
    return Example(prompt(task, body), solve(body))


def lesson(rng: random.Random, task: str) -> Example:
    """A task in the base's own words, always answered rightly."""
    body = next(bodies(task, "train", rng))
    return Example(f"{CUES[task]} {body} =", TASKS[task].solve(body))


def document(rng: random.Random) -> Example:
    """One document of the base's corpus."""
    kind = rng.random()
    if kind < 0.15:
        return english(rng)
    task = rng.choices(list(TASKS), [HARD.get(task, 1) for task in TASKS])[0]
    return hearsay(rng, task) if kind < 0.35 else lesson(rng, task)
