"""Answers by vLLM, in this process.

In this process, since its engine's own processes hide why they fail ("Engine core initialization
failed"), and since weights can then be given to a running engine.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mergecore.errors import ModelError
from mergecore.evaluate.backends import Refused, Reply, Request, Tell, need
from mergecore.evaluate.chat import Chat, TemplateRefusalError
from mergecore.evaluate.decoding import Decoding

_CHUNK = 256
"""Prompts that are handed over at a time: what a kill costs at most."""
_KV_CACHE = 1 << 30
"""On a CPU vLLM would take 92 % of the memory for its cache, or refuse to start."""


class Vllm:
    """A model in a vLLM engine."""

    name = "vllm"

    def __init__(
        self,
        folder: Path,
        reference: str,
        *,
        template: str | None = None,
        dtype: str | None = None,
        context: int | None = None,
        **engine: Any,
    ) -> None:
        """Starts an engine.

        Args:
            folder: Where the model is.
            reference: What messages call it.
            template: As in `Chat`.
            dtype: Of the arithmetic; the weights' own if None.
            context: The longest prompt and answer together; the model's own if None.
            **engine: Further arguments of `vllm.LLM`.

        Raises:
            RecipeError: vLLM is not installed.
            ModelError: It does not take the model.
        """
        need("vllm", "vllm")
        self.chat = Chat(folder, reference, template)
        self.llm = engine_of(folder, reference, dtype=dtype, context=context, **engine)
        self.context = int(self.llm.llm_engine.model_config.max_model_len)

    def answer(self, requests: Sequence[Request], decoding: Decoding, tell: Tell) -> None:
        """Answers every request, some hundred at a time."""
        ready = []
        for request in requests:
            try:
                ids = self.chat.tokens(request.messages)
            except TemplateRefusalError as error:
                tell(Refused(request.id, str(error)))
                continue
            room = min(decoding.max_tokens, self.context - len(ids))
            # One prompt that is too long would be an error for the whole call.
            if room < 1:
                tell(Refused(request.id, f"{len(ids)} tokens, and the model takes {self.context}"))
            else:
                ready.append((request, ids, room))
        for first in range(0, len(ready), _CHUNK):
            self._answer(ready[first : first + _CHUNK], decoding, tell)

    def _answer(
        self, chunk: list[tuple[Request, list[int], int]], decoding: Decoding, tell: Tell
    ) -> None:
        answers = self.llm.generate(
            [{"prompt_token_ids": ids} for _, ids, _ in chunk],
            [_sampling(decoding, request.id, room) for request, _, room in chunk],
            use_tqdm=False,
        )
        for (request, ids, _), answer in zip(chunk, answers, strict=True):
            made = answer.outputs[0]
            finish = "length" if made.finish_reason == "length" else "stop"
            tokens = list(made.token_ids)
            tell(Reply(request.id, self.chat.text(tokens), finish, len(ids), len(tokens)))


def engine_of(
    folder: Path, reference: str, *, dtype: str | None, context: int | None, **engine: Any
) -> Any:
    """A `vllm.LLM` of a model.

    Raises:
        ModelError: vLLM does not take it.
    """
    _prepare_environment()
    from vllm import LLM

    if "kv_cache_memory_bytes" not in engine and _on_cpu():
        engine["kv_cache_memory_bytes"] = _KV_CACHE
    if _on_cpu():
        engine.setdefault("enforce_eager", True)  # compiling takes longer than most answers
    try:
        return LLM(
            model=str(folder),
            dtype=dtype or "auto",
            max_model_len=context,
            disable_log_stats=True,
            **engine,
        )
    except Exception as error:  # of its own, of torch, of pydantic: all mean the same here
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{reference}: vLLM does not take it: {reason}") from error


def _prepare_environment() -> None:
    """Settings that vLLM reads from the environment when it is imported; what is set stays."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    # Else it binds its threads to all cores but one.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")


def _on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def _sampling(decoding: Decoding, identity: str, room: int) -> Any:
    """All of it said: what is left out vLLM takes from elsewhere (16 tokens at most, for one)."""
    from vllm import SamplingParams

    return SamplingParams(
        n=1,
        temperature=decoding.temperature,
        top_k=decoding.top_k,
        top_p=decoding.top_p,
        presence_penalty=decoding.presence_penalty,
        frequency_penalty=decoding.frequency_penalty,
        repetition_penalty=1.0,
        seed=decoding.seed_of(identity),
        max_tokens=room,
    )
