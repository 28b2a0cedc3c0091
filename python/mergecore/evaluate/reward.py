"""How good is a response, by a reward model?

The chat of prompt and response in the reward model's own template, as token ids (as text,
tokenizers would write the beginning of text twice), goes through a sequence classifier of one
label; the reward is its raw logit, as in ExPO's code, which the study of degeneration follows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mergecore.errors import ModelError
from mergecore.evaluate import rows
from mergecore.evaluate.chat import Chat
from mergecore.evaluate.rows import Row
from mergecore.evaluate.stage import open_stage

DEFAULT_MODEL = "weqweasdas/RM-Mistral-7B"


class RewardModel(Protocol):
    """What this stage needs of a backend."""

    name: str
    chat: Chat
    context: int | None

    def about(self) -> dict[str, Any]:
        """What of it decides the rewards."""

    def score(self, chats: Sequence[list[int]]) -> list[float]:
        """The raw logit of each chat, given as token ids."""


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
        out: The file of rewards: `{id, model, reward, truncated}`; `model` is the responses'.
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
        left = [row for row in responses if row["id"] not in stage.done]
        if left:
            scorer = backend()
            # Alike in length, little of a batch is filling.
            left.sort(key=lambda row: len(row["output"]))
            for first in range(0, len(left), batch_size):
                batch = left[first : first + batch_size]
                chats = [_tokens(scorer, row) for row in batch]
                values = scorer.score([ids for ids, _ in chats])
                for row, (_, cut), value in zip(batch, chats, values, strict=True):
                    stage.add(
                        {
                            "id": row["id"],
                            "model": row.get("model") or row.get("generator"),
                            "reward": value,
                            "truncated": cut,
                        }
                    )
                if progress is not None:
                    progress(len(stage.done), before + len(responses))
        done = [stage.done[row["id"]] for row in responses]
        made = len(stage.done) - before
    mean = sum(row["reward"] for row in done) / len(done)
    return Rewarded(str(out), model, len(done), made, mean, sum(r["truncated"] for r in done))


def _tokens(scorer: RewardModel, row: Row) -> tuple[list[int], bool]:
    """The chat as tokens, and whether its end was cut off."""
    chat = [*rows.messages(row), {"role": "assistant", "content": str(row["output"])}]
    ids = scorer.chat.tokens(chat, answered=True)
    if scorer.context is not None and len(ids) > scorer.context:
        return ids[: scorer.context], True
    return ids, False


class TransformersReward:
    """A sequence classifier in memory, by transformers."""

    name = "transformers"

    def __init__(
        self,
        folder: Path,
        reference: str,
        *,
        dtype: str | None = None,
        device: str | None = None,
        template: str | None = None,
    ) -> None:
        """Loads a reward model.

        Raises:
            RecipeError: A package is not installed.
            ModelError: It is no sequence classifier of one label.
        """
        from mergecore.evaluate.backends import need

        need("torch", "generate")
        need("transformers", "generate")
        import torch
        from transformers import AutoConfig, AutoModelForSequenceClassification

        self.chat = Chat(folder, reference, template)
        check_classifier(AutoConfig.from_pretrained(str(folder)), reference)
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self.model: Any = AutoModelForSequenceClassification.from_pretrained(
                str(folder), dtype=dtype or "auto"
            )
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{reference}: cannot be loaded: {error}") from error
        self.model.to(self.device).eval()
        self.context: int | None = getattr(self.model.config, "max_position_embeddings", None)

    def about(self) -> dict[str, Any]:
        """What of it decides the rewards."""
        return {"backend": self.name, "dtype": str(self.model.dtype).removeprefix("torch.")}

    def score(self, chats: Sequence[list[int]]) -> list[float]:
        """The raw logit of each chat.

        Each by itself: in a batch the classifier looks for the last token that is no padding, which
        goes wrong where padding is the token that ends a text (transformers issue 35352).
        """
        import torch

        scores = []
        pad, self.model.config.pad_token_id = self.model.config.pad_token_id, None
        try:
            with torch.inference_mode():
                for ids in chats:
                    logits = self.model(input_ids=torch.tensor([ids], device=self.device)).logits
                    scores.append(float(logits[0, 0].float()))
        finally:
            self.model.config.pad_token_id = pad
        return scores


class VllmReward:
    """A sequence classifier in a vLLM engine."""

    name = "vllm"

    def __init__(
        self,
        folder: Path,
        reference: str,
        *,
        dtype: str | None = None,
        template: str | None = None,
        **engine: Any,
    ) -> None:
        """Starts an engine.

        Raises:
            RecipeError: vLLM is not installed.
            ModelError: vLLM does not take the model, or it is no classifier of one label.
        """
        from mergecore.evaluate.backends import need
        from mergecore.evaluate.backends.vllm import engine_of

        need("vllm", "vllm")
        from transformers import AutoConfig

        self.chat = Chat(folder, reference, template)
        check_classifier(AutoConfig.from_pretrained(str(folder)), reference)
        self.llm = engine_of(
            folder, reference, dtype=dtype, context=None, runner="pooling", **engine
        )
        self.context: int | None = int(self.llm.llm_engine.model_config.max_model_len)

    def about(self) -> dict[str, Any]:
        """What of it decides the rewards."""
        config = self.llm.llm_engine.model_config
        return {"backend": self.name, "dtype": str(config.dtype).removeprefix("torch.")}

    def score(self, chats: Sequence[list[int]]) -> list[float]:
        """The raw logit of each chat; by itself vLLM would give its sigmoid."""
        from vllm import PoolingParams

        outputs = self.llm.classify(
            [{"prompt_token_ids": ids} for ids in chats],
            pooling_params=PoolingParams(use_activation=False),
            use_tqdm=False,
        )
        return [float(output.outputs.probs[0]) for output in outputs]


def check_classifier(config: Any, reference: str) -> None:
    """Refuses what gives no reward.

    Raises:
        ModelError: It is no sequence classifier, or has several labels.
    """
    architecture = (getattr(config, "architectures", None) or ["none"])[0]
    if not architecture.endswith("ForSequenceClassification"):
        raise ModelError(
            f"{reference}: is a {architecture}, and a reward model is a sequence classifier"
        )
    if config.num_labels != 1:
        raise ModelError(f"{reference}: has {config.num_labels} labels; a reward model has one")
