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


SWEEP = """
import json, sys
from mergecore import many, merging
from mergecore.evaluate.backends import vllm
from mergecore.study import spec, sweep

starts, own = [], vllm.engine_of
def counted(*given, **more):
    starts.append(given[0])
    return own(*given, **more)
vllm.engine_of = counted
if sys.argv[1] == "stream":
    def refused(*given, **more):
        raise AssertionError("a merge is written")
    merging.run = many.merge_many = refused
if __name__ == "__main__":
    swept = sweep.run(spec.load(sys.argv[1] + ".json"), sys.argv[1])
    print(json.dumps({"starts": len(starts), "failed": swept.failed}))
"""


def script(folder: Path, text: str, *arguments: str) -> dict:
    (folder / "script.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "script.py", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_sweep_starts_one_engine_and_writes_no_weights(tmp_path):
    pytest.importorskip("pyarrow", reason="the extra report is not installed")
    asked = enumerate(a.text for a in chat.instructions(12))
    lines = [json.dumps({"id": str(i), "instruction": text}) for i, text in asked]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    recipe = {
        "merge_method": "task_arithmetic",
        "base_model": str(pocket.path("sft")),
        "onto": str(pocket.path("rl")),
        "models": [{"model": str(pocket.path("rl")), "parameters": {"weight": 1.0}}],
        "parameters": {"lambda": "{alpha}"},
    }
    said = {
        "merges": [{"grid": {"alpha": [0, 0.3, 0.6, 1, 2, 4]}, "recipe": recipe}],
        "stages": {
            "generate": {
                "prompts": "prompts.jsonl", "max_tokens": 32, "temperature": 0, "backend": "vllm",
            },
        },
    }  # fmt: skip
    found = {}
    for name, streams in (("stream", True), ("disk", False)):
        (tmp_path / f"{name}.json").write_text(json.dumps({**said, "stream": streams}))
        found[name] = script(tmp_path, SWEEP, name)
    assert found["stream"] == {"starts": 1, "failed": {}}
    assert found["disk"] == {"starts": 6, "failed": {}}
    one, other = (
        {f.name: rows.read(f) for f in (tmp_path / name / "answers").glob("*.jsonl")}
        for name in ("stream", "disk")
    )
    assert len(one) == 6
    assert one == other
    assert len({str([row["output"] for row in answers]) for answers in one.values()}) > 1
    assert not list((tmp_path / "stream").rglob("*.safetensors"))


SWAP = """
import json, shutil, gc, weakref
from pathlib import Path
import mergecore
from mergecore import pocket
from mergecore.errors import ModelError
from mergecore.evaluate.backends.vllm import VllmEngine
from safetensors.torch import load_file, save_file

def untied(name):
    folder = Path("untied-" + name)
    shutil.copytree(pocket.path(name), folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * 1.5
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    return str(folder)

def main():
    found, engines = {}, []
    for kind, place in (("tied", lambda name: str(pocket.path(name))), ("untied", untied)):
        a, b = place("sft"), place("rl")
        models = [{"model": a}, {"model": b}]
        recipe = lambda t: {"merge_method": "slerp", "models": models, "parameters": {"t": t}}
        fresh = []
        for t in (0.0, 1.0):
            mergecore.run(recipe(t), f"{kind}-{t}")
            engine = VllmEngine(Path(f"{kind}-{t}"), kind, dtype="float32")
            fresh.append(engine._probe())
            engines.append(weakref.ref(engine.llm))
            if t == 0.0:
                del engine
                gc.collect()
        # The engine that runs was started on a folder, and is given others' weights, and its own.
        swapped = []
        for t in (0.0, 1.0, 0.0):
            report = engine.swap(recipe(t))
            swapped.append(engine._probe())
        found[kind] = {"fresh": fresh, "swapped": swapped, "written": report.bytes_written}
        if kind == "untied":
            tied = [{"model": str(pocket.path(name))} for name in ("sft", "rl")]
            try:
                engine.swap({**recipe(0.5), "models": tied})
            except ModelError as error:
                found[kind]["refused"] = str(error)
            found[kind]["after"] = engine._probe()
        del engine
        gc.collect()
    found["alive"] = [engine() is not None for engine in engines]
    print(json.dumps(found))

if __name__ == "__main__":
    main()
"""


def test_swapped_weights_are_those_of_a_fresh_engine(tmp_path):
    """All of them: a head that goes on with the weights of before has other log-probabilities,
    which come back, too."""
    found = script(tmp_path, SWAP)
    assert not any(found.pop("alive")), "an engine that was let go of stays in memory"
    for kind in ("tied", "untied"):
        one, other = found[kind]["fresh"]
        assert one != other
        for swapped, fresh in zip(found[kind]["swapped"], (one, other, one), strict=True):
            assert swapped == pytest.approx(fresh, abs=1e-5), kind
        assert found[kind]["written"] == 0
    assert "config.json" in found["untied"]["refused"]
    assert found["untied"]["after"] == found["untied"]["swapped"][-1]  # nothing was changed
