"""What is a task? Rows become questions or choices, and what a model says becomes a score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from mergecore.evaluate.rows import Row


@dataclass(frozen=True)
class Question:
    """An item that a model answers in words."""

    id: str
    messages: list[dict[str, str]]
    reference: Any
    row: Row
    """What scoring needs beyond the reference."""


@dataclass(frozen=True)
class Choice:
    """An item of which a model finds one answer likelier than the others."""

    id: str
    text: str
    """What comes before the answer."""
    words: tuple[str, ...]
    """The answers as a model reads them."""
    labels: tuple[str, ...]
    """The same, as the data set calls them."""
    reference: str


@dataclass(frozen=True)
class Scored:
    """What came of an item."""

    prediction: Any
    score: float
    more: dict[str, Any] = field(default_factory=dict)
    """Further keys of its row."""


Item: TypeAlias = Question | Choice
Metric: TypeAlias = Callable[[Sequence[Row]], float | None]


@dataclass(frozen=True)
class Task:
    """A benchmark: where its rows are, how they are asked, how answers are scored."""

    name: str
    needs: tuple[str, ...]
    """Keys that each row must have, as in `rows.read`."""
    ask: Callable[[Sequence[Row], int, bool], list[Item]]
    """Takes rows, the number of worked examples, and whether the model reads plain text."""
    score: Callable[[Question, str], Scored] | None = None
    """Of an answer; None for a task of choices."""
    repository: str | None = None
    """On the hub, if it is there."""
    files: tuple[str, ...] = ()
    examples: int = 0
    """The most worked examples that it can show."""
    usual_examples: int = 0
    max_tokens: int = 512
    runs_code: bool = False
    packages: tuple[str, ...] = ()
    binary: bool = True
    """Scores are 0 or 1."""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """Beside the mean score, over all rows."""


def shown(
    pairs: Sequence[tuple[str, str]], question: str, *, plain: bool, cue: str = "\nAnswer:"
) -> list[dict[str, str]]:
    """A question after worked ones: turns of a chat, or for plain text one text."""
    if plain:
        text = "\n\n".join([*(f"{asked}{cue} {answer}" for asked, answer in pairs), question + cue])
        return [{"role": "user", "content": text}]
    turns = []
    for asked, answer in pairs:
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return [*turns, {"role": "user", "content": question}]


def before(text: str, stops: Sequence[str]) -> str:
    """An answer up to where a model begins to ask itself the next question."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(places)] if places else text
