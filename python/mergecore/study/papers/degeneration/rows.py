"""What does a configuration come to, as Qing et al. measure it? And is it apart from another?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mergecore.diagnose.association import scipy_stats
from mergecore.evaluate import tally
from mergecore.evaluate.intervals import wilson
from mergecore.study.results import Results, Row

LOWEST = 100 / 805
"""The share of lowest reward that the paper judges: 100 of AlpacaEval's 805."""


@dataclass(frozen=True)
class Point:
    """A configuration's figures; shares are 0 to 1."""

    name: str
    reward: float
    reward_low: float
    reward_high: float
    worst: float
    """The share that is degenerate of the lowest eighth by reward: the paper's rate."""
    worst_count: int
    worst_low: float
    worst_high: float
    every: float
    """The share of all answers."""
    every_low: float
    every_high: float
    tasks: dict[str, float]


@dataclass(frozen=True)
class Apart:
    """A configuration beside another, over the same prompts."""

    reward: float
    """The mean difference."""
    low: float
    high: float
    p: float
    """Of a paired t-test."""
    worse: int
    """Answers that are degenerate here, and not there."""
    better: int
    flips_p: float
    """McNemar's."""


def point(results: Results, part: str, row: Row) -> Point | None:
    """None if the configuration has failed, or was not rewarded and judged."""
    name = str(row["configuration"])
    if row["error"] or row["reward"] is None or row["degeneration"] is None:
        return None
    rewards = results.rows(part, name, "rewards")
    judged = {v["id"]: tally.degenerate(v) for v in results.rows(part, name, "verdicts")}
    ids = tally.lowest(rewards, max(1, round(len(rewards) * LOWEST)))
    verdicts = [judged[i] for i in ids if judged.get(i) is not None]
    hits, count = sum(map(bool, verdicts)), len(verdicts)
    low, high = wilson(hits, count) or (0.0, 1.0)
    tasks = {k[5:]: v for k, v in row.items() if k.startswith("task.") and f"{k}_n" in row}
    return Point(
        name, row["reward"], row["reward_low"], row["reward_high"],
        hits / count if count else float("nan"), count, low, high,
        row["degeneration"], row["degeneration_low"], row["degeneration_high"],
        {task: score for task, score in tasks.items() if score is not None},
    )  # fmt: skip


def apart(results: Results, one: tuple[str, str], other: tuple[str, str]) -> Apart:
    """A configuration, as (part, name), beside another."""
    rows = [
        [results.rows(*who, stage) for stage in ("rewards", "verdicts")] for who in (one, other)
    ]
    found = tally.compare((rows[0][0], rows[0][1]), (rows[1][0], rows[1][1]))
    values = [{row["id"]: float(row["reward"]) for row in own[0]} for own in rows]
    shared = [i for i in values[0] if i in values[1]]
    differences = [values[0][i] - values[1][i] for i in shared]
    nothing = float("nan")
    reward = found["reward"] or {"mean": nothing, "interval": None}
    low, high = reward["interval"] or (nothing, nothing)
    flips = found["degeneration"] or {"first_only": 0, "second_only": 0, "p": 1.0}
    return Apart(
        reward["mean"], low, high, _paired(differences),
        flips["first_only"], flips["second_only"], flips["p"],
    )  # fmt: skip


def _paired(differences: Sequence[float]) -> float:
    if len(set(differences)) < 2:
        return 1.0 if not any(differences) else float("nan")
    return float(scipy_stats().ttest_1samp(differences, 0.0).pvalue)
