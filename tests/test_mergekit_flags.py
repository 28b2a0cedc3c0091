"""Does every flag of mergekit-yaml do what it did, or say why nothing changes, or why it cannot?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import checkpoints

NOTED = [
    *("--allow-crimes", "--trust-remote-code", "--low-cpu-memory", "--lazy-unpickle"),
    *("--cuda", "--read-to-gpu", "--multi-gpu", "--gpu-rich", "--async-write"),
    *("--clone-tensors", "--copy-tokenizer", "--write-model-card", "--safe-serialization"),
    *("--lora-merge-cache x", "--lora-merge-dtype bfloat16", "--write-threads 4"),
]
SILENT = [
    *("-v", "-v -v", "-vv", "--device cpu", "--device auto", "--num-threads 2", "-j 1", "-j1"),
    *("--out-shard-size 5B", "--random-seed 42", "--transformers-cache x"),
    *("--no-allow-crimes", "--no-trust-remote-code", "--no-low-cpu-memory", "--no-lazy-unpickle"),
    *("--no-cuda", "--no-read-to-gpu", "--no-multi-gpu", "--no-async-write", "--no-clone-tensors"),
    *("--no-quiet", "--no-unsafe-truncate-embeddings"),
]
REFUSED = {
    "--unsafe-truncate-embeddings": "rows of different tokens would be averaged",
    "--no-copy-tokenizer": "delete its tokenizer afterwards",
    "--no-write-model-card": "delete README.md afterwards",
    "--no-safe-serialization": "always safetensors",
    "--device xpu": "it is cpu, cpu-torch, cuda or cuda:N",
    "--random-seed x": "no whole number",
    "--num-threads x": "no whole number",
    "--out-shard-size 5x": "write it like",
}
# All there are, by mergekit-yaml --help of 0.1.5; a flag that can be told no is one.
FLAGS = """
    --allow-crimes --unsafe-truncate-embeddings --trust-remote-code --transformers-cache
    --lora-merge-cache --lora-merge-dtype --random-seed -v --quiet --cuda --device --low-cpu-memory
    --lazy-unpickle --read-to-gpu --multi-gpu --num-threads -j --gpu-rich --async-write
    --write-threads --out-shard-size --copy-tokenizer --clone-tensors --write-model-card
    --safe-serialization
""".split()

RECIPE = """
merge_method: dare_ties
base_model: base
models: [{model: a}, {model: b}]
parameters: {weight: 0.5, density: 0.5}
"""


@pytest.fixture
def plain(command, family, tmp_path) -> Path:
    """The merge without a flag; random, so that a seed shows."""
    (tmp_path / "mix.yml").write_text(RECIPE)
    assert command("run", "mix.yml", "plain").status == 0
    return tmp_path / "plain"


def same(one: Path, other: Path) -> bool:
    """The same files, but for the folder's name and when it was made."""
    weights = (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    config = (one / "config.json").read_bytes() == (other / "config.json").read_bytes()
    return weights and config and sorted(os.listdir(one)) == sorted(os.listdir(other))


@pytest.fixture
def cache(monkeypatch):
    """So that what a flag sets in the environment is set back."""
    monkeypatch.setenv("HF_HUB_CACHE", "")


def test_every_flag_is_tried():
    tried = {flag.split()[0] for flag in [*NOTED, *SILENT, *REFUSED, "--quiet"]}
    assert set(FLAGS) <= tried


@pytest.mark.parametrize("flag", NOTED)
def test_a_flag_that_changes_nothing_says_so(command, plain, tmp_path, flag):
    answer = command("run", "mix.yml", "out", *flag.split())
    assert answer.status == 0, answer.err
    assert f"note: mergekit's {flag.split()[0]} changes nothing" in answer.out
    assert same(plain, tmp_path / "out")


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("flag", SILENT)
def test_a_flag_that_asks_for_what_is_so_is_taken(command, plain, tmp_path, flag):
    answer = command("run", *flag.split(), "mix.yml", "out")
    assert answer.status == 0, answer.err
    assert "mergekit" not in answer.out
    assert same(plain, tmp_path / "out")


@pytest.mark.parametrize("flag", REFUSED)
def test_a_flag_that_cannot_be_honoured_is_refused(refused, plain, tmp_path, flag):
    said = refused("run", "mix.yml", "out", *flag.split())
    assert REFUSED[flag] in said
    assert flag.split()[0] in said or flag.split()[1] in said
    assert not (tmp_path / "out").exists()


def test_flags_that_mean_ours(command, plain, tmp_path):
    flags = ("--random-seed", "7", "-j", "1", "--out-shard-size", "1k", "--quiet", "-v", "-v")
    answer = command("run", "mix.yml", "out", *flags)
    assert (answer.status, answer.out, answer.err) == (0, "", "")
    assert command("run", "mix.yml", "ours", "--seed", "7", "--shard-size", "1k").status == 0
    ours, theirs = (checkpoints.load(tmp_path / out) for out in ("ours", "out"))
    assert all(theirs[name].tobytes() == ours[name].tobytes() for name in ours)
    unseeded = checkpoints.load(plain)
    assert any(unseeded[name].tobytes() != ours[name].tobytes() for name in ours)
    assert json.loads((tmp_path / "out/mergecore.json").read_text())["seed"] == 7
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1


def test_models_are_found_in_transformers_cache(plain, tmp_path):
    stored = tmp_path / "cache/models--org--a"
    (stored / "refs").mkdir(parents=True)
    (stored / "refs/main").write_text("1234")
    (stored / "snapshots").mkdir()
    (tmp_path / "a").rename(stored / "snapshots/1234")
    (tmp_path / "mix.yml").write_text(RECIPE.replace("model: a", "model: org/a"))
    command = [sys.executable, "-m", "mergecore", "run", "mix.yml", "out"]
    command += ["--transformers-cache", "cache"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ours, expected = checkpoints.load(tmp_path / "out"), checkpoints.load(plain)
    assert all(ours[name].tobytes() == expected[name].tobytes() for name in expected)
