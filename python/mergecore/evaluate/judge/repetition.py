"""Does a response say the same again and again?"""

from __future__ import annotations

from collections.abc import Iterator

from mergecore.evaluate.judge import thresholds as t
from mergecore.evaluate.judge.reading import Reading, Repeat

_RULE_SIGNS = frozenset("-=_*.─━═~#+|│┃·•:/\\<>^ \t\n")


def repetition(reading: Reading) -> Iterator[tuple[int, int, str]]:
    if reading.asked.repetition:
        return
    yield from _loops(reading)
    yield from _said_again(reading)
    yield from _frames(reading)
    yield from _windows(reading)


def _loops(reading: Reading) -> Iterator[tuple[int, int, str]]:
    """The same characters, copy after copy."""
    for loop in reading.facts.loops:
        _, copies, run = next(row for row in _rows(reading, loop) if loop.period <= row[0])
        if loop.copies >= copies and loop.end - loop.start >= run:
            yield loop.start, loop.end, "loop"


def _rows(reading: Reading, repeat: Repeat) -> tuple[tuple[int, float, int], ...]:
    body = reading.output[repeat.start : repeat.start + repeat.period]
    if not any(c.isalnum() for c in body):
        rules = "\n" not in body.strip() and _RULE_SIGNS.issuperset(body)
        return t.LOOP_RULES if rules and "\n" not in body else t.LOOP_SIGNS
    if reading.aside.share(repeat.start, repeat.end) > 0.5:
        return t.LOOP_ASIDE
    return t.LOOP_VERSE if reading.asked.verse else t.LOOP_PROSE


def _said_again(reading: Reading) -> Iterator[tuple[int, int, str]]:
    """Paragraphs, or the whole answer, that come a second time."""
    again = bytearray(len(reading.output))
    for repeat in reading.facts.repeats:
        start, end = repeat.start + repeat.period, repeat.end
        if end - start >= t.AGAIN_SHORTEST and reading.aside.share(start, end) < 0.5:
            again[start:end] = b"\1" * (end - start)
    share = t.AGAIN_SHARE_VERSE if reading.asked.verse else t.AGAIN_SHARE
    if again.count(1) >= max(t.AGAIN_LENGTH, share * len(again)):
        start = again.index(1)
        run = again.find(0, start)
        yield start, run if run > 0 else len(again), "said again"


def _frames(reading: Reading) -> Iterator[tuple[int, int, str]]:
    """Lines or sentences in which one word or number changes."""
    for run in reading.facts.frames:
        rows = t.FRAMES_VERSE if reading.asked.verse else t.FRAMES_PROSE
        if reading.aside.share(run.start, run.end) > 0.5:
            rows = t.FRAMES_ASIDE
        if run.words < t.FRAMES_WORDS or run.units <= reading.asked.items + 3:
            continue
        if any(run.units >= units and run.new <= new * run.words for units, new in rows):
            yield run.start, run.end, "frame"


def _windows(reading: Reading) -> Iterator[tuple[int, int, str]]:
    """Stretches that say next to nothing new."""
    for start, end, ratio in reading.facts.windows:
        least = t.WINDOW_RATIO_VERSE if reading.asked.verse else t.WINDOW_RATIO
        if reading.aside.share(start, end) > 0.25:
            least = t.WINDOW_RATIO_ASIDE
        if ratio >= least and end - start >= t.WINDOW_LEAST:
            yield start, end, "window"
