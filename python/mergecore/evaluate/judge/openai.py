"""What does a language model behind an OpenAI-compatible server say of a response?"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from mergecore.errors import RecipeError, RunError
from mergecore.evaluate.backends import address, need, secrets_of, without_secrets
from mergecore.evaluate.judge import cache as caching
from mergecore.evaluate.judge.cost import Bill, estimated_tokens
from mergecore.evaluate.judge.prompt import SCHEMA, VERSION, messages, understood
from mergecore.evaluate.judge.verdict import LABELS
from mergecore.evaluate.rows import Row
from mergecore.evaluate.verdicts import Tell

_TRIES = 3
"""Of an answer that cannot be understood."""
_DEAD = 3
"""Requests in a row that reach nobody: then the server is taken for dead."""


class OpenAiJudge:
    """Verdicts by chat completions, several at a time."""

    name = "openai"

    def __init__(
        self,
        model: str,
        *,
        bill: Bill,
        base_url: str | None = None,
        cache: caching.Cache | None = None,
        concurrency: int = 8,
        timeout: float = 120,
        retries: int = 6,
    ) -> None:
        """Makes a client; the key is read from OPENAI_API_KEY and goes nowhere else.

        Args:
            model: The judge's name on the server.
            bill: What may be spent, and what is.
            base_url: The server; OpenAI's if None.
            cache: Verdicts that were received before.
            concurrency: Requests at a time.
            timeout: Seconds that an answer may take.
            retries: Of a request that meets 408, 409, 429, 5xx or no connection, with waits between
                that double, or that the server asks for.

        Raises:
            RecipeError: The package or the key is missing.
        """
        need("openai", "judge")
        import os

        import openai

        secret = os.environ.get("OPENAI_API_KEY")
        if not secret and base_url is None:
            raise RecipeError(
                "OPENAI_API_KEY is not set; a server of your own is given by --base-url"
            )
        self._secrets = secrets_of(secret, base_url)
        self.model, self.bill, self.concurrency = model, bill, concurrency
        self.base_url = base_url
        self.cache = cache or caching.Cache(None)
        self.client: Any = openai.OpenAI(
            api_key=secret or "none", base_url=base_url, timeout=timeout, max_retries=retries
        )
        self.server = address(str(self.client.base_url))
        self.refused: set[str] = set()
        """Parameters that the server does not take."""
        self._lock = threading.Lock()

    def about(self) -> dict[str, Any]:
        """What of it decides a verdict."""
        return {"judge": self.name, "model": self.model, "prompt": VERSION}

    def judge(self, asked: Sequence[tuple[str, str, str]], tell: Tell) -> None:
        """Judges each, what is known first; what could not be judged is told as an error.

        Raises:
            RunError: The server is dead, or refuses the key or the model.
            BudgetError: The limit is reached.
        """
        waiting = list(self._unknown(asked, tell))
        if not waiting:
            return
        self.bill.check(*estimated_tokens(waiting[:1]))
        unreachable = 0
        with ThreadPoolExecutor(self.concurrency) as pool:
            running: dict[Future[Row], tuple[str, str, str]] = {}
            try:
                while waiting or running:
                    while waiting and len(running) < self.concurrency:
                        # Those under way are paid for, too.
                        self.bill.check(*estimated_tokens([*running.values(), waiting[0]]))
                        entry = waiting.pop(0)
                        running[pool.submit(self._one, *entry[1:])] = entry
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        verdict = future.result()
                        tell(running.pop(future)[0], verdict)
                        nobody = verdict.get("error") in (_NOBODY, _LATE)
                        unreachable = unreachable + 1 if nobody else 0
                        if unreachable >= _DEAD:
                            raise RunError(f"{self.server}: does not answer")
            finally:
                for future in running:
                    future.cancel()
                # What is under way will be billed: its verdicts are kept.
                for future, (identity, _, _) in running.items():
                    if not future.cancelled() and future.exception() is None:
                        tell(identity, future.result())

    def _unknown(
        self, asked: Sequence[tuple[str, str, str]], tell: Tell
    ) -> Iterator[tuple[str, str, str]]:
        for identity, instruction, output in asked:
            known = self.cache.get(self._key(instruction, output))
            if known is None:
                yield identity, instruction, output
            else:
                self.bill.cached += 1
                tell(identity, {**known, "judge": self.label})

    def _key(self, instruction: str, output: str) -> str:
        """Of a verdict in the cache; two servers may call two models the same."""
        return caching.key({**self.about(), "server": self.server}, instruction, output)

    @property
    def label(self) -> str:
        """What verdicts call the judge."""
        return f"openai:{self.model}"

    def _one(self, instruction: str, output: str) -> Row:
        """One verdict, or why there is none."""
        import openai

        failure = ""
        for _ in range(_TRIES):
            try:
                answer = self._ask(instruction, output)
            except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
                # Nothing behind it: a traceback would show the server's words as they are.
                raise RunError(f"the judge's server refuses the key: {self._said(error)}") from None
            except openai.NotFoundError as error:
                raise RunError(
                    f"the judge's server has no {self.model}: {self._said(error)}"
                ) from None
            except openai.APIConnectionError as error:
                return self._error(
                    _NOBODY if not isinstance(error, openai.APITimeoutError) else _LATE
                )
            except openai.APIStatusError as error:
                return self._error(f"the server refused it: {self._said(error)}")
            # A body that is no JSON, or nested too deeply, is one of the latter two.
            except (openai.APIError, ValueError, RecursionError) as error:
                failure = f"the server's answer is malformed: {self._said(error)}"
                continue
            try:
                verdict = understood(answer, output)
            except ValueError as error:
                failure = f"the judge's answer cannot be understood: {error}"
                continue
            self.cache.put(self._key(instruction, output), verdict)
            return {**verdict, "judge": self.label}
        return self._error(failure)

    def _ask(self, instruction: str, output: str) -> str:
        """One request. A parameter that the server refuses is left out from then on."""
        import openai

        while True:
            settings = {k: v for k, v in SETTINGS.items() if k not in self.refused}
            try:
                answer = self.client.chat.completions.create(
                    model=self.model, messages=messages(instruction, output), **settings
                )
            except openai.BadRequestError as error:
                named = [name for name in settings if name in str(error)]
                if not named:
                    raise
                with self._lock:
                    self.refused.add(named[0])
                continue
            usage = getattr(answer, "usage", None)
            self.bill.add(usage.model_dump() if usage is not None else None)
            choices = getattr(answer, "choices", None)
            return (choices[0].message.content if choices else None) or ""

    def _said(self, error: Exception) -> str:
        return without_secrets(error, *self._secrets)

    def _error(self, reason: str) -> Row:
        """A failure is told as one, and is never a clean verdict."""
        return {**dict.fromkeys(LABELS), "evidence": [], "judge": self.label, "error": reason}


_NOBODY = "the server does not answer"
_LATE = "the server took too long"
SETTINGS: dict[str, Any] = {
    "temperature": 0,
    "seed": 0,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "verdict", "strict": True, "schema": SCHEMA},
    },
}
