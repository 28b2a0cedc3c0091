"""The whole of it: models in, figures beside their parents' out."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mergecore
from mergecore import pocket
from mergecore.evaluate import evaluation, rows
from mergecore.pocket import chat

pytest.importorskip("torch", exc_type=ImportError, reason="the extra `generate`")
pytest.importorskip("transformers", reason="the extra `generate`")


def command(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "mergecore", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Parents, a good merge and a strong extrapolation, evaluated."""
    folder = tmp_path_factory.mktemp("study")
    for name in ("sft", "rl", "rm"):
        shutil.copytree(pocket.path(name), folder / name)
    mergecore.merge([folder / "sft", folder / "rl"], "linear", out=folder / "mean")
    mergecore.extrapolate(folder / "sft", folder / "rl", alpha=9, out=folder / "strong")
    asked = chat.instructions(48)
    prompts = [{"id": f"p{i}", "instruction": a.text} for i, a in enumerate(asked)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    done = command(folder, *evaluate("mean", "strong", "sft", "rl"))
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def evaluate(*models, out="run", more=()):
    options = ["--prompts", "prompts.jsonl", "--reward-model", "rm", "--out", out]
    backend = ["--backend", "transformers", "--max-tokens", "60", "--batch-size", "24"]
    return ["evaluate", *models, *options, *backend, *more]


def test_the_strong_extrapolation_has_collapsed_and_the_mean_has_not(study):
    folder, _ = study
    models = json.loads((folder / "run/metrics.json").read_text())["models"]
    rates = {name: model["degeneration"]["rate"] for name, model in models.items()}
    means = {name: model["reward"]["mean"] for name, model in models.items()}
    assert rates["strong"] > max(rates["mean"], rates["sft"], rates["rl"]) + 0.2
    assert means["strong"] < min(means["mean"], means["sft"], means["rl"])
    for model in models.values():
        for key in ("reward", "degeneration", "degeneration_of_lowest", "length_capped"):
            low, high = model[key]["interval"]
            assert low <= model[key].get("mean", model[key].get("rate")) <= high


def test_merges_stand_beside_their_parents(study):
    folder, printed = study
    metrics = json.loads((folder / "run/metrics.json").read_text())
    assert metrics["models"]["mean"]["parents"] == ["sft", "rl"]
    pairs = {(pair["model"], pair["parent"]): pair for pair in metrics["comparisons"]}
    assert pairs.keys() == {(a, b) for a in ("mean", "strong") for b in ("sft", "rl")}
    assert pairs["strong", "sft"]["degeneration"]["p"] < 0.01
    assert pairs["strong", "sft"]["reward"]["interval"][1] < 0
    assert "strong − sft" in printed
    with (folder / "run/results.csv").open() as file:
        table = {row["model"]: row for row in csv.DictReader(file)}
    assert float(table["strong"]["reward"]) == metrics["models"]["strong"]["reward"]["mean"]


def test_the_same_command_again_makes_nothing(study):
    folder, printed = study
    before = (folder / "run/mean/responses.jsonl").stat().st_mtime_ns
    done = command(folder, *evaluate("mean", "strong", "sft", "rl"))
    assert done.stdout == printed
    assert (folder / "run/mean/responses.jsonl").stat().st_mtime_ns == before


def test_parents_are_found_by_the_manifest(study):
    folder, _ = study
    done = command(folder, *evaluate("mean", more=["--with-parents", "--json"]))
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["models"]) == ["mean", "sft", "rl"]


def test_other_decoding_does_not_mix_with_what_is_there(study):
    folder, _ = study
    done = command(folder, *evaluate("mean", more=["--temperature", "1"]))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error:")
    assert "--overwrite" in done.stderr


def test_a_broken_model_is_an_error_before_anything_is_answered(study):
    folder, _ = study
    shutil.copytree(folder / "sft", folder / "broken")
    (folder / "broken/chat_template.jinja").unlink()
    done = command(folder, *evaluate("broken", out="other"))
    assert done.returncode == 2
    assert "chat template" in done.stderr
    assert not (folder / "other").exists()


def test_outputs_in_alpaca_eval_s_form_are_judged(tmp_path):
    outputs = [
        {"instruction": "Say hi.", "output": "Hi there, how are you?", "generator": "m"},
        {"instruction": "Say hi.", "output": "hello friend " * 80, "generator": "m"},
        {"instruction": "Say hi.", "output": "", "generator": "m"},
    ]
    (tmp_path / "outputs.json").write_text(json.dumps(outputs))
    done = command(tmp_path, "judge", "outputs.json", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["n"], found["degenerate"], found["repetition"], found["nonsense"]) == (3, 2, 1, 1)
    assert "code_switching" in found


def test_only_the_lowest_are_judged(tmp_path):
    responses = [{"id": str(i), "instruction": "x", "output": f"Answer {i}."} for i in range(9)]
    rewards = [{"id": str(i), "reward": (i * 5) % 9} for i in range(9)]
    for name, table in (("r", responses), ("w", rewards)):
        lines = "".join(json.dumps(row) + "\n" for row in table)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    arguments = ["judge", "r.jsonl", "--lowest", "3", "--by", "w.jsonl", "--out", "v.jsonl"]
    assert command(tmp_path, *arguments).returncode == 0
    found = {row["id"] for row in rows.read(tmp_path / "v.jsonl")}
    assert found == {row["id"] for row in rewards if row["reward"] < 3}
    done = command(tmp_path, "judge", "r.jsonl", "--lowest", "3")
    assert done.returncode == 2
    assert "--by" in done.stderr


def test_folders_of_a_run_are_named_by_what_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commit = tmp_path / "models--o--n" / "snapshots" / "0123abc"
    commit.mkdir(parents=True)
    named = [evaluation.Subject(".", Path()), evaluation.Subject("o/n@v/1", commit)]
    assert [subject.name for subject in named] == [tmp_path.name, "n@v-1"]


def test_a_prompt_that_is_too_long_costs_no_other_its_figures(study):
    folder, _ = study
    asked = [
        {"id": "a", "instruction": "Copy the letters: a b"},
        {"id": "b", "instruction": "x " * 200},
    ]
    (folder / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    arguments = ["evaluate", "sft", "--prompts", "long.jsonl", "--out", "long"]
    done = command(folder, *arguments, "--backend", "transformers", "--max-tokens", "20")
    assert done.returncode == 0, done.stderr
    assert "1 of 2 prompts got no answer (b: " in done.stderr
    model = json.loads((folder / "long/metrics.json").read_text())["models"]["sft"]
    assert model["responses"] == model["judged"] == 1


def test_one_model_by_two_names_is_evaluated_once():
    models = {"rl": pocket.path("rl"), "sft": pocket.path("sft"), "rl/": pocket.path("rl") / "."}
    found = evaluation.subjects(models)
    assert [subject.reference for subject in found] == ["rl", "sft"]
