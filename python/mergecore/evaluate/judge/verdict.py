"""What does a judge say, and where in the text does it see it?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Label: TypeAlias = Literal["repetition", "code_switching", "nonsense"]
LABELS: tuple[Label, ...] = ("repetition", "code_switching", "nonsense")


@dataclass(frozen=True)
class Evidence:
    """`output[start:end]` shows the label; `quote` is that text."""

    label: Label
    start: int
    end: int
    quote: str
    rule: str
    """The rule that saw it, by its name in docs/evaluation.md."""


@dataclass(frozen=True)
class Verdict:
    """A label is true when there is evidence of it."""

    repetition: bool
    code_switching: bool
    nonsense: bool
    evidence: tuple[Evidence, ...]
    judge: str

    @property
    def degenerate(self) -> bool:
        """Does the response have any of the labels?"""
        return self.repetition or self.code_switching or self.nonsense

    def json(self) -> dict[str, object]:
        """The verdict as it stands in a file of verdicts."""
        spans = [
            {"label": e.label, "start": e.start, "end": e.end, "quote": e.quote}
            for e in self.evidence
        ]
        labels = {
            "repetition": self.repetition,
            "code_switching": self.code_switching,
            "nonsense": self.nonsense,
        }
        return {**labels, "evidence": spans, "judge": self.judge}
