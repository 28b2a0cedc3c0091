"""How good is a response, by a reward model?

The chat of prompt and response in the reward model's own template, as token ids (as text,
tokenizers would write the beginning of text twice), goes through a sequence classifier of one
label; the reward is its raw logit, as in ExPO's code, which the study of degeneration follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergecore.errors import RecipeError, RunError
from mergecore.evaluate import rows
from mergecore.evaluate.chat import TemplateRefusalError
from mergecore.evaluate.rows import Row
from mergecore.evaluate.scorers import RewardModel
from mergecore.evaluate.stage import open_stage

DEFAULT_MODEL = "weqweasdas/RM-Mistral-7B"


@dataclass(frozen=True)
class Rewarded:
    """What a run of this stage did."""

    out: str
    model: str
    rewards: int
    made: int
    mean: float
    truncated: int


def reward(
    responses: Sequence[Row],
    model: str,
    out: str | Path,
    backend: Callable[[], RewardModel],
    *,
    batch_size: int = 8,
    about: dict[str, Any] | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Rewarded:
    """Scores responses, and goes on where an earlier run ended.

    Args:
        responses: Rows with `instruction` or `messages`, and `output`.
        model: What rows call the reward model.
        out: The file of rewards: `{id, model, reward, truncated, of}`; `model` is the responses'.
        backend: Makes the reward model; not called if there is nothing left to do.
        batch_size: How many are scored at once.
        about: What else decides the rewards, for the record.
        overwrite: Begin anew.
        progress: Called with the rewards that are there and those that are wanted.

    Raises:
        MergecoreError: As the backend and `open_stage` say.
    """
    settings = {"model": model, **(about or {})}
    with open_stage(out, "reward", settings, overwrite=overwrite) as stage:
        before = len(stage.done)
        left = stage.left(responses, _digest)
        if left:
            scorer = backend()
            # Alike in length, little of a batch is filling.
            left.sort(key=lambda row: len(row["output"]))
            for first in range(0, len(left), batch_size):
                batch = left[first : first + batch_size]
                chats = [_tokens(scorer, row) for row in batch]
                values = scorer.score([ids for ids, _ in chats])
                for row, (_, cut), value in zip(batch, chats, values, strict=True):
                    if not math.isfinite(value):
                        raise RunError(
                            f"{model}: the reward of {row['id']!r} is {value}; with --dtype float32"
                            " it may be a number, else the model is broken"
                        )
                    stage.add(
                        {
                            "id": row["id"],
                            "model": row.get("model") or row.get("generator"),
                            "reward": value,
                            "truncated": cut,
                            "of": _digest(row),
                        }
                    )
                if progress is not None:
                    progress(sum(row["id"] in stage.done for row in responses), len(responses))
        done = [stage.done[row["id"]] for row in responses]
        made = len(stage.done) - before
    mean = sum(row["reward"] for row in done) / len(done)
    return Rewarded(str(out), model, len(done), made, mean, sum(r["truncated"] for r in done))


def _digest(row: Row) -> str:
    return rows.digest(rows.messages(row), row["output"])


def _tokens(scorer: RewardModel, row: Row) -> tuple[list[int], bool]:
    """The chat as tokens, and whether its end was cut off."""
    chat = [*rows.messages(row), {"role": "assistant", "content": str(row["output"])}]
    try:
        ids = scorer.chat.tokens(chat, answered=True)
    except TemplateRefusalError as error:
        raise RecipeError(f"the response {row['id']!r}: {error}") from error
    if scorer.context is not None and len(ids) > scorer.context:
        return ids[: scorer.context], True
    return ids, False
