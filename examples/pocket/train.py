"""Trains the pocket family: a base, eight experts, an instruction model, its preferred heir, and a
reward model that grades replies.

    python examples/pocket/train.py --out DIR [--only base,reverse,...] [--quick]

Runs on the CPU, seeded: the same versions of torch and transformers make the same weights again.
Parents that --only leaves out are read from DIR.
"""

from __future__ import annotations

import argparse
import copy
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import vocabulary
from cards import card
from fit import fit, new_model
from grade import grade, new_grader
from prefer import pairs, prefer
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

from mergecore.pocket import chat, corpus, tasks
from mergecore.pocket.forward import Model, accuracy
from mergecore.pocket.tasks import TASKS, Example

SEED = 42
THREADS = 1  # models this small gain little from a second, and sums round alike everywhere
REPLAY = 0.25  # how much of an expert's reading is the base's corpus, lest it forget the rest
NAMES = ("base", *TASKS, "sft", "rl", "rm")


def parent(name: str) -> str | None:
    """Which model of the family a model is tuned from."""
    return {"base": None, "rl": "sft", "rm": "sft"}.get(name, "base")


def stream(draw: Callable[[random.Random], Example], label: str) -> Iterator[Example]:
    """Endless examples, the same for the same label."""
    rng = random.Random(f"{SEED}/{label}")
    while True:
        yield draw(rng)


def expertise(task: str) -> Callable[[random.Random], Example]:
    """What an expert reads."""

    def draw(rng: random.Random) -> Example:
        if rng.random() < REPLAY:
            return corpus.document(rng)
        body = next(tasks.bodies(task, "train", rng))
        return Example(tasks.prompt(task, body), TASKS[task].solve(body))

    return draw


def conversation(rng: random.Random) -> Example:
    """What the instruction model reads."""
    if rng.random() < REPLAY:
        return corpus.document(rng)
    asked = chat.instruction(rng, "train")
    return Example(chat.prompt(asked), chat.reply(rng, asked))


def train(name: str, model: LlamaForCausalLM, tokenizer: Tokenizer, scale: float) -> str:
    """Make `model`, which starts as its parent, into the one called `name`; says how it went."""
    torch.manual_seed(SEED)
    if name == "rl":
        asked = chat.instructions(max(60, int(1800 * scale)), "train", SEED)
        data = pairs(model, tokenizer, asked)
        ordered = prefer(model, data, epochs=3, rate=1e-4)
        return f"{len(data)} pairs, {ordered:.0%} ordered as preferred"
    draw, steps, rate = {
        "base": (corpus.document, 4500, 3e-3),
        "sft": (conversation, 600, 1e-3),
    }.get(name) or (expertise(name), 250, 1e-3)
    steps = max(20, int(steps * scale))
    return f"{steps} steps, loss {fit(model, tokenizer, stream(draw, name), steps, rate):.3f}"


def save(
    name: str,
    model: LlamaForCausalLM | LlamaForSequenceClassification,
    tokenizer: Tokenizer,
    folder: Path,
) -> None:
    """One complete checkpoint folder, in bfloat16."""
    chatty = name in ("sft", "rl", "rm")
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    vocabulary.save(tokenizer, folder, chatty=chatty)
    (folder / "README.md").write_text(card(name, parent(name)))


def table(out: Path, names: list[str]) -> str:
    """What each model can do: exact answers on held-out prompts, and the reward of its replies."""
    asked = chat.instructions(300)
    lines = ["| model | " + " | ".join(TASKS) + " | chat right | words | reward |"]
    lines.append("|---" * (len(TASKS) + 4) + "|")
    for name in names:
        model = Model(out / name)
        cells = [f"{accuracy(model, task, n=500):.0%}" for task in TASKS]
        if name in ("sft", "rl"):
            replies = model.complete([chat.prompt(a) for a in asked], limit=48)
            graded = list(zip(asked, replies, strict=True))
            n = len(asked)
            cells.append(f"{sum(chat.is_correct(a, r) for a, r in graded) / n:.0%}")
            cells.append(f"{sum(len(r.split()) for r in replies) / n:.1f}")
            cells.append(f"{sum(chat.reward(a, r) for a, r in graded) / n:.3f}")
        else:
            cells += ["", "", ""]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="where the model folders go")
    parser.add_argument("--only", help="comma-separated names: " + ", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="a twentieth of the steps")
    args = parser.parse_args()
    wanted = args.only.split(",") if args.only else list(NAMES)
    if unknown := sorted(set(wanted) - set(NAMES)):
        parser.error(f"no such model: {', '.join(unknown)}; there are {', '.join(NAMES)}")

    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    # A child must read as its parent does, whatever the corpus has become since.
    known = args.out / "base" / "tokenizer.json"
    if "base" not in wanted and not known.exists():
        parser.error(f"the family's tokenizer is not in {args.out}: train the base, too")
    tokenizer = vocabulary.train(SEED) if "base" in wanted else Tokenizer.from_file(str(known))
    begun = time.perf_counter()
    for name in (n for n in NAMES if n in wanted):
        clock = time.perf_counter()
        origin = parent(name)
        if origin and not (args.out / origin / "config.json").exists():
            parser.error(f"{name} is tuned from {origin}, which is not in {args.out}")
        model = (
            # From the file, not from memory: a child's delta is to the parent that ships.
            LlamaForCausalLM.from_pretrained(args.out / origin, dtype=torch.float32)
            if origin
            else new_model(SEED)
        )
        scale = 0.05 if args.quick else 1.0
        if name == "rm":
            model = new_grader(model)
            right = grade(model, tokenizer, max(20, int(600 * scale)))
            how = f"{right:.0%} of pairs ordered as preferred"
        else:
            how = train(name, model, tokenizer, scale)
        save(name, model, tokenizer, args.out / name)
        print(f"{name}: {how}, {time.perf_counter() - clock:.0f} s", flush=True)
    print(f"trained in {time.perf_counter() - begun:.0f} s\n")
    print(table(args.out, [n for n in NAMES if n in wanted and n != "rm"]))


if __name__ == "__main__":
    main()
