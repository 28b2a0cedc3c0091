"""Does a response show what belongs to the chat template, or go on with turns that nobody took?"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mergecore.evaluate.judge.reading import Reading

_TOKEN = re.compile(
    r"<[|｜][A-Za-z_▁ ]{1,40}[|｜]>|<\|(?:reserved_special_token_\d+|im_(?:start|end))"
    r"|\[/?INST\]|<</?SYS>>|</?(?:start|end)_of_turn>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk|endoftext|human|bot|extra_id_\d+)>|</s>"
    r"|\[(?:PAD|CLS|SEP|UNK|EOS|BOS)\]|<0x[0-9A-F]{2}>|</?(?:user|assistant|system)>|GPT4 (?:Correct )?(?:User|Assistant):"
    r"|\[\|(?:Human|AI|assistant|user|endofturn)\|\]"
)
_STRUCK = re.compile(r"<s>[^<\n]{1,200}</s>")  # HTML's strikethrough
_TURN = re.compile(
    r"^[ \t]*(?:#{2,3} *(?:Instruction|Human|Assistant)[ \t]*:?[ \t]*$|#{2,3} *(?:Instruction|Human|User|Assistant):"
    r"|(?:\*\*)?(?:User|USER|Human|HUMAN)(?:\*\*)?:)",
    re.MULTILINE,
)
_REPLY = re.compile(
    r"^[ \t]*(?:\*\*)?(?:Assistant|ASSISTANT|AI|Bot|ChatGPT)(?:\*\*)?:", re.MULTILINE
)


def leaks(reading: Reading) -> Iterator[tuple[int, int, str]]:
    yield from _tokens(reading)
    yield from _turns(reading)


def _tokens(reading: Reading) -> Iterator[tuple[int, int, str]]:
    if reading.asked.tokens:
        return
    output = reading.output
    if "<" not in output and "[" not in output and "GPT4" not in output:
        return
    struck = [match.span() for match in _STRUCK.finditer(output)]
    for match in _TOKEN.finditer(output):
        start, end = match.span()
        quoted = start > 0 and output[start - 1] == "`" and output[end : end + 1] == "`"
        known = match[0] in reading.instruction
        if not quoted and not known and not any(a <= start < b for a, b in struck):
            yield start, end, "template token"


def _turns(reading: Reading) -> Iterator[tuple[int, int, str]]:
    """A turn of the user, which is not the model's to write; it comes after the answer."""
    if reading.asked.turns or _TURN.search(reading.instruction):
        return
    output = reading.output
    turn = _TURN.search(output)
    while turn and not output[: turn.start()].strip():
        turn = _TURN.search(output, turn.end())
    if turn and not reading.aside.fenced(*turn.span()):
        yield turn.start(), len(output), "invented turn"
    elif len(_REPLY.findall(output)) >= 2:
        yield *_REPLY.search(output).span(), "invented turn"  # type: ignore[union-attr]
