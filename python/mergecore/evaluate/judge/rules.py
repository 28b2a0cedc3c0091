"""Is a response repetitive, code-switched or nonsense, by rules?

The judge needs no model and no network, and says the same every time. What each label means, the
rules by name, how right they are and what they cannot see is told in docs/evaluation.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from mergecore.evaluate.judge.code_switching import code_switching
from mergecore.evaluate.judge.nonsense import nonsense
from mergecore.evaluate.judge.reading import Reading
from mergecore.evaluate.judge.repetition import repetition
from mergecore.evaluate.judge.verdict import LABELS, Evidence, Label, Verdict

VERSION = "rules/1"
"""Changes with every change to a rule or a threshold: verdicts of two versions are not compared."""

Finding = tuple[int, int, str]
"""Where a rule saw something, and the rule's name."""

_RULES: dict[Label, Callable[[Reading], Iterable[Finding]]] = {
    "repetition": repetition,
    "code_switching": code_switching,
    "nonsense": nonsense,
}


def judge(instruction: str, output: str) -> Verdict:
    """Says which labels a response has, and shows where.

    >>> judge("Name a colour.", "Blue.<|im_end|>").nonsense
    True

    Any text can be judged: nothing is raised for what it contains.
    """
    # An unpaired surrogate, which JSON can carry, is no character: the engine cannot take it.
    reading = Reading(_whole(instruction), _whole(output))
    evidence = [span for label in LABELS for span in _evidence(label, reading, output)]
    seen = {span.label for span in evidence}
    return Verdict(
        repetition="repetition" in seen,
        code_switching="code_switching" in seen,
        nonsense="nonsense" in seen,
        evidence=tuple(evidence),
        judge=VERSION,
    )


def _evidence(label: Label, reading: Reading, output: str) -> Iterator[Evidence]:
    findings = sorted(set(_RULES[label](reading)))
    end_seen = -1
    for start, end, rule in findings:
        if end > end_seen:  # what lies within a span that is shown already adds nothing
            yield Evidence(label, start, end, output[start:end], rule)
            end_seen = end


def _whole(text: str) -> str:
    """The same characters, with U+FFFD for each half of a pair: positions stay as they are."""
    return _SURROGATE.sub("\ufffd", text)


_SURROGATE = re.compile("[\ud800-\udfff]")
