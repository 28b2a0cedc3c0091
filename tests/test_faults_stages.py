"""Does a sweep or a stage that is killed, again and again, end with the very rows it would have?

The processes are forked from one that has imported torch, which else is most of their time.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import sys
import time

import pytest

import test_sweep
from faults import KILLS
from mergecore import pocket
from mergecore.pocket import chat

pytest.importorskip("torch", exc_type=ImportError, reason="the extra `generate`")
pytest.importorskip("transformers", reason="the extra `generate`")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks a process with torch in it")

ASKED = 24


def _run(arguments, place):
    """The command line, quiet, in a process that was forked."""
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    import torch

    torch.set_num_threads(1)
    errors = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    from mergecore.cli import main

    sys.exit(main(arguments))


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    """Begins commands; what they say goes to a file."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["torch", "transformers", "transformers.models.llama.modeling_llama", "pyarrow.parquet",
         "mergecore.cli.generate", "mergecore.cli.sweep", "mergecore.evaluate.evaluation",
         "mergecore.evaluate.backends.transformers", "mergecore.evaluate.scorers",
         "mergecore.evaluate.tasks.request", "mergecore.study.work"]
    )  # fmt: skip

    def begin(arguments, place):
        process = context.Process(target=_run, args=([str(a) for a in arguments], place))
        process.start()
        return process

    said = tmp_path_factory.mktemp("first") / "said"
    finished(begin(["methods"], said), said)  # it waits for the imports, and no other does
    return begin


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Prompts, responses to them, and sums to do."""
    folder = tmp_path_factory.mktemp("inputs")
    asked = [a.text for a in chat.instructions(ASKED)]
    rows = {
        "prompts": [{"id": str(i), "instruction": text} for i, text in enumerate(asked)],
        "responses": [{"id": str(i), "model": "m", "instruction": text, "output": f"{text} " * 4}
                      for i, text in enumerate(asked * 12)],
        "few": [{"id": str(i), "instruction": text, "output": f"{text} " * 2}
                for i, text in enumerate(asked * 4)],
        "sums": [{"question": f"What is {n} plus {n}?", "answer": f"Twice.\n#### {2 * n}"}
                 for n in range(ASKED)],
    }  # fmt: skip
    for name, listed in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
    return folder


def stages(inputs, out):
    sft, rm = pocket.path("sft"), pocket.path("rm")
    found = {
        "generate": ["generate", sft, "--prompts", inputs / "prompts.jsonl", "--max-tokens", "12",
                     "--backend", "transformers", "--batch-size", "2", "--out", out],
        "reward": ["reward", inputs / "few.jsonl", "--model", rm, "--batch-size", "4",
                   "--backend", "transformers", "--out", out],
        "judge": ["judge", inputs / "responses.jsonl", "--out", out],
        "tasks": ["tasks", sft, "--tasks", "gsm8k", "--data", f"gsm8k={inputs / 'sums.jsonl'}",
                  "--max-tokens", "12", "--batch-size", "2", "--out", out],
    }  # fmt: skip
    return {name: [*command, "--quiet"] for name, command in found.items()}


def finished(process, said):
    process.join(120)
    assert process.exitcode == 0, said.read_text()


def rows(file):
    """By id, in whatever order they were made; none twice, and every line whole."""
    listed = [json.loads(line) for line in file.read_text().splitlines()]
    by_id = {row["id"]: row for row in listed}
    assert len(by_id) == len(listed)
    return by_id


@pytest.mark.parametrize("stage", ["generate", "reward", "judge", "tasks"])
def test_kills_of_a_stage_lose_no_row_and_make_none_twice(stage, inputs, forks, tmp_path):
    calm, out, said = tmp_path / "calm.jsonl", tmp_path / "out.jsonl", tmp_path / "said"
    begun = time.monotonic()
    finished(forks(stages(inputs, calm)[stage], said), said)
    length = time.monotonic() - begun
    expected, moments = rows(calm), random.Random(stage)
    halves = 0
    for _ in range(KILLS // 5):
        process = forks(stages(inputs, out)[stage], said)
        time.sleep(moments.uniform(0, length))
        process.kill()
        process.join()
        there = out.read_text().splitlines(keepends=True) if out.exists() else []
        whole = [json.loads(line) for line in there if line.endswith("\n")]
        assert all(expected[row["id"]] == row for row in whole)
        halves += 0 < len(whole) < len(expected)
        if len(whole) == len(expected):
            out.unlink()
    finished(forks(stages(inputs, out)[stage], said), said)
    assert rows(out) == expected
    assert halves, "no kill came while rows were written"


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "folders"])
def test_kills_of_a_sweep_leave_the_same_table(stream, forks, tmp_path):
    pytest.importorskip("pyarrow", reason="the extra report is not installed")
    file = test_sweep.written(tmp_path, test_sweep.content(tmp_path, [0.3, 0.8], stream=stream))
    calm, run, said = tmp_path / "calm", tmp_path / "run", tmp_path / "said"
    begun = time.monotonic()
    finished(forks(["sweep", file, "--out", calm, "--quiet"], said), said)
    length = time.monotonic() - begun
    moments = random.Random(stream)
    for _ in range(KILLS // 10):
        process = forks(["sweep", file, "--out", run, "--quiet"], said)
        time.sleep(moments.uniform(0, length))
        process.kill()
        process.join()
        if moments.random() < 0.3:
            finished(forks(["sweep", file, "--out", run, "--quiet"], said), said)
            assert test_sweep.answers(run) == test_sweep.answers(calm)
            assert not (run / "weights").exists()
            shutil.rmtree(run)
    finished(forks(["sweep", file, "--out", run, "--quiet"], said), said)
    assert test_sweep.answers(run) == test_sweep.answers(calm)
    assert not (run / "weights").exists()
    for stage in ("answers", "rewards", "verdicts"):
        assert {f.name: rows(f) for f in (run / stage).glob("*.jsonl")} == {
            f.name: rows(f) for f in (calm / stage).glob("*.jsonl")
        }
