"""What does each command take, print and leave behind?"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import checkpoints

JSON_KEYS = (
    *("out", "method", "base", "models", "parameters", "tensors", "bytes_read", "bytes_written"),
    *("seconds", "peak_rss_bytes", "seed", "delta_norm"),
)


def test_a_merge_needs_models_and_a_method_and_no_more(command, family, tmp_path):
    answer = command("merge", "a", "b", "--method", "dare-ties")
    assert answer.status == 0
    assert (tmp_path / "a-b-dare-ties/mergecore.json").is_file()
    for word in ("method", "dare_ties", "density", "tensors", "GB/s", "peak RSS", "‖Δ‖", "seed"):
        assert word in answer.out
    assert command("verify", "a-b-dare-ties").out.startswith("ok: ")


def test_json_is_one_object(command, family):
    answer = command("merge", "a", "b", "--method", "ties", "--weight", "0.7", "--weight", "0.3",
                     "--density", "0.4", "--lambda", "0.9", "--json")  # fmt: skip
    report = json.loads(answer.out)
    assert set(JSON_KEYS) <= set(report)
    assert report["parameters"]["weight"] == [0.7, 0.3]
    assert report["parameters"]["density"] == [0.4, 0.4]
    assert report["parameters"]["lambda"] == 0.9
    assert report["seed"] == 42
    assert answer.err == ""


def test_quiet_prints_nothing(command, family):
    answer = command("merge", "a", "b", "--method", "ties", "--quiet")
    assert (answer.status, answer.out, answer.err) == (0, "", "")


def test_a_dry_run_writes_nothing(command, family, tmp_path):
    before = sorted(os.listdir(tmp_path))
    answer = command("merge", "a", "b", "--method", "ties", "--dry-run")
    assert "to write" in answer.out
    plan = json.loads(command("merge", "a", "b", "--method", "ties", "--dry-run", "--json").out)
    assert plan["dry_run"]
    assert plan["method"] == "ties"
    assert sorted(os.listdir(tmp_path)) == before


def test_an_output_is_replaced_only_if_told(command, refused, family, tmp_path):
    assert command("merge", "a", "b", "--method", "ties", "--out", "out").status == 0
    assert "--overwrite" in refused("merge", "a", "b", "--method", "linear", "--out", "out")
    assert (
        command("merge", "a", "b", "--method", "linear", "--out", "out", "--overwrite").status == 0
    )
    assert json.loads((tmp_path / "out/mergecore.json").read_text())
    assert not [name for name in os.listdir(tmp_path) if name.startswith("out.")]


def test_set_gives_any_parameter(command, family):
    answer = command("merge", "a", "b", "--method", "dare-ties", "--set", "rescale=l1",
                     "--set", "normalize=true", "--json")  # fmt: skip
    parameters = json.loads(answer.out)["parameters"]
    assert (parameters["rescale"], parameters["normalize"]) == ("l1", True)


@pytest.mark.parametrize("size", ["1000", "1kB", "2KiB", "0.5MB", "5B", "1g"])
def test_sizes_are_read(command, family, size):
    assert command("merge", "a", "b", "--method", "ties", "--shard-size", size).status == 0


def test_extrapolation_goes_on_from_rl(command, family, tmp_path):
    assert command("extrapolate", "--from", "base", "--to", "a", "--alpha", "0.5").status == 0
    base, a, _ = family
    merged = checkpoints.load(tmp_path / "a-expo-0.5")
    for name in ("model.embed_tokens.weight", "odd.scale"):
        expected = a[name] + np.float32(0.5) * (a[name] - base[name])
        np.testing.assert_allclose(merged[name], expected, rtol=1e-6, atol=1e-6)
    sparse = command("extrapolate", "--from", "base", "--to", "a", "--alpha", "0.5", "--method",
                     "ties", "--density", "0.2", "--out", "sparse", "--json")  # fmt: skip
    assert json.loads(sparse.out)["parameters"]["lambda"] == 0.5


def test_a_recipe_runs_from_anywhere(command, family, tmp_path, monkeypatch):
    text = "merge_method: ties\nbase_model: base\nmodels:\n- model: a\n- model: b\n"
    (tmp_path / "mix.yml").write_text(text + "parameters: {weight: 1, density: 0.5}\n")
    assert command("run", "mix.yml").status == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert command("run", tmp_path / "mix.yml", "out").status == 0
    first, second = (checkpoints.load(tmp_path / p) for p in ("mix", "elsewhere/out"))
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_a_recipe_file_keeps_mergekit_s_density(command, family, tmp_path):
    text = "merge_method: ties\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}\n"
    (tmp_path / "mix.yml").write_text(text)
    assert "density 1: nothing is dropped" in command("run", "mix.yml").out


def test_show_says_what_is_in_a_model(command, family):
    description = json.loads(command("show", "a", "--json").out)
    assert description["parameters"] == sum(tensor.size for tensor in family[1].values())
    assert description["dtypes"] == {"float32": 7, "float16": 1, "int64": 1}
    assert description["layers"] == 2
    assert "odd.half" in command("show", "a", "--tensors").out
    assert "odd.half" not in command("show", "a").out


def test_show_says_what_a_recipe_would_do(command, family, tmp_path):
    (tmp_path / "mix.yml").write_text("merge_method: linear\nmodels: [{model: a}, {model: b}]\n")
    plan = json.loads(command("show", "mix.yml", "--json").out)
    assert plan["disk_free"] > plan["disk_needed"] > 0
    assert "enough" in command("show", "mix.yml").out


def test_methods_are_listed_and_shown(command):
    assert "dare-ties" in command("methods").out
    ties = json.loads(command("methods", "ties", "--json").out)
    assert {"density", "weight", "scope"} <= {p["name"] for p in ties["parameters"]}
    assert "0.2 (in a recipe file 1)" in command("methods", "Ties").out


def test_verify_names_what_has_changed(command, family, tmp_path):
    command("merge", "a", "b", "--method", "ties", "--out", "out")
    file = tmp_path / "out/model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    answer = command("verify", "out")
    assert answer.status == 1
    assert "odd.half" in answer.err or "model.safetensors" in answer.err
    assert not json.loads(command("verify", "out", "--json").out)["ok"]


def test_a_pipe_that_closes_is_no_error(family, tmp_path):
    script = f"{sys.executable} -m mergecore show {tmp_path / 'a'} --tensors | true"
    done = subprocess.run(script, shell=True, capture_output=True, text=True, check=True)
    assert done.stderr == ""
