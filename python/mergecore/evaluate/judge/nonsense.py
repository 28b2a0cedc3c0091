"""Is a response, or a part of it, no text at all?"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mergecore.evaluate.judge import thresholds as t
from mergecore.evaluate.judge.garble import garble
from mergecore.evaluate.judge.leaks import leaks
from mergecore.evaluate.judge.reading import Reading

_CONTROLS = re.compile(
    r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\ue000-\uf8ff\U000f0000-\U0010ffff]"
)
_EMOJI = re.compile(r"[\U0001f000-\U0001faff\u2600-\u27bf\u2b50\u2b55\u231a\u231b\u23e9-\u23fa]")
_EMOJI_RUN = re.compile(
    rf"(?:[\U0001f000-\U0001faff\u2600-\u27bf\u2b50\u2b55\ufe0f\u200d]\s?){{{t.EMOJI_RUN},}}"
)
# What UTF-8 read as a Western code page begins with; without one of these there is no need to look closer.
_MOJIBAKE_LEAD = re.compile("[ÂÃâÅÄÐÑð][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ¡-¿]")


def nonsense(reading: Reading) -> Iterator[tuple[int, int, str]]:
    yield from _empty(reading)
    yield from leaks(reading)
    yield from _characters(reading.output)
    yield from _mojibake(reading.output)
    yield from _emoji(reading)
    yield from _scripts(reading)
    yield from garble(reading)


def _empty(reading: Reading) -> Iterator[tuple[int, int, str]]:
    output = reading.output
    if any(c.isalnum() for c in output):
        return
    if (reading.asked.symbols and output.strip()) or (
        reading.asked.emoji and _EMOJI.search(output)
    ):
        return
    if not _EMOJI.search(output):
        yield 0, len(output), "empty"


def _characters(output: str) -> Iterator[tuple[int, int, str]]:
    """Characters that stand for bytes that are none, that steer a terminal, or that mean nothing."""
    if output.count("\ufffd") >= t.REPLACEMENTS:
        yield output.index("\ufffd"), output.rindex("\ufffd") + 1, "replacement characters"
    controls = list(_CONTROLS.finditer(output))
    if len(controls) >= t.CONTROLS:
        yield controls[0].start(), controls[-1].end(), "control characters"


def _mojibake(output: str) -> Iterator[tuple[int, int, str]]:
    """UTF-8 that was read as something else."""
    found = _MOJIBAKE_LEAD.search(output)
    if found:
        from ftfy.badness import badness

        if badness(output) >= t.MOJIBAKE:
            last = list(_MOJIBAKE_LEAD.finditer(output))[-1]
            yield found.start(), last.end(), "mojibake"


def _emoji(reading: Reading) -> Iterator[tuple[int, int, str]]:
    if reading.asked.emoji or reading.asked.symbols:
        return
    run = _EMOJI_RUN.search(reading.output)
    if run:
        yield *run.span(), "emoji"
        return
    found = list(_EMOJI.finditer(reading.output))
    if len(found) >= t.EMOJI and len(found) >= t.EMOJI_SHARE * len(reading.output):
        yield found[0].start(), found[-1].end(), "emoji"


def _scripts(reading: Reading) -> Iterator[tuple[int, int, str]]:
    """Scripts thrown together: many within words, or several in one text."""
    if reading.asked.tongues:
        return
    strays = [run for run in reading.facts.scripts if run[2] not in ("Latin", "Greek")]
    glued = sum(run[3] for run in strays)
    scripts = {script for _, _, script, _ in strays}
    if len(scripts) >= t.STRAY_SCRIPTS or (len(scripts) >= 2 and glued >= t.MIXED_WORDS):
        yield strays[0][0], strays[-1][1], "scripts thrown together"
