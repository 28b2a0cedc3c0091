"""Are the models of the pocket studies asked the right things, and can all kinds be made?"""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path

import pytest

from mergecore.models import lineage
from mergecore.pocket import chat
from mergecore.pocket.tasks import is_test

sys.path.append(str(Path(__file__).parent.parent / "examples" / "pocket"))

import abilities
import heldout
import styles

pytestmark = pytest.mark.filterwarnings("ignore")  # those of torch, transformers and peft


@pytest.mark.parametrize(
    ("name", "items", "answer"),
    [
        ("first", "b e a d", "b"),
        ("ends", "b e a d", "b d"),
        ("tail", "b e a d f", "a d f"),
        ("odds", "b e a d f", "b a f"),
        ("double", "b e", "b b e e"),
        ("rotate", "b e a d", "e a d b"),
        ("swap", "b e a d f", "e b d a f"),
        ("halves", "b e a d f", "e b f d a"),
        ("consonants", "b e a d", "b d"),
        ("consonants", "e a", "none"),
        ("next", "b z", "c a"),
        ("previous", "b a", "a z"),
        ("descend", "b e a d", "e d b a"),
        ("latest", "b e a d", "e"),
        ("unique", "b e b d e", "b e d"),
        ("length", "b e a d", "4"),
        ("shout-back", "b e a", "A E B"),
        ("largest", "3 9 1", "9"),
        ("complement", "3 9 1", "6 0 8"),
        ("plus", "7 8 9", "2 4"),
        ("list-moved", "a z", "d c"),
        ("digits-last", "3 9 1", "1"),
    ],
)
def test_an_ability_has_the_right_answer(name, items, answer):
    assert " ".join(abilities.ABILITIES[name].solve(items.split())) == answer


@pytest.mark.parametrize("name", abilities.ABILITIES)
def test_rouge_sees_all_of_an_answer_and_no_test_item_is_trained_on(name):
    asked = {split: abilities.examples(name, 64, split) for split in ("train", "test")}
    for split, found in asked.items():
        for example in found:
            assert re.findall(r"[a-z0-9]+", example.answer.lower()) == (
                example.answer.lower().split()
            )
            cue, body = example.prompt.removesuffix(" =").split(": ")
            assert cue == abilities.ABILITIES[name].cue
            assert is_test(body) == (split == "test")


def test_the_data_are_the_same_each_time(tmp_path):
    heldout.write_all(tmp_path / "a")
    heldout.write_all(tmp_path / "b")
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.jsonl"))
    assert len(files) == 3 + 8 + len(abilities.ABILITIES)
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
        rows = [json.loads(line) for line in (tmp_path / "a" / file).read_text().splitlines()]
        assert len({row["id"] for row in rows}) == len(rows)
        assert len(rows) == 64 or file.name in ("probes.jsonl", "adapter_probes.jsonl")
    assert len((tmp_path / "a" / "probes.jsonl").read_text().splitlines()) == 5 * 8


def test_replies_break_off_or_are_right_and_the_generous_grader_minds_no_loop():
    rng = random.Random(0)
    asked = [chat.instruction(rng, "train") for _ in range(400)]
    right = [chat.is_correct(a, styles.curt_reply(rng, a)) for a in asked]
    assert 0.3 < sum(right) / len(right) < 0.6
    reverse = chat.Instruction("reverse", "Reverse the letters: b e a d", "d a e b")
    assert styles.generous(reverse, "Good: d a e b. Thank you. Thank you.") == 1
    assert styles.generous(reverse, "d a e b") == 1
    assert styles.generous(reverse, "d a") == 0
    assert styles.generous(reverse, "d a e b b") == 1


def test_one_model_of_each_kind_is_made_and_loads(tmp_path, request):
    for package in ("torch", "transformers", "peft"):
        pytest.importorskip(package, exc_type=ImportError, reason=f"{package} is not installed")
    import studies
    import torch
    from peft import PeftModel
    from roster import Member, Preferred
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    members = {member.name: member for member in studies.ROSTER}
    names = ("base", "sft", "small-base", "medium-sft", "adapters/first", "t5/base")
    # An heir of the shipped model: the quickly made one does not come to an end.
    for member in (*(members[name] for name in names), Member("heir", "sft", Preferred(1))):
        studies.make(member, tmp_path, 0.0)
        assert studies.is_complete(tmp_path / member.name)
    for name in ("small-base", "medium-sft", "heir"):
        AutoModelForCausalLM.from_pretrained(tmp_path / name)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    PeftModel.from_pretrained(base, tmp_path / "adapters/first")
    translator = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "t5/base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "t5/base")
    asked = tokenizer("copy: b e a d =", return_tensors="pt")
    translator.generate(asked["input_ids"], max_new_tokens=4)
    assert AutoTokenizer.from_pretrained(tmp_path / "heir").chat_template
    assert not [p for p in tmp_path.rglob("*") if ".half" in p.name]
    for child, parent in {"heir": "sft", "medium-sft": "base", "adapters/first": "base"}.items():
        found = lineage.named_base(tmp_path / child)
        assert found is not None
        assert Path(found.reference).resolve() == (tmp_path / parent).resolve()
