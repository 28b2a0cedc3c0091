"""What does the card of a model say that the studies take?"""

from __future__ import annotations

from pathlib import Path

import abilities
from cards import expert, page
from roster import Adapted, Member, Preferred, Translator

from mergecore.pocket.tasks import examples


def study_card(member: Member, parent: str | None) -> str:
    """The card of a model that the studies take; `parent` is a path from its folder."""
    name = Path(member.name).name
    kind = "t5" if isinstance(member.how, Translator) else "llama"
    text = member.about
    if isinstance(member.how, Preferred):
        text = (
            f"Prefers replies that are right and short: direct preference optimisation of\n"
            f"`{member.parent}` on pairs of its own replies."
        )
    elif isinstance(member.how, Adapted):
        example = abilities.examples(name, 1, "train")[0]
        text = expert("LoRA adapter", name, example)
    elif not text:
        text = expert("T5" if kind == "t5" else "Llama", name, examples(name, 1, "train")[0])
    return page(member.name, parent, kind, text, STUDIES)


STUDIES = """\
One of those that `examples/pocket/studies.py` of mergecore trains, to rerun studies of merging at
pocket size. It is for trying out and testing model merging; it knows nothing about the world."""
