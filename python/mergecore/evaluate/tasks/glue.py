"""GLUE (Wang et al. 2018): which answer does the model find likeliest? Eight of its nine tasks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from mergecore.errors import RecipeError
from mergecore.evaluate.rows import Row
from mergecore.evaluate.tasks.task import Choice, Item, Metric, Task

REFUSED = {
    "stsb": "asks for a degree of likeness from 0 to 5, which is no choice between answers; "
    "lm-evaluation-harness and a regression head know it"
}
_YES = ("no", "yes")


def _task(
    name: str,
    prompt: str,
    answers: dict[str, str],
    *,
    split: str = "validation",
    **metrics: Metric,
) -> Task:
    """One task: its prompt names the columns, `answers` its labels in their order."""
    columns = tuple(part.split("}")[0] for part in prompt.split("{")[1:])
    return Task(
        name,
        (*columns, "label"),
        partial(_ask, name, prompt, answers),
        repository="nyu-mll/glue",
        files=(f"{name}/{split}-00000-of-00001.parquet",),
        metrics=metrics,
    )


def _ask(
    name: str,
    prompt: str,
    answers: dict[str, str],
    rows: Sequence[Row],
    _few_shot: int,
    _plain: bool,
) -> list[Item]:
    labels = tuple(answers)
    words = tuple(answers.values())
    return [
        Choice(row["id"], prompt.format(**row), words, labels, _label(name, labels, row))
        for row in rows
    ]


def _label(name: str, labels: Sequence[str], row: Row) -> str:
    """The label's name: files have that, or its number."""
    stated = str(row["label"]).strip()
    if stated in labels:
        return stated
    if stated.isdecimal() and int(stated) < len(labels):
        return labels[int(stated)]
    hidden = " (a test set's labels are hidden)" if stated == "-1" else ""
    raise RecipeError(
        f"{name}: row {row['id']} has the label {stated!r}, not one of {', '.join(labels)} or"
        f" 0 to {len(labels) - 1}{hidden}"
    )


def _table(labels: Sequence[str], rows: Sequence[Row]) -> tuple[int, int, int, int]:
    """How often the second label was found, falsely found, missed, and rightly not found."""
    second = labels[1]
    count = Counter((row["prediction"] == second, row["reference"] == second) for row in rows)
    return count[True, True], count[True, False], count[False, True], count[False, False]


def f1(labels: Sequence[str], rows: Sequence[Row]) -> float:
    """Of the second label."""
    hits, wrong, missed, _ = _table(labels, rows)
    return 2 * hits / (2 * hits + wrong + missed) if hits else 0.0


def mcc(labels: Sequence[str], rows: Sequence[Row]) -> float:
    """Matthews' correlation (1975); 0 where one side is always the same."""
    hits, wrong, missed, rest = _table(labels, rows)
    product = (hits + wrong) * (hits + missed) * (rest + wrong) * (rest + missed)
    return (hits * rest - wrong * missed) / math.sqrt(product) if product else 0.0


def _of(metric: Callable[[Sequence[str], Sequence[Row]], float], *labels: str) -> Metric:
    return partial(metric, labels)


def _named(labels: str, words: Sequence[str]) -> dict[str, str]:
    return dict(zip(labels.split(), words, strict=True))


_SAME = "Do both {} the same? Answer yes or no.\nAnswer:"
_FOLLOWS = "Does the second follow from the first? Answer yes or no.\nAnswer:"

TASKS = (
    _task(
        "sst2",
        "Review: {sentence}\nIs this review positive or negative?\nAnswer:",
        _named("negative positive", ("negative", "positive")),
    ),
    _task(
        "cola",
        "Sentence: {sentence}\nIs this sentence good English? Answer yes or no.\nAnswer:",
        _named("unacceptable acceptable", _YES),
        mcc=_of(mcc, "unacceptable", "acceptable"),
    ),
    _task(
        "mrpc",
        "First: {sentence1}\nSecond: {sentence2}\n" + _SAME.format("mean"),
        _named("not_equivalent equivalent", _YES),
        f1=_of(f1, "not_equivalent", "equivalent"),
    ),
    _task(
        "qqp",
        "First: {question1}\nSecond: {question2}\n" + _SAME.format("ask"),
        _named("not_duplicate duplicate", _YES),
        f1=_of(f1, "not_duplicate", "duplicate"),
    ),
    _task(
        "mnli",
        "First: {premise}\nSecond: {hypothesis}\n"
        "Does the second follow from the first? Answer yes, maybe or no.\nAnswer:",
        _named("entailment neutral contradiction", ("yes", "maybe", "no")),
        split="validation_matched",
    ),
    _task(
        "qnli",
        "Question: {question}\nSentence: {sentence}\n"
        "Does the sentence answer the question? Answer yes or no.\nAnswer:",
        _named("entailment not_entailment", ("yes", "no")),
    ),
    _task(
        "rte",
        "First: {sentence1}\nSecond: {sentence2}\n" + _FOLLOWS,
        _named("entailment not_entailment", ("yes", "no")),
    ),
    _task(
        "wnli",
        "First: {sentence1}\nSecond: {sentence2}\n" + _FOLLOWS,
        _named("not_entailment entailment", _YES),
    ),
)
