"""Pocket models: tiny, really trained Llama checkpoints that ship with mergecore.

A base; four experts fine-tuned from it, one task each; an instruction model (`sft`) and a
preference-tuned one (`rl`) descended from that; and a reward model (`rm`).
`examples/pocket/train.py` made them all.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

EXPERTS = ("reverse", "sort", "uppercase", "add")
NAMES = ("base", *EXPERTS, "sft", "rl")
"""The models that write."""
GRADER = "rm"
"""The one that grades what they write: a sequence classifier."""


def path(name: str) -> Path:
    """The folder of the shipped checkpoint called `name`; ValueError if there is none."""
    if name not in (*NAMES, GRADER):
        near = get_close_matches(name, NAMES, n=1, cutoff=0.0)[0]
        raise ValueError(f"no pocket model {name!r}: did you mean {near!r}? ({', '.join(NAMES)})")
    return Path(__file__).parent / "models" / name
