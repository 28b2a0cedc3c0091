"""What does a model reach in tasks? Rows in, `{id, task, prediction, reference, score}` out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from mergecore.errors import RunError
from mergecore.evaluate.backends import Refused, Reply, Request
from mergecore.evaluate.backends.transformers import Transformers
from mergecore.evaluate.decoding import Decoding
from mergecore.evaluate.likelihood import Likelihoods, Options, likelihoods
from mergecore.evaluate.rows import Row
from mergecore.evaluate.stage import Stage, open_stage
from mergecore.evaluate.tasks.summary import summary
from mergecore.evaluate.tasks.task import Choice, Item, Question, Task

Others = Callable[[Stage], list[dict[str, Any]]]
"""Adds the rows of the harness's tasks, and sums them up."""


_Waiting: TypeAlias = tuple[str, Task, Question]
"""A question with its row's id and its task."""


@dataclass(frozen=True)
class Asked:
    """A task and its items, each with the id that its row will have."""

    task: Task
    items: dict[str, Item]


@dataclass(frozen=True)
class Tested:
    """What a run of this stage did."""

    out: str
    model: str
    rows: int
    """All that are in the file now."""
    made: int
    """Those that this run made."""
    tasks: list[dict[str, Any]]
    """Of each what `summary` says."""


def ask(task: Task, rows: Sequence[Row], few_shot: int, *, plain: bool, limit: int | None) -> Asked:
    """The items of a task, the first `limit` of them."""
    items = task.ask(rows, few_shot, plain)[:limit]
    return Asked(task, {f"{task.name}/{item.id}": item for item in items})


def assess(
    model: str,
    asked: Sequence[Asked],
    out: str | Path,
    backend: Callable[[], Transformers],
    settings: dict[str, Any],
    *,
    max_tokens: int | None = None,
    chat: bool = False,
    normalized: bool = False,
    overwrite: bool = False,
    others: Others | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tested:
    """Asks a model every item, and goes on where an earlier run ended.

    Args:
        model: What messages call it.
        asked: The tasks.
        out: The file of rows.
        backend: Loads the model; not called if there is nothing left to do.
        settings: Whatever decides what a row holds, for the record.
        max_tokens: The longest answer; each task's own if None.
        chat: Choices are put in the chat template.
        normalized: A choice's log-likelihood counts by the byte of its answer.
        overwrite: Begin anew.
        others: The harness's tasks, after these.
        progress: Called with the items of these tasks that are done, and all of them.

    Raises:
        RunError: Some items got no answer; the others are in the file.
        MergecoreError: As the backend and `open_stage` say.
    """
    refused: list[Refused] = []
    loaded: list[Transformers] = []

    def loaded_model() -> Transformers:
        if not loaded:
            loaded.append(backend())
        return loaded[0]

    with open_stage(out, "tasks", settings, overwrite=overwrite) as stage:
        before = len(stage.done)
        wanted = [key for entry in asked for key in entry.items]

        def tell(*found: Row | Refused) -> None:
            refused.extend(row for row in found if isinstance(row, Refused))
            stage.add(*(row for row in found if not isinstance(row, Refused)))
            if progress is not None:
                progress(sum(key in stage.done for key in wanted), len(wanted))

        waiting: dict[int, list[_Waiting]] = {}
        for entry in asked:
            for key, item in entry.items.items():
                if isinstance(item, Question) and key not in stage.done:
                    most = max_tokens or entry.task.max_tokens
                    waiting.setdefault(most, []).append((key, entry.task, item))
        for most, questions in waiting.items():
            _answer(loaded_model(), questions, most, tell)
        for entry in asked:
            left = {key: item for key, item in entry.items.items() if key not in stage.done}
            choices = {key: item for key, item in left.items() if isinstance(item, Choice)}
            if choices:
                _choose(loaded_model(), entry.task, choices, chat, normalized, tell)
        found = [_summed(entry, stage) for entry in asked]
        loaded.clear()  # the harness loads the model itself
        found += others(stage) if others is not None else []
        total = len(stage.done)
    if refused:
        named = "; ".join(f"{entry.id}: {entry.reason}" for entry in refused[:3])
        more = f"; and {len(refused) - 3} more" if len(refused) > 3 else ""
        raise RunError(f"{len(refused)} items got no answer ({named}{more})")
    return Tested(str(out), model, total, total - before, found)


def _summed(entry: Asked, stage: Stage) -> dict[str, Any]:
    rows = [stage.done[key] for key in entry.items if key in stage.done]
    return summary(entry.task.name, rows, entry.task)


def _row(key: str, task: Task, prediction: Any, reference: Any, score: float) -> Row:
    return {
        "id": key,
        "task": task.name,
        "prediction": prediction,
        "reference": reference,
        "score": score,
    }


def _answer(
    model: Transformers,
    waiting: Sequence[_Waiting],
    max_tokens: int,
    tell: Callable[..., None],
) -> None:
    """Of all tasks together, so that batches are full; the likeliest tokens, as figures of tasks
    are not to depend on a seed."""
    decoding = Decoding(
        temperature=0.0,
        top_k=0,
        top_p=1.0,
        presence_penalty=0.0,
        frequency_penalty=0.0,
        max_tokens=max_tokens,
    )
    by_key = {key: (task, question) for key, task, question in waiting}

    def row_of(reply: Reply | Refused) -> Row | Refused:
        if isinstance(reply, Refused):
            return reply
        task, question = by_key[reply.id]
        assert task.score is not None
        scored = task.score(question, reply.output)
        row = _row(reply.id, task, scored.prediction, question.reference, scored.score)
        return {**row, **scored.more, "finish_reason": reply.finish_reason}

    requests = [Request(key, question.messages) for key, _, question in waiting]
    model.answer(requests, decoding, lambda *replies: tell(*map(row_of, replies)))


def _choose(
    model: Transformers,
    task: Task,
    choices: dict[str, Choice],
    chat: bool,
    normalized: bool,
    tell: Callable[..., None],
) -> None:
    def row_of(found: Likelihoods | Refused) -> Row | Refused:
        if isinstance(found, Refused):
            return found
        item = choices[found.id]
        values = [
            value / len(word.encode()) if normalized else value
            for value, word in zip(found.values, item.words, strict=True)
        ]
        prediction = item.labels[values.index(max(values))]
        row = _row(found.id, task, prediction, item.reference, float(prediction == item.reference))
        return {**row, "log_likelihoods": dict(zip(item.labels, found.values, strict=True))}

    options = [Options(key, item.text, item.words) for key, item in choices.items()]
    likelihoods(model, options, lambda *found: tell(*map(row_of, found)), chat=chat)
