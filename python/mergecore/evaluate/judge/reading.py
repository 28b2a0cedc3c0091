"""What is measured once of a response and read by all rules?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from mergecore.evaluate.judge import thresholds
from mergecore.evaluate.judge.allowance import Allowance, allowance
from mergecore.evaluate.judge.aside import Aside, aside


@dataclass(frozen=True)
class Repeat:
    """`output[start + period:end]` equals `output[start:end - period]`."""

    start: int
    end: int
    period: int

    @property
    def copies(self) -> float:
        return (self.end - self.start) / self.period

    @property
    def is_loop(self) -> bool:
        return self.end - self.start >= 2 * self.period


@dataclass(frozen=True)
class Frames:
    """Lines or sentences in a row that differ in a word; `new` of their `words` say something new."""

    start: int
    end: int
    units: int
    words: int
    new: int


@dataclass(frozen=True)
class Facts:
    """What the engine measures: positions are characters of the output."""

    repeats: list[Repeat]
    frames: list[Frames]
    windows: list[tuple[int, int, float]]
    scripts: list[tuple[int, int, str, bool]]
    sentences: list[tuple[int, int, str | None]]

    @cached_property
    def loops(self) -> list[Repeat]:
        return [repeat for repeat in self.repeats if repeat.is_loop]

    @cached_property
    def foreign(self) -> list[tuple[int, int]]:
        """Sentences that are not English."""
        return [
            (start, end) for start, end, language in self.sentences if language not in (None, "en")
        ]


@dataclass(frozen=True)
class Reading:
    """A response, what it was asked for, and what is set aside in it."""

    instruction: str
    output: str

    @cached_property
    def asked(self) -> Allowance:
        return allowance(self.instruction)

    @cached_property
    def aside(self) -> Aside:
        return aside(self.output)

    @cached_property
    def facts(self) -> Facts:
        return measure(self.output, self.aside.prose)


def measure(output: str, prose: str) -> Facts:
    from mergecore._mergecore import text_facts

    window = (thresholds.WINDOW, thresholds.WINDOW_STEP)
    repeats, frames, windows, scripts, sentences = text_facts(
        output, prose, thresholds.SHORTEST_REPEAT, window
    )
    return Facts(
        [Repeat(*repeat) for repeat in repeats],
        [Frames(*run) for run in frames],
        windows,
        scripts,
        sentences,
    )
