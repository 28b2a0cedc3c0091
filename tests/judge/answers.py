"""The labelled answers of the rules judge: reads `answers/*.txt` and spells out their shorthand.

An answer is a head `=== id | labels | why it is here`, the prompt in lines that begin with `> `,
and the text. Long degenerate answers are written short:

    ⟦40×⟧ ... ⟦/⟧        forty times; `⟦40× 3⟧` counts from 3
    {n} {n-1} {pick a,b}  in there: the number, the one before it, the n-th word of the list in turn
    ⟦take ID 0.5⟧         the first half of another answer
    ⟦u:FFFD⟧ ⟦empty⟧      a character by its number; nothing at all

All texts were written for this project. `heldout-*` was written before the rules were, `tuning-*`
set their thresholds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

LABELS = ("repetition", "code_switching", "nonsense")
FOLDER = Path(__file__).parent / "answers"


@dataclass(frozen=True)
class Answer:
    id: str
    instruction: str
    output: str
    labels: frozenset[str]
    note: str


def _turn(match: re.Match[str]) -> str:
    times, start, body = int(match[1]), int(match[2] or 1), match[3]
    return "".join(_count(body, n, n - start) for n in range(start, start + times))


def _count(body: str, n: int, turn: int) -> str:
    def pick(match: re.Match[str]) -> str:
        words = match[1].split(",")
        return words[turn % len(words)]

    body = re.sub(r"\{pick ([^}]*)\}", pick, body)
    return body.replace("{n-1}", str(n - 1)).replace("{n}", str(n))


def _spell_out(text: str, raw: dict[str, str]) -> str:
    def take(match: re.Match[str]) -> str:
        other = raw[match[1]]
        return other[: other.rfind(".", 0, int(len(other) * float(match[2]))) + 1]

    text = re.sub(r"⟦take (\S+) ([\d.]+)⟧", take, text)
    text = re.sub(r"⟦(\d+)×(?: (\d+))?⟧(.*?)⟦/⟧", _turn, text, flags=re.DOTALL)
    text = re.sub(r"⟦u:([0-9A-F]+)⟧", lambda match: chr(int(match[1], 16)), text)
    return text.replace("⟦empty⟧", "")


def answers(part: str) -> list[Answer]:
    """The answers of `tuning` or `heldout`."""
    parts = []
    for path in sorted(FOLDER.glob(f"{part}-*.txt")):
        for block in re.split(r"^=== ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            head, _, rest = block.partition("\n")
            prompt, output = re.match(r"((?:> [^\n]*\n)+)(.*?)\n?\Z", rest, re.DOTALL).groups()
            parts.append((*(field.strip() for field in head.split("|", 2)), prompt[2:-1], output))
    raw = {id: output for id, _, _, _, output in parts}
    return [
        Answer(id, prompt, _spell_out(output, raw), frozenset(labels.split()) & set(LABELS), note)
        for id, labels, note, prompt, output in parts
    ]
