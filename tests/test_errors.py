"""Is every bad input refused in one line that names what is wrong, before anything is written?"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import checkpoints
import mergecore
from checkpoints import raw

MERGE = ("merge", "a", "b", "--method", "ties", "--out", "out")
ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["merge", "a", "b", "--method", "tise"], 'did you mean "ties"'),
        (["merge", "a", "b", "--method", "ties", "--set", "desity=0.5"], "density"),
        (["merge", "a", "b", "--method", "ties", "--denisty", "0.5"], "--density"),
        (["merge", "a", "b", "--method", "ties", "--density", "1.5"], "density"),
        (["merge", "a", "b", "--method", "ties", "--density", "-0.1"], "density"),
        (["merge", "a", "b", "--method", "ties", "--weight", "nan"], "weight"),
        (["merge", "a", "b", "--method", "ties", "--weight", "inf"], "weight"),
        (["merge", "a", "b", "--method", "ties", *["--weight", "1"] * 3], "3 values for 2 models"),
        (["merge", "a", "b", "--method", "ties", *["--lambda", "1"] * 2], "lambda"),
        (["merge", "a", "b", "--method", "ties", "--lambda", "1", "--set", "lambda=2"], "twice"),
        (["merge", "a", "b", "--method", "ties", "--set", "scope"], "KEY=VALUE"),
        (["merge", "a", "b", "--method", "ties", "--set", "scope=world"], "scope"),
        (["merge", "a", "b", "--method", "ties", "--device", "tpu"], "cuda:N"),
        (["merge", "a", "b", "--method", "ties", "--shard-size", "5XB"], "5XB"),
        (["merge", "a", "b", "--method", "ties", "--dtype", "int8"], "float32"),
        (["merge", "a", "b", "--method", "ties", "--out", "a"], "a"),
        (["merge", "a", "b", "--method", "ties", "--out", "a/merged"], "inside the input a"),
        (["merge", "a", "bb", "--method", "ties"], 'did you mean "b"'),
        (["merge", "./a", "./c/d", "--method", "ties"], "./c/d"),
        (["merge", "org/model", "b", "--method", "linear"], "HF_HUB_OFFLINE"),
        (["merge", "base+adapter", "b", "--method", "linear"], "adapter"),
        (["merge", "a", "b", "--method", "slerp", "--base", "base"], "slerp"),
        (["merge", "a", "--method", "slerp"], "slerp"),
        (["merge", "--method", "ties"], "MODEL"),
        (["merge", "a", "b"], "--method"),
        (["extrapolate", "--from", "base", "--to", "a"], "--alpha"),
        (
            ["extrapolate", "--from", "base", "--to", "a", "--alpha", "1", "--method", "slerp"],
            "slerp",
        ),
        (["marge", "a", "b"], 'did you mean "merge"'),
        (["run", "absent.yml"], "absent.yml"),
        (["methods", "tise"], 'did you mean "ties"'),
        (["verify", "a"], "mergecore.json"),
        (["show", "absent"], "absent"),
    ],
)
def test_requests(refused, family, tmp_path, arguments, says):
    before = sorted(os.listdir(tmp_path))
    assert says in refused(*arguments)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ("merge_method: ties\nmodles: []\n", "modles"),
        ("merge_method: linear\nmodels: [{model: a, paramters: {}}, {model: b}]\n", "paramters"),
        ("merge_method: ties\nmerge_method: linear\n", "twice"),
        ("merge_method: [\n", "line"),
        ("- a list\n", "mapping"),
        ("merge_method: linear\nmodels: [{model: a}, {model: b}]\nseed: 2020-01-01\n", "seed"),
        ("merge_method: linear\nmodels: a\n", "models"),
        ("merge_method: linear\nslices: 3\n", "slices is a list"),
        (
            "merge_method: linear\nmodules: {defualt: {models: [a, b]}}\n",
            'did you mean "default"',
        ),
        ("merge_method: linear\nmodels: &a [*a]\n", "itself"),
        ("models: [{model: a}]\n", "merge_method"),
        ("merge_method: linear\nmodels: [{model: a}, {model: gone}]\n", "gone"),
    ],
)
def test_recipes(refused, family, tmp_path, recipe, says):
    (tmp_path / "mix.yml").write_text(recipe)
    assert says in refused("run", "mix.yml", "out")
    assert says in refused("show", "mix.yml")
    assert not (tmp_path / "out").exists()


HOSTILE = {
    "empty": b"",
    "a header longer than the file": raw("{}", length=10**9),
    "a header beyond all bounds": raw("{}", length=2**63 + 8),
    "no JSON": raw("{not json"),
    "a header that is no object": raw("[1, 2]"),
    "a truncated body": raw(json.dumps({"w": ENTRY}), b"\0" * 4),
    "overlap": raw(json.dumps({"w": ENTRY, "v": ENTRY}), b"\0" * 8),
    "offsets out of order": raw(json.dumps({"w": {**ENTRY, "data_offsets": [8, 0]}}), b"\0" * 8),
    "a shape that overflows": raw(json.dumps({"w": {**ENTRY, "shape": [2**62, 8]}}), b"\0" * 8),
    "a shape that does not fit": raw(json.dumps({"w": {**ENTRY, "shape": [3]}}), b"\0" * 8),
    "an unknown dtype": raw(json.dumps({"w": {**ENTRY, "dtype": "F31"}}), b"\0" * 8),
    "a name given twice": raw(f'{{"w": {json.dumps(ENTRY)}, "w": {json.dumps(ENTRY)}}}', b"\0" * 8),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files(refused, family, tmp_path, content):
    (tmp_path / "b/model.safetensors").write_bytes(content)
    assert "model.safetensors" in refused(*MERGE)
    assert not (tmp_path / "out").exists()


def test_a_truncated_shard(refused, family, tmp_path):
    file = tmp_path / "b/model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "model.safetensors" in refused(*MERGE)


@pytest.mark.parametrize("shard", ["gone.safetensors", "../a/model.safetensors", "/etc/passwd"])
def test_an_index_that_points_astray(refused, family, tmp_path, shard):
    index = {"weight_map": dict.fromkeys(family[2], shard)}
    (tmp_path / "b/model.safetensors").unlink()
    (tmp_path / "b/model.safetensors.index.json").write_text(json.dumps(index))
    assert Path(shard).name in refused(*MERGE)


@pytest.mark.parametrize("where", ["base", "a", "b"])
def test_a_tensor_that_one_model_lacks_or_has_alone(refused, family, tmp_path, where):
    state = dict(family[["base", "a", "b"].index(where)])
    lacking = {name: tensor for name, tensor in state.items() if name != "odd.half"}
    checkpoints.save(tmp_path / where, lacking)
    assert "odd.half" in refused(*MERGE, "--base", "base")
    checkpoints.save(tmp_path / where, state | {"new.weight": np.ones(3, np.float32)})
    assert "new.weight" in refused(*MERGE, "--base", "base")


def test_shapes_that_differ(refused, family, tmp_path):
    for name, shape in (("odd.half", (3, 5)), ("model.embed_tokens.weight", (34, 8))):
        changed = dict(family[2]) | {name: np.ones(shape, np.float32)}
        checkpoints.save(tmp_path / "b", changed)
        message = refused(*MERGE)
        assert name in message
        for size in (*shape, *family[0][name].shape):
            assert str(size) in message


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "odd.half", "alone"])
def test_a_donor_that_is_no_input_must_fit(refused, command, family, tmp_path, name):
    checkpoints.save(tmp_path / "donor", family[0])
    donor = (*MERGE, "--base", "base", "--donor", "donor")
    assert command(*donor, "--dry-run").status == 0
    changed = dict(family[0]) | {name: np.ones((34, 8), np.float32)}
    checkpoints.save(tmp_path / "donor", changed)
    message = refused(*donor)
    assert "donor" in message
    assert name in message
    checkpoints.save(tmp_path / "donor", {k: v for k, v in family[0].items() if k != "odd.half"})
    assert "odd.half" in refused(*donor)
    assert not (tmp_path / "out").exists()


def test_an_unfinished_output_that_is_a_link(refused, family, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out.partial").symlink_to("elsewhere")
    assert "out.partial" in refused(*MERGE)
    assert not os.listdir(tmp_path / "elsewhere")


def test_weights_that_cannot_be_merged(refused, family, tmp_path):
    changed = dict(family[2]) | {"odd.counter": np.arange(4)[::-1].copy()}
    checkpoints.save(tmp_path / "b", changed)
    assert "odd.counter" in refused(*MERGE)
    checkpoints.save(tmp_path / "b", dict(family[2]) | {
        "odd.half": np.zeros((5, 3), checkpoints.DTYPES["F8_E4M3"])})  # fmt: skip
    assert "odd.half" in refused(*MERGE)


def test_an_empty_folder_and_pickled_weights(refused, family, tmp_path):
    (tmp_path / "b/model.safetensors").unlink()
    assert "b" in refused(*MERGE)
    (tmp_path / "b/pytorch_model.bin").write_bytes(b"never unpickled")
    assert "b/pytorch_model.bin: is not a torch file" in refused(*MERGE)


def test_a_failure_in_python_is_python_s_own_class(family, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError):
        mergecore.merge(["a", "gone"], "linear", out="out")
    with pytest.raises(ValueError, match="tise"):
        mergecore.merge(["a", "b"], "tise", out="out")
    mergecore.merge(["a", "b"], "linear", out="out")
    with pytest.raises(FileExistsError):
        mergecore.merge(["a", "b"], "linear", out="out")


def test_names_that_are_no_text_are_refused(refused, family, tmp_path):
    assert "UTF-8" in refused("merge", "a", "b", "--method", "linear", "--out", "o\udcff")
    (tmp_path / "bad\udcff").symlink_to("a")
    assert "UTF-8" in refused("merge", "bad\udcff", "b", "--method", "linear")


def test_a_few_aliases_that_stand_for_billions_are_refused(refused, family, tmp_path):
    lines = ["l0: &l0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 12)]
    (tmp_path / "mix.yml").write_text("merge_method: linear\nmodels: [a, b]\n" + "\n".join(lines))
    assert "aliases" in refused("run", "mix.yml", "out")


def test_what_is_left_out_exists_and_leaves_no_gap(refused, command, family, tmp_path):
    assert "nomatch*" in refused(*MERGE, "--ignore", "nomatch*")
    assert "gap" in refused(*MERGE, "--ignore", "*.layers.0.*")
    answer = command(*MERGE, "--ignore", "*.layers.1.*")
    assert answer.status == 0
    assert "left out" in answer.out
    assert "layers.1" in answer.out


def test_two_sets_of_weights_in_one_folder(refused, command, family, tmp_path):
    whole = checkpoints.safetensors(family[1])
    checkpoints.save(tmp_path / "b", family[2], shards=2)
    (tmp_path / "b/model.safetensors").write_bytes(whole)
    assert "model.safetensors" in refused(*MERGE)
    (tmp_path / "b/model.safetensors").unlink()
    assert command(*MERGE, "--shard-size", "700").status == 0
    (tmp_path / "out/model.safetensors").write_bytes(whole)
    answer = command("verify", "out")
    assert answer.status == 1
    assert "model.safetensors is not in the manifest" in answer.err


@pytest.mark.parametrize("out", ["", "."])
def test_an_output_without_a_name(refused, family, out):
    refused("merge", "a", "b", "--method", "linear", "--out", out)


def test_a_base_spelled_otherwise_is_still_one_of_the_models(command, family):
    for base in ("./a", "a/", "../" + Path.cwd().name + "/a"):
        answer = command(
            "merge", "a", "b", "--method", "slerp", "--base", base, "--out", "s", "--overwrite"
        )
        assert answer.status == 0, answer.err
