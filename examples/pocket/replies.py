"""How good are a model's replies, and how many are degenerate? As `mergecore evaluate` has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from mergecore.evaluate.backends import Refused, Reply, Request
from mergecore.evaluate.backends.transformers import Transformers
from mergecore.evaluate.decoding import Decoding
from mergecore.evaluate.judge import judge
from mergecore.evaluate.scorers import TransformersReward
from mergecore.pocket import chat

DECODING = Decoding(max_tokens=80)  # the default but for the length: the context is 128 tokens


@dataclass(frozen=True)
class Replies:
    """Averages over the replies to some instructions."""

    graded: float
    """By the reward model."""
    reward: float
    """By the rule that the models were preferred by."""
    right: float
    words: float
    degenerate: float
    """The share in which the rules judge sees a fault."""
    endless: float
    """The share that the limit cut off."""


def reply(folder: Path, asked: Sequence[chat.Instruction]) -> list[Reply]:
    """What a model says, in the order of what it is asked."""
    said: dict[str, Reply] = {}

    def keep(answer: Reply | Refused) -> None:
        assert isinstance(answer, Reply), answer
        said[answer.id] = answer

    backend = Transformers(folder, folder.name, dtype="float32", batch_size=64)
    requests = [Request(str(i), [{"role": "user", "content": a.text}]) for i, a in enumerate(asked)]
    backend.answer(requests, DECODING, keep)
    return [said[request.id] for request in requests]


def measure(folder: Path, grader: TransformersReward, asked: Sequence[chat.Instruction]) -> Replies:
    """Ask a model, and grade and judge what it says."""
    said = reply(folder, asked)
    chats = [
        grader.chat.tokens(
            [{"role": "user", "content": a.text}, {"role": "assistant", "content": r.output}],
            answered=True,
        )[:128]
        for a, r in zip(asked, said, strict=True)
    ]
    pairs = list(zip(asked, (r.output.strip() for r in said), strict=True))
    return Replies(
        graded=fmean(grader.score(chats)),
        reward=fmean(chat.reward(a, text) for a, text in pairs),
        right=fmean(chat.is_correct(a, text) for a, text in pairs),
        words=fmean(len(text.split()) for _, text in pairs),
        degenerate=fmean(judge(a.text, text).degenerate for a, text in pairs),
        endless=fmean(r.finish_reason == "length" for r in said),
    )
