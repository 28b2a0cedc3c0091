"""Does a response change to a language or script that nobody asked for?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

from mergecore.evaluate.judge import thresholds as t
from mergecore.evaluate.judge.reading import Reading, measure
from mergecore.evaluate.judge.tongues import CALLS, EVERYTHING

# Between these, words of another language are named or quoted, not spoken.
_SET_OFF = re.compile(
    r"\([^()\n]{0,300}\)|（[^（）\n]{0,300}）|\[[^\[\]\n]{0,300}\]|\"[^\"\n]{1,400}\"|“[^”\n]{1,400}”|«[^»\n]{1,400}»|「[^」\n]{1,200}」|„[^“”\n]{1,400}[“”]"
    r"|(?<![\w*])\*{1,3}[^*\n]{1,300}\*{1,3}|(?<!\w)_[^_\n]{1,300}_(?!\w)|/[^/\n ]{1,40}/|(?<!\w)'[^'\n]{2,200}'(?!\w)|‘[^’\n]{2,200}’"
)
# A word that is explained right after, or that explains what stands before it.
_GLOSSED_AFTER = re.compile(r"[^\w\n]{0,3}(?:\(|\[|[-–—=:/] ?[A-Za-z])")
_GLOSSED_BEFORE = re.compile(
    r"(?:[-–—=:/|→]|\bor|\bcalled|\bnamed|\b(?:" + "|".join(CALLS) + r"),?)\s{0,2}$", re.IGNORECASE
)
_NAMES = re.compile(r"\s*(?:[-*•–]|\d+[.)])\s.*(?:[:–—=→(]|\bby\b)")
_LATIN_CODES = frozenset("es pt fr it ro ca de nl sv da tr pl cs id vi fi hu hr sk tl".split())
LONGEST_WORD = 40
_FAMILIES = (
    frozenset({"es", "pt", "ca", "it", "fr", "ro"}),
    frozenset({"sv", "da", "isl"}),
    frozenset({"cs", "sk", "pl", "hr", "slv"}),
    frozenset({"de", "nl", "afr"}),
    frozenset({"tr", "aze", "tuk"}),
    frozenset({"fi", "est"}),
    frozenset({"id", "jav", "msa"}),
)


def code_switching(reading: Reading) -> Iterator[tuple[int, int, str]]:
    expected = _expected(reading)
    if EVERYTHING in expected:
        return
    set_off = bytearray(len(reading.output))
    for match in _SET_OFF.finditer(reading.aside.prose):
        set_off[match.start() : match.end()] = b"\1" * (match.end() - match.start())
    yield from _scripts(reading, expected, bytes(set_off))
    yield from _sentences(reading, expected, bytes(set_off))


def _expected(reading: Reading) -> frozenset[str]:
    return reading.asked.tongues | spoken(reading.instruction)


@lru_cache(maxsize=4096)
def spoken(instruction: str) -> frozenset[str]:
    """The languages and scripts in which a prompt is written."""
    facts = measure(instruction, instruction)
    found = {script for _, _, script, _ in facts.scripts if script != "Latin"}
    found |= {language for _, _, language in facts.sentences if language}
    letters = sum(c.isalpha() for c in instruction)
    foreign = sum(end - start for start, end, script, _ in facts.scripts if script != "Latin")
    # A short prompt says no language clearly: it is taken for English, as long as it is written in Latin letters.
    return frozenset(
        found if found and (foreign * 2 > letters or facts.sentences) else found | {"en"}
    )


def _scripts(
    reading: Reading, expected: frozenset[str], set_off: bytes
) -> Iterator[tuple[int, int, str]]:
    """Letters of a script that the prompt does not call for."""
    output = reading.output
    named = -9  # where a gloss ended: a name has more than one word
    for start, end, script, glued in reading.facts.scripts:
        if script == "Latin" or script in expected or set_off[start]:
            continue
        if glued:
            if _stray_in_word(output, start, end, script):
                yield (*_word(output, start, end), "mixed script")
        elif 0 <= start - named <= 2 or not _stray(output, start, end, script):
            named = end
        else:
            yield start, end, "script"


def _stray_in_word(output: str, start: int, end: int, script: str) -> bool:
    if script != "Greek":
        return True
    # λmax, 2πr, Δx: one Greek letter at the edge of a word is a symbol.
    word_start, word_end = _word(output, start, end)
    return end - start >= 2 and word_end - word_start >= 6


def _stray(output: str, start: int, end: int, script: str) -> bool:
    if _GLOSSED_AFTER.match(output, end) or _GLOSSED_BEFORE.search(
        output, max(start - 8, 0), start
    ):
        return _sentence_long(output, start)
    if script == "Greek":
        return end - start >= t.GREEK_LETTERS
    return True


def _sentence_long(output: str, start: int) -> bool:
    """A gloss is short: a whole sentence after a dash or a colon is a switch."""
    tail = re.match(r"[^A-Za-z\n]*", output[start : start + 400])
    return tail is not None and sum(c.isalpha() for c in tail[0]) >= t.SENTENCE_LETTERS


def _word(output: str, start: int, end: int) -> tuple[int, int]:
    first, last = max(start - LONGEST_WORD, 0), min(end + LONGEST_WORD, len(output))
    while start > first and output[start - 1].isalpha():
        start -= 1
    while end < last and output[end].isalpha():
        end += 1
    return start, end


def _sentences(
    reading: Reading, expected: frozenset[str], set_off: bytes
) -> Iterator[tuple[int, int, str]]:
    """Sentences in a language that the prompt does not call for."""
    if reading.asked.gibberish:
        return  # a cipher's letters may look like any language
    sentences = reading.facts.sentences
    related = _with_relatives(expected)
    # Of a short sentence among Spanish ones only English is sure to be something else.
    only_english = bool(_LATIN_CODES & spoken(reading.instruction))
    said = Counter(language for _, _, language in sentences if language)
    # A prompt in another language that is answered in English is an answer in English, not a switch.
    english = "en" in expected or said["en"] * 5 >= sum(said.values()) * 4
    for start, end, language in sentences:
        if language is None or language in related or (language == "en" and english):
            continue
        if only_english and language != "en":
            continue
        if end - start < t.SENTENCE_LETTERS or set_off.count(1, start, end) * 2 > end - start:
            continue
        if not _title(reading.output, start, end):
            yield start, end, "language"


def _title(output: str, start: int, end: int) -> bool:
    """Is it what a list names, with its author before it or its meaning after it?"""
    first = output.rfind("\n", 0, start) + 1
    last = output.find("\n", end)
    line = output[first : last if last >= 0 else len(output)]
    ended = output[end : end + 1] in (".", "!", "?", "…")
    return len(line) <= t.TITLE_LINE and not ended and _NAMES.match(line) is not None


def _with_relatives(languages: frozenset[str]) -> frozenset[str]:
    """A short sentence in one language is easily taken for its neighbour's."""
    return languages.union(*(family for family in _FAMILIES if family & languages))
