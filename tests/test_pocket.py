"""Are the pocket models what they are said to be: small, trained, and plain Llamas?"""

from __future__ import annotations

import json

import numpy as np
import pytest

from mergecore import pocket
from mergecore.models import lineage
from mergecore.pocket import tasks
from mergecore.pocket.forward import Model, accuracy

FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md")


def test_all_seven_ship_within_six_megabytes():
    folders = [pocket.path(name) for name in pocket.NAMES]
    assert len(folders) == 7
    for folder in folders:
        assert all((folder / name).is_file() for name in FILES), folder
    shipped = sum(f.stat().st_size for folder in folders for f in folder.rglob("*") if f.is_file())
    assert shipped <= 6_000_000


@pytest.mark.parametrize("name", pocket.NAMES)
def test_a_card_names_the_model_that_it_was_tuned_from(name):
    parent = {"base": None, "rl": "sft"}.get(name, "base")
    if parent is not None:
        found = lineage.common_base({name: pocket.path(name)}, "ties").reference
        assert found.endswith(parent)
    config = json.loads((pocket.path(name) / "config.json").read_text())
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    assert head in (32, 64)  # what vLLM's CPU attention takes
    assert config["vocab_size"] <= 1024


def test_sft_and_rl_have_a_chat_template():
    for name in ("sft", "rl"):
        assert (pocket.path(name) / "chat_template.jinja").is_file()


@pytest.mark.parametrize("name", pocket.EXPERTS)
def test_an_expert_is_far_better_than_the_base_at_its_own_task(name):
    base, expert = (accuracy(Model(pocket.path(m)), name, n=60) for m in ("base", name))
    assert expert > 0.9
    assert expert > base + 0.5


@pytest.mark.parametrize("task", tasks.TASKS)
def test_training_and_test_prompts_are_disjoint(task):
    trained = {e.prompt for e in tasks.examples(task, 300, "train", seed=1)}
    tested = {e.prompt for e in tasks.examples(task, 300, "test", seed=2)}
    assert trained
    assert tested
    assert not trained & tested


@pytest.mark.parametrize("name", pocket.NAMES)
def test_the_numpy_forward_pass_is_transformers(name):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = pocket.path(name)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = "sort: d b c a ="
    ids = tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = theirs(ids).logits.numpy()
    np.testing.assert_allclose(Model(folder).logits(ids.numpy()), expected, atol=1e-3)


def test_a_merge_of_two_experts_with_nothing_more_loads_in_transformers(command, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    a, b = (str(pocket.path(name)) for name in ("reverse", "sort"))
    answer = command("merge", a, b, "--method", "dare-ties")
    assert answer.status == 0, answer.err
    merged = "reverse-sort-dare-ties"
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        merged, dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(merged)
    ids = tokenizer("reverse: a b c d =", return_tensors="pt").input_ids
    answer_ids = model.generate(ids, max_new_tokens=12, do_sample=False)
    assert answer_ids.shape[1] > ids.shape[1]
