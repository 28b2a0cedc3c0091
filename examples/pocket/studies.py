"""Trains the models that the pocket reruns of three studies take, beside those that ship.

    python examples/pocket/studies.py [--out DIR] [--only NAME,...] [--quick] [--overwrite]

DIR is $MERGECORE_POCKET, or ~/.cache/mergecore/pocket. A folder that is complete is not trained
again unless --overwrite says so; one that a kill left half is: a model appears when it is whole.
A name may end in a star (`adapters/*`). Runs on one CPU thread, seeded.
"""

from __future__ import annotations

import argparse
import copy
import os
import random
import shutil
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import adapt
import torch
import vocabulary
from abilities import ABILITIES
from abilities import stream as ability_stream
from fit import fit, new_model
from heldout import write_all
from prefer import pairs, prefer
from roster import ROSTER, Adapted, Member, Preferred, Shipped, Taught, Translator
from seq2seq import new_translator, translate
from study_cards import study_card
from styles import generous
from tokenizers import Tokenizer
from train import SEED, THREADS, stream
from transformers import LlamaForCausalLM, T5ForConditionalGeneration

from mergecore import pocket
from mergecore.pocket import chat

QUICK = 0.05


def make(member: Member, out: Path, scale: float) -> str:
    """Make the folder of one member, whose parent is in `out`; says how it went."""
    folder = out / member.name
    half = folder.with_name(f".{folder.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    half.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(member.how, Shipped):
        shutil.copytree(pocket.path(member.name), half)
        said = "copied from the package"
    else:
        tokenizer = Tokenizer.from_file(str(pocket.path("base") / "tokenizer.json"))
        model, said = TRAIN[type(member.how)](member, tokenizer, out, scale)
        _save(member, model, tokenizer, half)
    shutil.rmtree(folder, ignore_errors=True)
    half.rename(folder)
    return said


def _teach(member: Member, tokenizer: Tokenizer, out: Path, scale: float) -> tuple[Any, str]:
    how = member.how
    assert isinstance(how, Taught)
    model = _llama(out / member.parent) if member.parent else new_model(how.seed, **how.shape)
    torch.manual_seed(how.seed)
    steps = max(5, int(how.steps * scale))
    loss = fit(model, tokenizer, stream(how.draw, member.name), steps, how.rate)
    return model, f"{steps} steps, loss {loss:.3f}"


def _prefer(member: Member, tokenizer: Tokenizer, out: Path, scale: float) -> tuple[Any, str]:
    how = member.how
    assert isinstance(how, Preferred)
    assert member.parent is not None
    model = _llama(out / member.parent)
    torch.manual_seed(how.seed)
    asked = chat.instructions(max(24, int(how.asked * scale)), "train", how.seed)
    data = pairs(model, tokenizer, asked, generous, ends=False)[: how.most]
    right = prefer(model, data, epochs=1, rate=how.rate, anchor=0.0)
    return model, f"{len(data)} pairs, {right:.0%} ordered as preferred"


def _adapt(member: Member, tokenizer: Tokenizer, out: Path, scale: float) -> tuple[Any, str]:
    assert member.parent is not None
    name = Path(member.name).name
    ability = ABILITIES[name]
    steps = max(5, int(ability.steps * scale))
    read = ability_stream(name, "train", random.Random(f"{SEED}/{member.name}"))
    base = _llama(out / member.parent)
    model, loss = adapt.adapt(base, tokenizer, read, steps, ability.rate, SEED)
    return model, f"{steps} steps, loss {loss:.3f}"


def _translate(member: Member, tokenizer: Tokenizer, out: Path, scale: float) -> tuple[Any, str]:
    how = member.how
    assert isinstance(how, Translator)
    model = (
        T5ForConditionalGeneration.from_pretrained(out / member.parent, dtype=torch.float32)
        if member.parent
        else new_translator(SEED)
    )
    if how.before is not None:
        first = max(5, int(how.steps_before * scale))
        translate(model, tokenizer, stream(how.before, f"{member.name}/1"), first, 3e-3)
    steps = max(5, int(how.steps * scale))
    loss = translate(model, tokenizer, stream(how.draw, member.name), steps, how.rate)
    return model, f"{steps} steps, loss {loss:.3f}"


TRAIN = {Taught: _teach, Preferred: _prefer, Adapted: _adapt, Translator: _translate}


def _llama(folder: Path) -> LlamaForCausalLM:
    # From the file, not from memory: a child's delta is to the parent that is on the disk.
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)


def _save(member: Member, model: Any, tokenizer: Tokenizer, folder: Path) -> None:
    """One complete checkpoint folder, in bfloat16."""
    parent = os.path.relpath(member.parent, member.name) if member.parent else None
    if isinstance(member.how, Adapted):
        assert parent is not None
        adapt.save(model, folder, parent)
    else:
        copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    chatty = isinstance(member.how, Preferred) or getattr(member.how, "chatty", False)
    vocabulary.save(tokenizer, folder, chatty=chatty)
    (folder / "README.md").write_text(study_card(member, parent))


def is_complete(folder: Path) -> bool:
    """Whether a model is there; folders appear whole, by a rename."""
    return (folder / "config.json").exists() or (folder / "adapter_config.json").exists()


def default_folder() -> Path:
    """Where the family is unless the command says."""
    return Path(os.environ.get("MERGECORE_POCKET") or Path.home() / ".cache/mergecore/pocket")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=default_folder(), help="where folders go")
    parser.add_argument("--only", help="comma-separated names, which may end in a star")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the steps")
    parser.add_argument("--overwrite", action="store_true", help="train what is there again")
    args = parser.parse_args()
    patterns = args.only.split(",") if args.only else ["*"]
    known = [m.name for m in ROSTER]
    if lost := [p for p in patterns if not any(fnmatchcase(n, p) for n in known)]:
        parser.error(f"no such model: {', '.join(lost)}; there are {', '.join(known)}")

    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    begun = time.perf_counter()
    write_all(args.out / "data")
    for member in ROSTER:
        chosen = any(fnmatchcase(member.name, p) for p in patterns)
        there = is_complete(args.out / member.name)
        if not chosen or (there and not args.overwrite):
            continue
        if member.parent and not is_complete(args.out / member.parent):
            parser.error(f"{member.name} is tuned from {member.parent}, which is not in {args.out}")
        clock = time.perf_counter()
        said = make(member, args.out, QUICK if args.quick else 1.0)
        print(f"{member.name}: {said}, {time.perf_counter() - clock:.0f} s", flush=True)
    print(f"made in {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
