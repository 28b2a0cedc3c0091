"""Judges say of a response whether it is repetitive, code-switched or nonsense."""

from __future__ import annotations

from mergecore.evaluate.judge.rules import judge
from mergecore.evaluate.judge.verdict import LABELS, Evidence, Verdict

__all__ = ["LABELS", "Evidence", "Verdict", "judge"]
