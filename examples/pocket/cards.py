"""What does a model's card say?"""

from __future__ import annotations

from mergecore.pocket.tasks import TASKS, Example, examples

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
    text = ABOUT.get(name) or expert("Llama", name, examples(name, 1, "train")[0])
    return page(name, f"../{parent}" if parent else None, "llama", text, CLOSING)


def expert(what: str, name: str, example: Example) -> str:
    """What a card says of a model of one task."""
    text = f"A tiny {what} that is good at one thing, `{name}`:\n\n"
    return text + f"    {example.prompt} {example.answer}"


def page(name: str, parent: str | None, kind: str, text: str, closing: str) -> str:
    """A whole card; `parent` is a path from the model's folder."""
    front = ["license: apache-2.0", "library_name: transformers", "language: en"]
    if parent:
        front.insert(0, f"base_model: {parent}")
    front.append(f"tags: [mergecore, pocket, {kind}]")
    return "\n".join(
        ["---", *front, "---", "", f"# pocket {name}", "", text, "", *closing.splitlines(), ""]
    )


CLOSING = """\
370 thousand parameters, one of the family that `examples/pocket/train.py` of mergecore trains.
It is for trying out and testing model merging; it knows nothing about the world."""
assert set(ABOUT).isdisjoint(TASKS)
