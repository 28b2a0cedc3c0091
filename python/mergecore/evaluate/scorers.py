"""Who scores? A reward model is a sequence classifier of one label, in memory or in vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from mergecore.errors import ModelError
from mergecore.evaluate.backends import device_of, need, no_bars, why_not
from mergecore.evaluate.chat import Chat


class RewardModel(Protocol):
    """What this stage needs of a backend."""

    name: str
    chat: Chat
    context: int | None

    def score(self, chats: Sequence[list[int]]) -> list[float]:
        """The raw logit of each chat, given as token ids."""


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
        need("torch", "generate")
        need("transformers", "generate")
        from transformers import AutoModelForSequenceClassification

        no_bars()
        self.chat = Chat(folder, reference, template)
        check_classifier(_config(folder, reference), reference)
        self.device = device_of(device)
        try:
            self.model: Any = AutoModelForSequenceClassification.from_pretrained(
                str(folder), dtype=dtype or "auto", trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{reference}: cannot be loaded: {why_not(error)}") from error
        self.model.to(self.device).eval()
        self.context: int | None = getattr(self.model.config, "max_position_embeddings", None)

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
        from mergecore.evaluate.backends.vllm import engine_of

        need("vllm", "vllm")
        self.chat = Chat(folder, reference, template)
        check_classifier(_config(folder, reference), reference)
        self.llm = engine_of(
            folder, reference, dtype=dtype, context=None, runner="pooling", **engine
        )
        self.context: int | None = int(self.llm.llm_engine.model_config.max_model_len)

    def score(self, chats: Sequence[list[int]]) -> list[float]:
        """The raw logit of each chat; by itself vLLM would give its sigmoid."""
        from vllm import PoolingParams

        outputs = self.llm.classify(
            [{"prompt_token_ids": ids} for ids in chats],
            pooling_params=PoolingParams(use_activation=False),
            use_tqdm=False,
        )
        return [float(output.outputs.probs[0]) for output in outputs]


def _config(folder: Path, reference: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{reference}: cannot be loaded: {why_not(error)}") from error


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
