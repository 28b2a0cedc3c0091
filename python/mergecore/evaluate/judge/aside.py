"""What in a response is no prose? Code, tables, formulas, addresses, drawings are set aside.

Nothing is cut out: each character gets a kind, so that positions stay those of the output. Rules of
repetition ask more of what is set aside; rules of language do not look there at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PROSE, FENCE, CODE, TABLE, FORMULA, ADDRESS, DRAWING = range(7)

LONGEST_ROW = 2000

_FENCE = re.compile(r"^[ \t]*(```|~~~)[^\n]*\n.*?(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`[^`\n]+`")
_FORMULA = re.compile(
    r"\$\$.{1,2000}?\$\$|\\\[.{1,2000}?\\\]|\\\(.{1,2000}?\\\)|\\begin\{(\w+\*?)\}.{1,4000}?\\end\{\1\}|\$[^$\n]{0,300}?[\\^_={][^$\n]{0,300}\$",
    re.DOTALL,
)
_ADDRESS = re.compile(
    r"(?:https?|ftp)://[^\s<>)\]]+|www\.[^\s<>)\]]+|(?<![\w.+-])[\w.+-]+@[\w-]+\.[\w.]+|(?<!\w)[#@]\w+"
    r"|(?<!\w)(?:~|\.{0,2})/[\w.-]+(?:/[\w.-]+)+|(?<![\w.*+-])[\w.*-]+(?:/[\w.*+-]+){2,}|(?<![\w-])[\w-]+/[\w-]+\.[a-z]{1,4}\b"
)
_CODE_LINE = re.compile(
    r"\s*(?:#include\b|#!|import [\w.{]|from [\w.]+ import |(?:async )?def \w+\(|class \w+\s*[:({]|@\w+"
    r"|(?:public|private|protected|static|const|let|var|function|int|void|return|elif|else)\b.*[;{}():=]\s*$"
    r"|</?[a-zA-Z!][^>\n]*>\s*\S*|<!--|(?:INSERT INTO|SELECT|CREATE|UPDATE|DELETE|VALUES|ALTER|DROP)\b.*[(,;*]"
    r"|[\w.\[\]\"']+ *[-+*/]?= *\S.*[;)\]\"'\d]\s*$|(?:\$|>>>|\.\.\.) \S|[\w.]+\(.*\)[;:]?\s*$"
    r"|(?:for|while|if|switch|catch) ?\(.*|[\"']?[\w-]+[\"']?: .*[;,{\[]\s*$|<\w+> *::=|[{}()\[\];,\s]+$|//|/\*|\*/)"
)
_ROW = re.compile(r"\s*\|.|.*\|\s*$|.* \| .* \| ")
_CODE_END = (";", "{", "}", "};", ");")
_ALNUM = re.compile(r"[^\W_]")
_LETTERS = re.compile(r"[^\W\d_]{2,}")
_CSV = re.compile(r"[^,\n]*(?:,[^,\s][^,\n]*){3,}")


@dataclass(frozen=True)
class Aside:
    """The kind of each character, and the prose with all else blanked."""

    kinds: bytes
    prose: str

    def share(self, start: int, end: int) -> float:
        """How much of `start..end` is set aside."""
        return 1 - self.kinds.count(PROSE, start, end) / max(end - start, 1)

    def fenced(self, start: int, end: int) -> bool:
        return self.kinds.count(FENCE, start, end) * 2 > end - start


def aside(output: str) -> Aside:
    kinds = bytearray(len(output))
    if "```" in output or "~~~" in output:
        _mark(kinds, _FENCE, output, FENCE)
    _mark_lines(kinds, output)
    if "`" in output:
        _mark(kinds, _INLINE, output, CODE)
    if "$" in output or "\\" in output:
        _mark(kinds, _FORMULA, output, FORMULA)
    if "/" in output or "@" in output or "#" in output or "www." in output:
        _mark(kinds, _ADDRESS, output, ADDRESS)
    return Aside(bytes(kinds), _blank(output, kinds))


def _mark(kinds: bytearray, pattern: re.Pattern[str], output: str, kind: int) -> None:
    for match in pattern.finditer(output):
        start, end = match.span()
        if kinds[start] == PROSE:
            kinds[start:end] = bytes([kind]) * (end - start)


def _mark_lines(kinds: bytearray, output: str) -> None:
    start = 0
    for line in output.split("\n"):
        end = start + len(line)
        if line and kinds[start] == PROSE:
            kind = _kind(line)
            if kind:
                kinds[start:end] = bytes([kind]) * len(line)
        start = end + 1


def _kind(line: str) -> int:
    if line.count("|") >= 2 and (line[0] == "|" or (len(line) <= LONGEST_ROW and _ROW.match(line))):
        return TABLE
    if len(line) <= 200 and (_CODE_LINE.match(line) or line.endswith(_CODE_END)):
        return CODE
    dense = "".join(line.split())
    if len(dense) <= 120 and not _LETTERS.search(line) and len(dense) >= 3:
        return DRAWING
    if len(line) <= 200 and len(_ALNUM.findall(dense)) * 3 < len(dense):
        return DRAWING
    if len(line) <= 200 and line.isascii() and _CSV.fullmatch(line):
        return TABLE
    return PROSE


def _blank(output: str, kinds: bytearray) -> str:
    pieces, done = [], 0
    for match in _SET_ASIDE.finditer(kinds):
        start, end = match.span()
        pieces += [output[done:start], _VISIBLE.sub(" ", output[start:end])]
        done = end
    return "".join([*pieces, output[done:]])


_SET_ASIDE = re.compile(rb"[^\0]+")
_VISIBLE = re.compile(r"[^\n]")
