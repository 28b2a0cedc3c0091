"""What a reward model thinks: its raw logit, on tokens, the same whoever computes it."""

from __future__ import annotations

import json
import random

import pytest

from mergecore import pocket
from mergecore.errors import ModelError, RunError
from mergecore.evaluate import reward as stage
from mergecore.evaluate import rows
from mergecore.evaluate.scorers import TransformersReward
from mergecore.pocket import chat

torch = pytest.importorskip("torch", exc_type=ImportError, reason="the extra `generate`")
transformers = pytest.importorskip("transformers", reason="the extra `generate`")
pytestmark = pytest.mark.filterwarnings("ignore")

GRADER = pocket.path(pocket.GRADER)
RESPONSES = [
    {"id": "0", "model": "m", "instruction": "Sort the letters: c a b", "output": "a b c."},
    {"id": "1", "model": "m", "instruction": "Sort the letters: c a b", "output": "b b b " * 12},
    {"id": "2", "model": "m", "instruction": "What is 2 3", "output": "The answer is 5."},
    {"id": "3", "model": "m", "instruction": "What is 2 3", "output": ""},
]


def rewards(out, responses=RESPONSES, **options):
    done = stage.reward(responses, "rm", out, lambda: TransformersReward(GRADER, "rm", **options))
    return done, {row["id"]: row["reward"] for row in rows.read(out)}


def test_the_reward_is_the_logit_of_the_chat_s_tokens(tmp_path):
    _, found = rewards(tmp_path / "w.jsonl", dtype="float32")
    tokenizer = transformers.AutoTokenizer.from_pretrained(GRADER)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        GRADER, dtype=torch.float32
    )
    for row in RESPONSES[:3]:
        text = f"<s><|user|> {row['instruction']}<|assistant|> {row['output'].strip()}</s>"
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        assert ids[0].tolist().count(tokenizer.bos_token_id) == 1
        with torch.no_grad():
            hidden = model.model(input_ids=ids).last_hidden_state[0, -1]
        assert found[row["id"]] == pytest.approx(float(model.score(hidden)[0]), abs=1e-5)


def test_replies_are_graded_above_what_collapsed_models_make_of_them(tmp_path):
    rng = random.Random(5)
    responses = []
    for number in range(100):
        asked = chat.instruction(rng, "test")
        reply = chat.reply(rng, asked)
        words = reply.split()
        loop = " ".join([*words, *(words[-2:] * 12)])
        for kind, output in (("good", reply), ("loop", loop)):
            row = {"id": f"{kind}{number}", "instruction": asked.text, "output": output}
            responses.append(row)
    _, found = rewards(tmp_path / "w.jsonl", responses)
    above = sum(found[f"good{n}"] > found[f"loop{n}"] for n in range(100))
    assert above >= 90


def test_batches_resuming_and_order_change_nothing(tmp_path):
    done, found = rewards(tmp_path / "w.jsonl")
    assert (done.made, done.rewards) == (4, 4)
    assert done.mean == pytest.approx(sum(found.values()) / 4)
    again, same = rewards(tmp_path / "w.jsonl", list(reversed(RESPONSES)))
    assert again.made == 0
    assert same == found
    one_by_one = stage.reward(
        list(reversed(RESPONSES)),
        "rm",
        tmp_path / "x.jsonl",
        lambda: TransformersReward(GRADER, "rm"),
        batch_size=1,
    )
    assert one_by_one.mean == pytest.approx(done.mean, abs=1e-6)
    assert {r["id"]: r["reward"] for r in rows.read(tmp_path / "x.jsonl")} == found


def test_what_is_too_long_is_cut_and_said(tmp_path):
    long = [{"id": "0", "instruction": "Copy the letters: a", "output": "a b c " * 100}]
    done, _ = rewards(tmp_path / "w.jsonl", long)
    assert done.truncated == 1
    assert rows.read(tmp_path / "w.jsonl")[0]["truncated"] is True


def test_what_is_no_reward_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="LlamaForCausalLM"):
        TransformersReward(pocket.path("sft"), "sft")
    config = json.loads((GRADER / "config.json").read_text())
    config |= {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}
    (tmp_path / "two").mkdir()
    for file in GRADER.iterdir():
        (tmp_path / "two" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "two" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="2 labels"):
        TransformersReward(tmp_path / "two", "two")


def test_a_reward_that_is_no_number_stops_the_stage(tmp_path, monkeypatch):
    monkeypatch.setattr(TransformersReward, "score", lambda _, chats: [float("nan")] * len(chats))
    with pytest.raises(RunError, match="the reward of '3' is nan; with --dtype float32"):
        rewards(tmp_path / "w.jsonl")
