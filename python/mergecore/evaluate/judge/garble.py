"""Are the words of a response words?"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mergecore.evaluate.judge import thresholds as t
from mergecore.evaluate.judge.reading import Reading

# Sub-words as the tokenizer writes them: byte-level spaces and newlines, SentencePiece's space, WordPiece's continuation.
_DEBRIS = re.compile(
    r"[ĠĊ](?=[A-Za-z.,ĠĊ]|$)|▁(?=[^\W\d_])|(?<=[^\W\d_])▁|(?<=\S) ##[a-z]{1,12}\b|âĢ[ĻľĿĵĶ¦]"
)
_HUMPS = re.compile(r"(?<![A-Za-z])[a-z]*(?:[A-Z][a-z]*){2,}")
_HUMP_WORD = re.compile(
    r"(?:The|And|Of|That|Is|To|If|It|You|For|With|This|Are|In|On|They|Was)(?=[A-Z]|\b)"
)
# Names of programs have humps; words run together have none for long.
# Names of programs have humps; words run together have none for long.
_LONG = re.compile(rf"(?<![\w/.@#:\\=&?%\"'-])[A-Za-z]{{{t.GLUED_WORD},}}(?![\w/@\\=&?%\"'-]|\.\w)")
_PLAIN_STRETCH = re.compile(r"[a-z]{18}")
_UNBROKEN = re.compile(rf"[!-~]{{{t.LONGEST_WORD},}}")
_SIGNS = re.compile(r"[^\w\s]{1,12}")
# A word as it stands in prose: letters, with the marks of a sentence around them. Names of files, variables and keys are none.
_PLAIN = re.compile(r"(?<![^\s(\"“'*])[A-Za-z]+(?:['’-][A-Za-z]+)*(?=[\s.,;:!?)\"”'*]|$)")
_SHORT = frozenset(
    "a i am an as at be by do go he hi if in is it me my no of oh ok on or so to up us we ad ah ex id la ma pa pi re vs tv uk ai pm c s t d m x y n b e f g h"
    " je da se na za su od iz de la le el en es un et il lo di al si du au ou ne ce ja ei nu cu pe ve bu ni ke ta te mi ti".split()
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
    humps = [match for match in _HUMPS.finditer(prose) if len(_HUMP_WORD.findall(match[0])) >= 2]
    words = [match for match in _LONG.finditer(prose) if _PLAIN_STRETCH.search(match[0])]
    if len(humps) >= t.GLUED_WORDS:
        yield humps[0].start(), humps[-1].end(), "glued words"
    elif (
        len(words) >= t.GLUED_WORDS or any(len(word[0]) >= t.GLUED_LONG for word in words)
    ) and not _looped(reading, sum(words[0].span()) // 2):
        yield words[0].start(), words[-1].end(), "glued words"
    unbroken = _UNBROKEN.search(prose)
    if unbroken and not _looped(reading, sum(unbroken.span()) // 2):
        yield *unbroken.span(), "glued words"


def _looped(reading: Reading, at: int) -> bool:
    """Is this a loop, which is repetition and no more?"""
    return any(loop.start <= at < loop.end for loop in reading.facts.loops)


def _lines(reading: Reading, prose: str) -> Iterator[tuple[int, int, str]]:
    start = 0
    for line in reading.output.split("\n"):
        end = start + len(line)
        if len(line) >= 40:
            if (
                not reading.asked.symbols
                and not reading.aside.fenced(start, end)
                and _sign_salad(line)
            ):
                yield start, end, "sign salad"
            for first, last, rule in _garbled(prose[start:end]):
                span = start + first, start + last
                if not _looped(reading, sum(span) // 2) and not _foreign(reading, *span):
                    yield *span, rule
        start = end + 1


def _foreign(reading: Reading, start: int, end: int) -> bool:
    """Has another language a say here? Only of English is it known what holds it together."""
    return any(a < end and start < b for a, b in reading.facts.foreign)


def _sign_salad(line: str) -> bool:
    """Brackets and signs between words, in no order."""
    tokens = [
        token for token in line.split() if _SIGNS.fullmatch(token) and token not in _PLAIN_SIGNS
    ]
    return len(tokens) >= t.SIGN_TOKENS and len(set("".join(tokens))) >= t.SIGN_KINDS


_PLAIN_SIGNS = frozenset(
    "- – — + = × · • * / < > & | → ≈ ± ÷ … ... ← ↔ ⇒ ≤ ≥ − ∈ ∪ ∩ ^ % $ € £ # @ ~ ✓ ✗ : ; , .".split()
)


def _garbled(line: str) -> Iterator[tuple[int, int, str]]:
    """Stretches of so many words that are no sentence."""
    words = list(_PLAIN.finditer(line))
    size = t.GARBLED_WINDOW
    for first in range(0, max(len(words) - size, 0) + 1, size // 3):
        window = words[first : first + size]
        if len(window) < t.GARBLED_WORDS:
            return
        start, end = window[0].start(), window[-1].end()
        rule = _fault([word[0] for word in window], line[start:end])
        if rule:
            yield start, end, rule


def _fault(words: list[str], text: str) -> str | None:
    if len(text) > 12 * len(words):
        return None  # most of it is something else than these words
    if sum(
        len(word) <= 2 and word.islower() and word not in _SHORT for word in words
    ) >= t.SHREDS * len(words):
        return "shreds"
    long = [word for word in words if len(word) >= 3 and word.islower()]
    if len(long) >= 8 and sum(_VOWELS.isdisjoint(word) for word in long) >= t.VOWELLESS * len(long):
        return "words without vowels"
    little = sum(word.lower() in _LITTLE for word in words)
    marks = sum(map(text.count, ",;:/|•·–—()&+"))
    if little <= t.LITTLE * len(words) and marks <= t.LIST_MARKS * len(words):
        return "word salad"
    return None


_VOWELS = frozenset("aeiouy")
