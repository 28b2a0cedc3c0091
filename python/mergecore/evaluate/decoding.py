"""How is the next token chosen?"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

from mergecore.errors import RecipeError


@dataclass(frozen=True)
class Decoding:
    """The parameters of sampling; the defaults are those of ExPO's code, which the study of
    degeneration follows (Qing et al., §4.1)."""

    temperature: float = 0.7
    """0 takes the likeliest token always."""
    top_k: int = 50
    """Only so many of the likeliest tokens; 0 for all."""
    top_p: float = 0.9
    presence_penalty: float = 0.1
    """Taken from the logit of every token that the answer has already (OpenAI's definition)."""
    frequency_penalty: float = 0.1
    """The same, as often as it has it."""
    seed: int = 42
    max_tokens: int = 2048

    def __post_init__(self) -> None:
        """Refuses what no sampler understands."""
        for name, good, range_ in (
            ("temperature", self.temperature >= 0, "0 or more"),
            ("top_k", self.top_k >= 0, "0 (off) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("presence_penalty", -2 <= self.presence_penalty <= 2, "from -2 to 2"),
            ("frequency_penalty", -2 <= self.frequency_penalty <= 2, "from -2 to 2"),
            ("seed", self.seed >= 0, "0 or more"),
            ("max_tokens", self.max_tokens >= 1, "1 or more"),
        ):
            if not good:
                raise RecipeError(f"{name} is {getattr(self, name)}: it must be {range_}")

    @property
    def greedy(self) -> bool:
        """Whether nothing is left to chance."""
        return self.temperature == 0

    def seed_of(self, identity: str) -> int:
        """The seed of one answer: its neighbours in a batch, or a resumed run, do not change it."""
        digest = hashlib.blake2b(f"{self.seed}/{identity}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") >> 1

    def as_dict(self) -> dict[str, Any]:
        """All of it, for records."""
        return asdict(self)
