"""May a shell script call `mergecore run` where it called `mergekit-yaml`, with the same flags?"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cases import CASES
from closeness import ULPS, largest_of, within
from families import in_place

import checkpoints

SCRIPTS = {
    "slerp-classic": "--allow-crimes --copy-tokenizer --out-shard-size 1B --lazy-unpickle",
    "slices-ties": "--quiet -v --random-seed 7 --low-cpu-memory --trust-remote-code --no-cuda",
    "deep-rslora-ties": "--lora-merge-cache cached --lora-merge-dtype float32 --write-model-card",
    "frankenmerge": "--out-shard-size 20k --clone-tensors --async-write --safe-serialization -j 1",
    "t5-arithmetic": "--device cpu --num-threads 2 --write-threads 2 --transformers-cache cached",
}
OUTS = ("ours", "theirs")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@pytest.fixture(scope="module")
def scripts(mergekit, families, tmp_path_factory) -> dict[str, Path]:
    """A folder for each script, with the models under their names, after both have run in it."""
    root = tmp_path_factory.mktemp("scripts")
    runs = []
    for name, flags in SCRIPTS.items():
        family, content = CASES[name]
        shutil.copytree(families[family], root / name)
        for model in ("base", "a", "b", "far"):
            for file in TOKENIZER:
                (root / name / model / file).write_text(json.dumps({"of": model}))
        in_place(root / name / "mix.yml", content, ".")  # names alone mergekit seeks on the hub
        ours = [sys.executable, "-m", "mergecore", "run"]
        for command, out in ((ours, "ours"), ([mergekit.with_name("mergekit-yaml")], "theirs")):
            runs.append(([*command, "mix.yml", out, *flags.split()], root / name))
    with ThreadPoolExecutor(2) as two:
        for done in two.map(lambda run: _done(*run), runs):
            assert done.returncode == 0, done.stderr
    return {name: root / name for name in SCRIPTS}


def _done(command: list, folder: Path) -> subprocess.CompletedProcess:
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    options = {"capture_output": True, "text": True, "check": False, "timeout": 300}
    return subprocess.run(command, cwd=folder, env=offline, **options)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_makes_the_same_model(name, scripts):
    ours, theirs, *inputs = (
        checkpoints.load(scripts[name] / folder)
        for folder in ("ours", "theirs", "base", "a", "b", "far")
    )
    ulps = ULPS.get(CASES[name][1]["merge_method"], 1)
    assert ours.keys() >= theirs.keys()
    for tensor, expected in theirs.items():
        of_models = [largest_of(tensor, state) for state in inputs]
        assert within(ulps, ours[tensor], expected, *of_models).all(), tensor


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_finds_the_files_it_found(name, scripts):
    ours, theirs = (
        {file.name for file in (scripts[name] / out).iterdir() if "model-" not in file.name}
        for out in OUTS
    )
    assert {"config.json", "README.md", *TOKENIZER} <= theirs
    assert theirs - ours <= {"mergekit_config.yml"}  # ours is mergecore_recipe.yml
    for file in TOKENIZER:
        donors = [json.loads((scripts[name] / out / file).read_text()) for out in OUTS]
        if "base_model" in CASES[name][1]:  # without one, mergekit's donor is chance
            assert donors[0] == donors[1]
