"""How is judging left to a batch, at half the price and within a day?

The batch's id is kept beside the verdicts: the same command again asks for it, and submits nothing
twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mergecore.errors import RunError
from mergecore.evaluate.judge.cost import estimated_tokens
from mergecore.evaluate.judge.openai import SETTINGS, OpenAiJudge
from mergecore.evaluate.judge.prompt import messages, understood
from mergecore.evaluate.rows import Row
from mergecore.evaluate.verdicts import Tell

_OVER = ("completed", "failed", "expired", "cancelled")


class BatchJudge(OpenAiJudge):
    """Verdicts by the Batch API."""

    def __init__(self, model: str, *, state: Path, interval: float = 30, **options: Any) -> None:
        """Makes a client.

        Args:
            model: The judge's name.
            state: The file that keeps the batch's id.
            interval: Seconds between looks at it.
            **options: As `OpenAiJudge` takes them.

        Raises:
            RecipeError: The package or the key is missing.
        """
        super().__init__(model, **options)
        self.state, self.interval = state, interval

    def judge(self, asked: Sequence[tuple[str, str, str]], tell: Tell) -> None:
        """Submits what is not known, or finds what was submitted; waits, and tells.

        Raises:
            RunError: The batch failed, or the server did.
            BudgetError: The estimate is above the limit.
        """
        import openai

        # By content, not by id: when the batch is done, other responses may have the ids. What is
        # there twice is asked once.
        waiting: dict[str, list[tuple[str, str, str]]] = {}
        for entry in self._unknown(asked, tell):
            waiting.setdefault(self._key(*entry[1:]), []).append(entry)
        if not waiting:
            return
        try:
            identity = self._submitted() or self._submit(
                [entries[0] for entries in waiting.values()]
            )
            batch = self._finished(identity)
            told = self._results(batch.output_file_id, waiting, tell)
            failed = self._failures(batch.error_file_id)
        except openai.APIError as error:
            raise RunError(f"the batch's server: {' '.join(str(error).split())[:200]}") from error
        for key in waiting.keys() - told:
            reason = failed.get(key, f"the batch ended as {batch.status} without it")
            for identity, _, _ in waiting[key]:
                tell(identity, self._error(reason))
        self.state.unlink(missing_ok=True)

    def _submitted(self) -> str | None:
        try:
            return str(json.loads(self.state.read_text("utf-8"))["batch"])
        except (OSError, ValueError, KeyError):
            return None

    def _submit(self, asked: list[tuple[str, str, str]]) -> str:
        self.bill.check(*estimated_tokens(asked))
        lines = [
            json.dumps(
                {
                    "custom_id": self._key(instruction, output),
                    "method": "POST",
                    "url": "/v1/chat/completions",
                    "body": {
                        "model": self.model,
                        "messages": messages(instruction, output),
                        **{k: v for k, v in SETTINGS.items() if k not in self.refused},
                    },
                }
            )
            for _, instruction, output in asked
        ]
        content = "\n".join(lines).encode() + b"\n"
        file = self.client.files.create(file=("verdicts.jsonl", content), purpose="batch")
        batch = self.client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        self.state.write_text(json.dumps({"batch": batch.id, "requests": len(asked)}))
        return str(batch.id)

    def _finished(self, identity: str) -> Any:
        while True:
            batch = self.client.batches.retrieve(identity)
            if batch.status in _OVER:
                return batch
            time.sleep(self.interval)

    def _results(
        self, file: str | None, waiting: dict[str, list[tuple[str, str, str]]], tell: Tell
    ) -> set[str]:
        told = set()
        for entry in self._lines(file):
            key = str(entry.get("custom_id"))
            body = (entry.get("response") or {}).get("body") or {}
            if key not in waiting or not body.get("choices"):
                continue
            self.bill.add(body.get("usage"))
            _, instruction, output = waiting[key][0]
            verdict = self._verdict(body, instruction, output)
            for identity, _, _ in waiting[key]:
                tell(identity, verdict)
            told.add(key)
        return told

    def _verdict(self, body: dict[str, Any], instruction: str, output: str) -> Row:
        try:
            verdict = understood(body["choices"][0]["message"]["content"] or "", output)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            return self._error(f"the judge's answer cannot be understood: {error}")
        self.cache.put(self._key(instruction, output), verdict)
        return {**verdict, "judge": self.label}

    def _failures(self, file: str | None) -> dict[str, str]:
        return {
            str(entry.get("custom_id")): f"the batch refused it: {str(entry.get('error'))[:150]}"
            for entry in self._lines(file)
        }

    def _lines(self, file: str | None) -> list[dict[str, Any]]:
        if not file:
            return []
        text = self.client.files.content(file).text
        return [json.loads(line) for line in text.split("\n") if line.strip()]
