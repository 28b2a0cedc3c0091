"""Is the answer the reference, word for word? For rows of the user's own."""

from __future__ import annotations

from collections.abc import Sequence

from mergecore.evaluate import rows as files
from mergecore.evaluate.rows import Row
from mergecore.evaluate.tasks.task import Item, Question, Scored, Task


def _ask(rows: Sequence[Row], few_shot: int, plain: bool) -> list[Item]:
    return [Question(row["id"], files.messages(row), row["reference"], row) for row in rows]


def _score(question: Question, output: str) -> Scored:
    """1 if it is the reference, or one of several; how words are spaced does not matter."""
    reference = question.reference
    references = reference if isinstance(reference, list) else [reference]
    said = " ".join(output.split())
    return Scored(said, float(any(said == " ".join(str(one).split()) for one in references)))


TASK = Task("exact", ("instruction|messages", "reference"), _ask, _score, max_tokens=64)
