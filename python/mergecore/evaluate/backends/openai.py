"""Answers by a server that speaks OpenAI's protocol: vLLM's, Ollama's, OpenAI's own."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from mergecore.errors import RunError
from mergecore.evaluate.backends import (
    Refused,
    Reply,
    Request,
    Tell,
    address,
    need,
    secrets_of,
    without_secrets,
)
from mergecore.evaluate.decoding import Decoding


class Server:
    """A model behind a URL."""

    name = "openai"

    def __init__(
        self, base_url: str, model: str, *, concurrency: int = 8, retries: int = 6
    ) -> None:
        """Makes a client; the key is read from OPENAI_API_KEY and goes nowhere else.

        Raises:
            RecipeError: The package openai is not installed.
        """
        need("openai", "judge")
        import os

        import openai

        self.base_url, self.model, self.concurrency = base_url, model, concurrency
        secret = os.environ.get("OPENAI_API_KEY")
        self._secrets = secrets_of(secret, base_url)
        self.takes_top_k = True
        """OpenAI's own servers do not; others do."""
        self.client: Any = openai.OpenAI(
            api_key=secret or "none", base_url=base_url, max_retries=retries, timeout=600
        )

    def answer(self, requests: Sequence[Request], decoding: Decoding, tell: Tell) -> None:
        """Answers every request, some at a time.

        Raises:
            RunError: The server does not answer, or refuses the key or the model.
        """
        import openai

        with ThreadPoolExecutor(self.concurrency) as pool:
            running = {pool.submit(self._one, request, decoding): request for request in requests}
            try:
                for future in as_completed(running):
                    tell(future.result())
            except (
                openai.APIConnectionError,
                openai.AuthenticationError,
                openai.PermissionDeniedError,
                openai.NotFoundError,
                openai.InternalServerError,
                openai.RateLimitError,
            ) as error:
                said = without_secrets(error, *self._secrets)
                # Nothing behind it: a traceback would show the server's words as they are.
                raise RunError(
                    f"{address(self.base_url)}: {said}; what was answered is kept"
                ) from None
            finally:
                for future in running:
                    future.cancel()

    def _one(self, request: Request, decoding: Decoding) -> Reply | Refused:
        import openai

        top_k = decoding.top_k if self.takes_top_k else 0
        try:
            answer = self.client.chat.completions.create(
                model=self.model,
                messages=request.messages,
                temperature=decoding.temperature,
                top_p=decoding.top_p,
                presence_penalty=decoding.presence_penalty,
                frequency_penalty=decoding.frequency_penalty,
                seed=decoding.seed_of(request.id) % 2**31,
                max_tokens=decoding.max_tokens,
                extra_body={"top_k": top_k} if top_k else None,
            )
        except (ValueError, RecursionError) as error:
            said = without_secrets(error, *self._secrets)
            return Refused(request.id, f"the server's answer is malformed: {said}")
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            if top_k and "top_k" in str(error):
                self.takes_top_k = False
                return self._one(request, decoding)
            return Refused(request.id, without_secrets(error, *self._secrets))
        choice = answer.choices[0]
        usage = answer.usage
        finish = "length" if choice.finish_reason == "length" else "stop"
        return Reply(
            request.id,
            choice.message.content or "",
            finish,
            usage.prompt_tokens if usage else 0,
            usage.completion_tokens if usage else 0,
        )
