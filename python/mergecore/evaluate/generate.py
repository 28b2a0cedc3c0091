"""What does a model answer? Prompts in, responses out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergecore.errors import RunError
from mergecore.evaluate import rows
from mergecore.evaluate.backends import Backend, Refused, Reply, Request
from mergecore.evaluate.decoding import Decoding
from mergecore.evaluate.rows import Row
from mergecore.evaluate.stage import open_stage


class UnansweredError(RunError):
    """Some prompts got no answer; the others are in the file."""


@dataclass(frozen=True)
class Generated:
    """What a run of this stage did."""

    out: str
    model: str
    responses: int
    """All that are in the file now."""
    made: int
    """Those that this run made."""
    length_capped: int
    """Answers that the limit cut off."""
    output_tokens: int


def generate(
    model: str,
    prompts: Sequence[Row],
    out: str | Path,
    backend: Callable[[], Backend],
    decoding: Decoding,
    *,
    about: dict[str, Any] | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Generated:
    """Answers prompts, and goes on where an earlier run ended.

    Args:
        model: What the rows call the model.
        prompts: Rows with `instruction` or `messages`.
        out: The file of responses: `{id, model, instruction, output, finish_reason, prompt_tokens,
            output_tokens, of}`, and the prompt's `messages`, `task` and `reference`.
        backend: Makes the backend; not called if there is nothing left to do.
        decoding: How tokens are chosen.
        about: What else decides the answers, for the record.
        overwrite: Begin anew.
        progress: Called with the answers that are there and those that are wanted.

    Raises:
        UnansweredError: Some prompts got no answer; the others are in the file.
        MergecoreError: As the backend and `open_stage` say.
    """
    settings = {"model": model, "decoding": decoding.as_dict(), **(about or {})}
    wanted = rows.by_id(prompts)
    refused: list[Refused] = []
    with open_stage(out, "generate", settings, overwrite=overwrite) as stage:
        before = len(stage.done)
        left = stage.left(prompts, _digest)

        def tell(*replies: Reply | Refused) -> None:
            refused.extend(reply for reply in replies if isinstance(reply, Refused))
            answered = [reply for reply in replies if isinstance(reply, Reply)]
            stage.add(*(_row(model, wanted[reply.id], reply) for reply in answered))
            if progress is not None:
                progress(sum(identity in stage.done for identity in wanted), len(wanted))

        if left:
            requests = [Request(row["id"], rows.messages(row)) for row in left]
            backend().answer(requests, decoding, tell)
        done = [stage.done[identity] for identity in wanted if identity in stage.done]
        total = len(stage.done)
    if refused:
        named = "; ".join(f"{entry.id}: {entry.reason}" for entry in refused[:3])
        more = f"; and {len(refused) - 3} more" if len(refused) > 3 else ""
        raise UnansweredError(
            f"{len(refused)} of {len(wanted)} prompts got no answer ({named}{more})"
        )
    capped = sum(row["finish_reason"] == "length" for row in done)
    tokens = sum(row["output_tokens"] for row in done)
    return Generated(str(out), model, len(done), total - before, capped, tokens)


def _digest(prompt: Row) -> str:
    return rows.digest(rows.messages(prompt))


def _row(model: str, prompt: Row, reply: Reply) -> Row:
    kept: Row = {
        key: prompt[key] for key in ("messages", "task", "reference", "dataset") if key in prompt
    }
    return {
        "id": reply.id,
        "model": model,
        "instruction": rows.instruction(prompt),
        "output": reply.output,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": reply.prompt_tokens,
        "output_tokens": reply.output_tokens,
        "of": _digest(prompt),
        **kept,
    }
