"""ROUGE-L (Lin 2004): how long is the longest common subsequence of answer and reference?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from mergecore.evaluate import rows as files
from mergecore.evaluate.rows import Row
from mergecore.evaluate.tasks.task import Item, Question, Scored, Task


def _ask(rows: Sequence[Row], few_shot: int, plain: bool) -> list[Item]:
    return [Question(row["id"], files.messages(row), row["reference"], row) for row in rows]


def _score(question: Question, output: str) -> Scored:
    """The F1; of several references the best."""
    reference = question.reference
    references = reference if isinstance(reference, list) else [reference]
    scorer = _scorer()
    scores = [scorer.score(str(one), output)["rougeL"].fmeasure for one in references]
    return Scored(output, float(max(scores)))


@lru_cache(maxsize=1)
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"])


TASK = Task(
    "rouge_l",
    ("instruction|messages", "reference"),
    _ask,
    _score,
    max_tokens=256,
    packages=("rouge_score",),
    binary=False,
)
