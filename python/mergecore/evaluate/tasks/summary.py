"""What did a model reach in a task? The mean score, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mergecore.evaluate.intervals import mean_interval, wilson
from mergecore.evaluate.rows import Row
from mergecore.evaluate.tasks.task import Metric, Task


def summary(name: str, rows: Sequence[Row], task: Task | None = None) -> dict[str, Any]:
    """Sums up the rows of one task.

    Args:
        name: The task.
        rows: Its rows, with `prediction`, `reference` and `score`.
        task: Its metrics; None for one of the harness.

    Returns:
        `{task, n, score, interval, method}`: the mean with the 95 % interval of Wilson where scores
        are 0 or 1, else of the bootstrap; and the task's further metrics.
    """
    scores = [float(row["score"]) for row in rows if row["score"] is not None]
    binary = task.binary if task is not None else all(score in (0.0, 1.0) for score in scores)
    interval = wilson(round(sum(scores)), len(scores)) if binary else mean_interval(scores)
    metrics: dict[str, Metric] = {} if task is None else dict(task.metrics)
    return {
        "task": name,
        "n": len(scores),
        "score": sum(scores) / len(scores) if scores else None,
        "interval": None if interval is None else list(interval),
        "method": "wilson" if binary else "bootstrap",
        **{metric: measure(rows) for metric, measure in metrics.items()},
    }
