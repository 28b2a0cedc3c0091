"""What does judging cost? An estimate before, the bill after; prices are the user's to state."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mergecore.errors import MergecoreError, RecipeError

_CHARACTERS_A_TOKEN = 4
_ANSWER_TOKENS = 150
_FRAME_TOKENS = 450
"""The instructions to the judge, and the marks."""


class BudgetError(MergecoreError):
    """The next request would cost more than --max-cost allows; what was received is kept."""

    exit_status = 1


@dataclass(frozen=True)
class Price:
    """In US dollars for a million tokens."""

    input: float
    output: float


def prices(path: str | Path) -> dict[str, Price]:
    """Reads a table of prices: YAML, `model: {input: 2.5, output: 10}`, in $ a million tokens.

    Raises:
        RecipeError: The file cannot be read, or is no such table.
    """
    import yaml

    try:
        table = yaml.safe_load(Path(path).expanduser().read_text("utf-8"))
        return {str(m): Price(float(p["input"]), float(p["output"])) for m, p in table.items()}
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecipeError(
            f"{path}: is no table of prices; write `model: {{input: 2.5, output: 10}}`, in $ a"
            " million tokens"
        ) from error


def estimated_tokens(asked: Sequence[tuple[str, str, str]]) -> tuple[int, int]:
    """Tokens in and out that so many requests take, more or less."""
    characters = sum(len(instruction) + len(output) for _, instruction, output in asked)
    return (
        characters // _CHARACTERS_A_TOKEN + _FRAME_TOKENS * len(asked),
        _ANSWER_TOKENS * len(asked),
    )


@dataclass
class Bill:
    """What was spent so far. Safe to use from several threads."""

    price: Price | None
    limit: float | None = None
    half_price: bool = False
    """As batches are billed."""
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached: int = 0
    """Verdicts that were there already and cost nothing."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        """Refuses a limit without prices."""
        if self.limit is not None and self.price is None:
            raise RecipeError("--max-cost needs the judge's price: give --prices FILE that has it")

    def of(self, input_tokens: int, output_tokens: int) -> float | None:
        """The cost of so many tokens in $; None if the price is not known."""
        if self.price is None:
            return None
        full = (input_tokens * self.price.input + output_tokens * self.price.output) / 1e6
        return full / 2 if self.half_price else full

    @property
    def spent(self) -> float | None:
        """The cost so far in $; None if the price is not known."""
        return self.of(self.input_tokens, self.output_tokens)

    def check(self, input_tokens: int, output_tokens: int) -> None:
        """Refuses what would go beyond the limit.

        Raises:
            BudgetError: It would.
        """
        more, spent = self.of(input_tokens, output_tokens), self.spent
        if self.limit is None or more is None or spent is None:
            return
        if spent + more > self.limit:
            raise BudgetError(
                f"--max-cost: $ {spent:.4f} are spent, and the next would cost about"
                f" $ {more:.4f}, above $ {self.limit:g}; with a higher limit the same command goes on"
            )

    def add(self, usage: Mapping[str, Any] | None) -> None:
        """Adds what an answer says it took."""
        with self._lock:
            self.requests += 1
            if usage:
                self.input_tokens += int(usage.get("prompt_tokens") or 0)
                self.output_tokens += int(usage.get("completion_tokens") or 0)
