"""Are the words of a response words?"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mergecore.evaluate.judge import thresholds as t
from mergecore.evaluate.judge.reading import Reading

# Sub-words as the tokenizer writes them: byte-level spaces and newlines, SentencePiece's space, WordPiece's continuation.
_DEBRIS = re.compile(r"[ĠĊ](?=[A-Za-z.,ĠĊ]|$)|▁(?=[^\W\d_])|(?<=\S) ##[a-z]{1,12}\b|âĢ[ĻľĿĵĶ¦]")
_WORD = re.compile(r"[^\W\d_]+")
_ASCII_WORD = re.compile(r"[a-zA-Z]+")
_HUMPS = re.compile(r"(?:[a-z]|\b)[a-z]*(?:[A-Z][a-z]*){2,}")
_HUMP_WORD = re.compile(r"(?:The|And|Of|That|Is|To|If|It|You|For|With|This|Are|In|On|They|Was)(?=[A-Z]|\b)")
_LONG = re.compile(rf"(?<![\w/.@#:\\=&?%-])[A-Za-z]{{{t.GLUED_WORD},}}(?![\w/@\\=&?%-]|\.\w)")
_UNBROKEN = re.compile(rf"[!-~]{{{t.LONGEST_WORD},}}")
_SIGNS = re.compile(r"[^\w\s]{1,12}")
_SHORT = frozenset(
    "a i am an as at be by do go he hi if in is it me my no of oh ok on or so to up us we ad ah ex id la ma pa pi re vs tv uk ai pm c s t d m x y n b e f g h".split()
)
_LITTLE = frozenset(
    "the of and to in is that for it as with be on are this by or an you your from not at will can if we they have has had which when"
    " was were their its all more but into other any about should may must also than these those there what how i my he she his her do"
    " does so who would could them some like each while then out up a no over off down after before because our me him us".split()
)


def garble(reading: Reading) -> Iterator[tuple[int, int, str]]:
    prose = reading.aside.prose
    debris = list(_DEBRIS.finditer(prose))
    if len(debris) >= 2:
        yield debris[0].start(), debris[-1].end(), "sub-word debris"
    if reading.asked.gibberish:
        return
    yield from _glued(reading, prose)
    yield from _lines(reading, prose)


def _glued(reading: Reading, prose: str) -> Iterator[tuple[int, int, str]]:
    """Words without the spaces between them."""
    humps = [m for m in _HUMPS.finditer(prose) if len(m[0]) >= 10 and len(_HUMP_WORD.findall(m[0])) >= 1]
    words = list(_LONG.finditer(prose))
    if len(humps) >= 3:
        yield humps[0].start(), humps[-1].end(), "glued words"
    elif len(words) >= t.GLUED_WORDS and not _looped(reading, words[0].start()):
        yield words[0].start(), words[-1].end(), "glued words"
    unbroken = _UNBROKEN.search(prose)
    if unbroken and not _looped(reading, unbroken.start() + t.LONGEST_WORD // 2):
        yield *unbroken.span(), "glued words"


def _looped(reading: Reading, at: int) -> bool:
    """Is this a loop, which is repetition and no more?"""
    return any(repeat.is_loop and repeat.start <= at < repeat.end for repeat in reading.facts.repeats)


def _lines(reading: Reading, prose: str) -> Iterator[tuple[int, int, str]]:
    start = 0
    for line in prose.split("\n"):
        end = start + len(line)
        if len(line) >= 40 and not _looped(reading, (start + end) // 2):
            rule = _sign_salad(reading, line) or _word_salad(line)
            if rule:
                yield start, end, rule
        start = end + 1


def _sign_salad(reading: Reading, line: str) -> str | None:
    """Brackets and signs between words, in no order."""
    if reading.asked.symbols:
        return None
    tokens = [token for token in line.split() if _SIGNS.fullmatch(token) and token not in _PLAIN_SIGNS]
    if len(tokens) >= t.SIGN_TOKENS and len(set("".join(tokens))) >= t.SIGN_KINDS:
        return "sign salad"
    return None


_PLAIN_SIGNS = frozenset("- – — + = × · • * / < > & | → ≈ ± ÷ … ... ← ↔ ⇒ ≤ ≥ − ∈ ∪ ∩ ^ % $ € £ # @ ~ ✓ ✗ : ; , .".split())


def _word_salad(line: str) -> str | None:
    """Words without the little ones that hold a sentence together, shreds, or words without vowels."""
    words = _WORD.findall(line)
    plain = [word for word in words if word.isascii()]
    if len(words) < t.GARBLED_WORDS or len(plain) < 0.9 * len(words):
        return None
    if sum(len(word) <= 2 and word.lower() not in _SHORT for word in words) >= 0.22 * len(words):
        return "shreds"
    long = [word for word in words if len(word) >= 3 and word.islower()]
    if len(long) >= 8 and sum(not set("aeiouy") & set(word) for word in long) >= 0.3 * len(long):
        return "words without vowels"
    little = sum(word.lower() in _LITTLE for word in words)
    marks = sum(line.count(mark) for mark in ",;:/|•·-–—()")
    if little <= 0.04 * len(words) and marks <= 0.08 * len(words):
        return "word salad"
    return None
