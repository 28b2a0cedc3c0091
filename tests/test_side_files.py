"""Which files come with the weights, whose are they, and are they true of the output?"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

import checkpoints
import mergecore
from mergecore import pocket
from mergecore.model_config import corrected_config

COPIED = {
    "tokenizer.json": "{}",
    "tokenizer_config.json": "{}",
    "chat_template.jinja": "{{ messages }}",
    "generation_config.json": "{}",
    "vocab.json": "{}",
    "merges.txt": "a b",
    "preprocessor_config.json": "{}",
    "modeling_custom.py": "# code",
    "sub/extra.json": "{}",
}
LEFT = {
    "README.md": "of the donor",
    "pytorch_model.bin": "w",
    "model.gguf": "w",
    "tf_model.h5": "w",
    "training_args.bin": "w",
    "pytorch_model.bin.index.json": "{}",
    "mergecore.json": "{}",
    ".gitattributes": "",
    ".cache/file": "",
    "checkpoint-5/config.json": "{}",
    "checkpoint-5/optimizer.pt": "w",
    "adapter_config.json": "{}",
}


def add(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def donor_of(folder: Path) -> str:
    return json.loads((folder / "config.json").read_text())["donor"]


@pytest.fixture
def named(family, tmp_path):
    """The family, each config saying whose it is."""
    for name in ("base", "a", "b"):
        config = tmp_path / name / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"donor": name}))
    return tmp_path


def test_all_of_the_donor_but_weights_and_what_is_its_own(command, named):
    add(named / "base", COPIED | LEFT)
    assert command("merge", "a", "b", "--method", "ties", "--out", "out").status == 0
    for name, text in COPIED.items():
        assert (named / "out" / name).read_text() == text
    for name in LEFT:
        path = named / "out" / name
        assert not path.exists() or path.read_text() != LEFT[name]


@pytest.mark.parametrize(
    ("files", "method", "donor"),
    [
        ({}, "ties", "base"),
        ({}, "linear", "a"),
        ({"b/chat_template.jinja": "x"}, "ties", "b"),
        ({"b/chat_template.json": "{}"}, "ties", "b"),
        ({"b/tokenizer_config.json": '{"chat_template": "x"}'}, "ties", "b"),
        ({"b/tokenizer_config.json": '{"chat_template": null}'}, "ties", "base"),
        ({"a/chat_template.jinja": "x", "b/chat_template.jinja": "x"}, "ties", "a"),
        ({"base/chat_template.jinja": "x", "b/chat_template.jinja": "x"}, "ties", "base"),
    ],
)
def test_who_the_donor_is(command, named, files, method, donor):
    add(named, files)
    answer = command("merge", "a", "b", "--method", method, "--out", "out")
    assert donor_of(named / "out") == donor
    surprising = method == "ties" and donor != "base"
    assert (f"{donor}'s: base has no chat template" in answer.out) == surprising


def test_the_donor_can_be_named_and_is_rl_for_an_extrapolation(command, named):
    add(named, {"b/chat_template.jinja": "x"})
    command("merge", "a", "b", "--method", "ties", "--donor", "a", "--out", "out")
    assert donor_of(named / "out") == "a"
    command("extrapolate", "--from", "base", "--to", "a", "--alpha", "0.5", "--out", "expo")
    assert donor_of(named / "expo") == "a"


@pytest.mark.parametrize("key", ["dtype", "torch_dtype", None])
def test_the_config_states_the_output_s_dtype(command, tmp_path, key):
    states = checkpoints.family(dtype=np.float32)
    for name, state in zip("ab", states[1:], strict=True):
        folder = checkpoints.save(tmp_path / name, state)
        (folder / "config.json").write_text(json.dumps({key: "float32"} if key else {"x": 1}))
    command("merge", "a", "b", "--method", "linear", "--dtype", "bfloat16", "--out", "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config == ({key: "bfloat16"} if key else {"x": 1, "torch_dtype": "bfloat16"})


def test_a_config_that_is_true_already_is_copied_byte_for_byte(command, named):
    text = '{"torch_dtype":"float32",\n\n "num_hidden_layers":2}'
    (named / "base/config.json").write_text(text)
    command("merge", "a", "b", "--method", "ties", "--out", "out")
    assert (named / "out/config.json").read_text() == text


@pytest.mark.parametrize(
    ("config", "said", "expected"),
    [
        ({"num_hidden_layers": 9}, {"layers": 2}, {"num_hidden_layers": 2}),
        ({"n_layer": 9}, {"layers": 2}, {"n_layer": 2}),
        ({"num_hidden_layers": 2}, {"layers": None}, {"num_hidden_layers": 2}),
        ({"tie_word_embeddings": True}, {"untied": True}, {"tie_word_embeddings": False}),
        ({"tie_word_embeddings": False}, {"tied": True}, {"tie_word_embeddings": True}),
        ({}, {"untied": True}, {"tie_word_embeddings": False}),
        (
            {"text_config": {"num_hidden_layers": 9, "dtype": "float32"}},
            {"layers": 2, "dtype": "float16"},
            {"text_config": {"num_hidden_layers": 2, "dtype": "float16"}},
        ),
        (  # the layer that predicts a second token is numbered 2, and not counted
            {"num_hidden_layers": 2, "num_nextn_predict_layers": 1},
            {"layers": 3},
            {"num_hidden_layers": 2, "num_nextn_predict_layers": 1},
        ),
    ],
)
def test_layers_and_ties_are_made_true(config, said, expected):
    assert corrected_config(config, said) == expected


def test_the_card_and_the_recipe_as_run(command, named):
    command("merge", "a", "b", "--method", "ties", "--density", "0.3", "--out", "out")
    front = yaml.safe_load((named / "out/README.md").read_text().split("---")[1])
    assert front["base_model"] == "../base"
    assert front["tags"] == ["mergecore", "merge"]
    again = command("run", "out/mergecore_recipe.yml", "again")
    assert again.status == 0, again.err
    first, second = (checkpoints.load(named / name) for name in ("out", "again"))
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_weights_without_a_config_merge_and_say_so(command, family, tmp_path):
    for name in ("base", "a", "b"):
        (tmp_path / name / "config.json").unlink()
    answer = command("merge", "a", "b", "--method", "ties")
    assert answer.status == 0
    assert "base has no config.json" in answer.out


def test_a_broken_config_of_the_donor_is_refused(refused, family, tmp_path):
    (tmp_path / "base/config.json").write_text("{broken")
    assert "config.json" in refused("merge", "a", "b", "--method", "ties")
    assert not (tmp_path / "a-b-ties").exists()


def test_side_files_that_cannot_be_copied_are_refused_before_the_merge(refused, family, tmp_path):
    merge = ("merge", "a", "b", "--method", "ties", "--out", "out")
    vocab = tmp_path / "base/vocab.json"
    vocab.symlink_to("nowhere.json")
    assert "base/vocab.json" in refused(*merge)
    vocab.unlink()
    os.mkfifo(vocab)  # reading it would wait for ever
    assert "base/vocab.json" in refused(*merge)
    vocab.unlink()
    assert not (tmp_path / "out.partial").exists()


def test_a_read_only_side_file_does_not_stop_the_same_command(command, named):
    add(named / "base", {"vocab.json": "{}"})
    (named / "base/vocab.json").chmod(0o444)
    merge = ("merge", "a", "b", "--method", "ties", "--out", "out")
    assert command(*merge).status == 0
    # As a kill just before the rename leaves it.
    (named / "out").rename(named / "out.partial")
    (named / "out.partial/.mergecore-journal.jsonl").write_text("")
    assert command(*merge).status == 0
    assert (named / "out/vocab.json").read_text() == "{}"


def test_the_recipe_as_run_is_relative_to_the_output(command, named, tmp_path, monkeypatch):
    command("merge", "a", "b", "--method", "ties", "--out", "out")
    # A folder from which the same relative paths lead to other models.
    elsewhere = tmp_path / "deep/er"
    elsewhere.mkdir(parents=True)
    for name in ("base", "a", "b"):
        checkpoints.save(tmp_path / "deep" / name, {"w": np.ones(1, np.float32)})
    recipe = named / "out/mergecore_recipe.yml"
    assert "../base" in recipe.read_text()
    monkeypatch.chdir(elsewhere)
    mergecore.run(recipe, "again")
    assert checkpoints.load(elsewhere / "again").keys() == checkpoints.load(named / "out").keys()


def test_parents_that_turn_positions_at_other_speeds_are_warned_of(tmp_path, command):
    for name, theta in (("a", 10_000.0), ("b", 1_000_000.0)):
        shutil.copytree(pocket.path("sft"), tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text())
        config.pop("rope_parameters", None)
        (tmp_path / name / "config.json").write_text(json.dumps({**config, "rope_theta": theta}))
    line = ("merge", "a", "b", "--method", "linear", "--out", "merged")
    answer = command(*line)
    assert answer.status == 0
    assert "rope_theta differs: 10000 (a); 1000000 (b)" in answer.err
    assert "the output has that of a (donor)" in answer.err
    assert command(*line, "--donor", "b", "--overwrite").err.count("that of b (donor)") == 1
