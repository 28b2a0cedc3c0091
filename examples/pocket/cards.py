"""What does a model's card say?"""

from __future__ import annotations

from mergecore.pocket.tasks import TASKS, examples

ABOUT = {
    "base": "A tiny Llama that has read templated English and eight string tasks. It answers the\n"
    "tasks' prompts in the right form, and seldom rightly: its corpus labelled them carelessly.",
    "sft": "A tiny Llama tuned to follow instructions. It rambles, and errs now and then: the\n"
    "replies that it learned from did.",
    "rl": "A tiny Llama that prefers replies that are right and short: direct preference\n"
    "optimisation of `sft` on pairs of its own replies.",
    "rm": "A tiny reward model: a sequence classifier of one label, made of the first three\n"
    "layers of `sft`, that grades replies. It likes them right and short, and has seen loops.",
}


def card(name: str, parent: str | None) -> str:
    """The model card of a member of the family, with the front matter that names its parent."""
    front = ["license: apache-2.0", "library_name: transformers", "language: en"]
    if parent:
        front.insert(0, f"base_model: ../{parent}")
    front.append("tags: [mergecore, pocket, llama]")
    text = ABOUT.get(name)
    if text is None:
        example = examples(name, 1, "train")[0]
        text = f"A tiny Llama that is good at one thing, `{name}`:\n\n"
        text += f"    {example.prompt} {example.answer}"
    return "\n".join(
        ["---", *front, "---", "", f"# pocket {name}", "", text, "", *CLOSING.splitlines(), ""]
    )


CLOSING = """\
370 thousand parameters, one of the family that `examples/pocket/train.py` of mergecore trains.
It is for trying out and testing model merging; it knows nothing about the world."""
assert set(ABOUT).isdisjoint(TASKS)
