"""The rules, as a judge of this stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mergecore.evaluate.judge import rules
from mergecore.evaluate.verdicts import Tell


class RulesJudge:
    """Verdicts by rules: offline, deterministic, free."""

    name = rules.VERSION

    def about(self) -> dict[str, Any]:
        """What of it decides a verdict."""
        return {"judge": self.name}

    def judge(self, asked: Sequence[tuple[str, str, str]], tell: Tell) -> None:
        """Judges each."""
        for identity, instruction, output in asked:
            tell(identity, rules.judge(instruction, output).json())
