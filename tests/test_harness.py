"""Do the tasks of lm-evaluation-harness stand beside mergecore's own, its JSON as it was?"""

from __future__ import annotations

import importlib.util
import json
import sys
import types

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from mergecore import pocket
from mergecore.evaluate.backends.transformers import Transformers
from mergecore.evaluate.likelihood import Options, likelihoods
from mergecore.evaluate.tasks import harness

SFT = pocket.path("sft")
RESULTS = {
    "results": {"colours": {"acc,none": 0.5, "acc_stderr,none": 0.5}},
    "samples": {
        "colours": [
            {"doc_id": n, "target": n, "filtered_resps": ["red"], "filter": kind, "acc": acc,
             "metrics": ["acc"]}
            for kind, accs in (("none", (1.0, 0.0)), ("strict", (0.0, 0.0)))
            for n, acc in enumerate(accs)
        ]
    },
    "versions": {"colours": 2},
}  # fmt: skip


@pytest.fixture
def stand_in(monkeypatch):
    """A harness that knows one task; the calls that it got."""
    calls = []

    def simple_evaluate(**given):
        calls.append(given)
        if given["limit"] == 7:
            raise ValueError("Attempted to run task: colours which is marked as unsafe.")
        return RESULTS

    manager = types.SimpleNamespace(all_tasks=["colours"])
    modules = {
        "lm_eval": {"simple_evaluate": simple_evaluate},
        "lm_eval.tasks": {"TaskManager": lambda **_: manager},
        "lm_eval.utils": {"handle_non_serializable": str},
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(harness, "is_installed", lambda _: True)
    monkeypatch.setattr(harness, "_model", lambda *_: "model")
    return calls


def test_rows_are_added_and_the_json_is_kept(command, stand_in, tmp_path):
    line = ["tasks", SFT, "--tasks", "colours", "--out", "t.jsonl", "--few-shot", "colours=2"]
    (found,) = json.loads(command(*line, "--json").out)["tasks"]
    assert (found["task"], found["n"], found["score"], found["metric"]) == (
        "colours",
        2,
        0.5,
        "acc",
    )
    assert found["harness"] == RESULTS["results"]["colours"]
    assert json.loads((tmp_path / "t.jsonl.colours.json").read_text()) == RESULTS
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert rows[0] == {
        "id": "colours/0", "task": "colours", "prediction": ["red"], "reference": 0, "score": 1.0,
        "metric": "acc",
    }  # fmt: skip
    assert stand_in[0]["num_fewshot"] == 2
    assert stand_in[0]["apply_chat_template"] is False


def test_what_is_there_is_not_run_again(command, refused, stand_in, tmp_path):
    line = ["tasks", SFT, "--tasks", "harness:colours", "--out", "t.jsonl"]
    assert command(*line).status == 0
    assert command(*line).status == 0
    assert len(stand_in) == 1
    lines = (tmp_path / "t.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "t.jsonl").write_text(lines[0])  # killed between its rows
    assert command(*line).status == 0
    assert (tmp_path / "t.jsonl").read_text().splitlines(keepends=True) == lines
    assert len(stand_in) == 1
    assert "harness" in refused(*line, "--limit", "1")
    assert command(*line, "--overwrite", "--chat-template", "own").status == 0
    assert len(stand_in) == 2
    assert stand_in[1]["apply_chat_template"] is True


def test_its_own_task_of_a_name_that_mergecore_has(command, stand_in, monkeypatch, tmp_path):
    task = "gsm8k"
    monkeypatch.setitem(RESULTS, "samples", {task: RESULTS["samples"]["colours"]})
    monkeypatch.setitem(RESULTS, "results", {task: {}})
    sys.modules["lm_eval.tasks"].TaskManager().all_tasks.append(task)
    (tmp_path / "sum.jsonl").write_text('{"question": "1 + 1?", "answer": "#### 2"}\n')
    line = ["tasks", SFT, "--tasks", "gsm8k,harness:gsm8k", "--data", "gsm8k=sum.jsonl", "--out",
            "t.jsonl", "--max-tokens", "2"]  # fmt: skip
    for calls in (1, 1):
        found = json.loads(command(*line, "--json").out)["tasks"]
        assert [entry["task"] for entry in found] == ["gsm8k", "harness:gsm8k"]
        assert [entry["n"] for entry in found] == [1, 2]
        assert len(stand_in) == calls
    ids = [json.loads(row)["id"] for row in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert ids == ["gsm8k/0", "harness:gsm8k/0", "harness:gsm8k/1"]


def test_what_it_cannot_run_is_one_line(command, refused, stand_in):
    line = ["tasks", SFT, "--tasks", "colours", "--out", "t.jsonl"]
    answer = command(*line, "--limit", "7", "--allow-code-execution")
    assert answer.status == 1
    assert answer.err.count("\n") == 1
    assert "without a sandbox" in answer.err
    assert "knows no --chat-template" in refused(*line, "--chat-template", "chatml")
    assert "neither mergecore nor lm-evaluation-harness" in refused(
        "tasks", SFT, "--tasks", "color"
    )


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed")
@pytest.mark.filterwarnings("ignore")
def test_the_harness_itself(command, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "words.json").write_text(
        json.dumps([{"q": "sort: b a =", "a": 0}, {"q": "sort: c a =", "a": 1}])
    )
    (tmp_path / "words.yaml").write_text(
        "task: words\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path}/words.json}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{q}}'\n"
        "doc_to_target: '{{a}}'\ndoc_to_choice: [a b, x]\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    answer = command("tasks", SFT, "--tasks", "words", "--dtype", "float32", "--include-path",
                     tmp_path, "--out", "t.jsonl", "--json")  # fmt: skip
    assert answer.status == 0, answer.err
    (found,) = json.loads(answer.out)["tasks"]
    assert (found["n"], found["method"]) == (2, "wilson")
    kept = json.loads((tmp_path / "t.jsonl.words.json").read_text())
    assert kept["results"]["words"]["acc,none"] == found["score"]
    # It finds the same log-likelihoods of the same text.
    ours = {}
    model = Transformers(SFT, "sft", template="none", dtype="float32")
    items = [Options(n, f"sort: {n} a =", ("a b", "x")) for n in ("b", "c")]
    likelihoods(model, items, lambda *told: ours.update((found.id, found.values) for found in told))
    theirs = [
        [value for value, _ in sample["filtered_resps"]] for sample in kept["samples"]["words"]
    ]
    for found, expected in zip(ours.values(), theirs, strict=True):
        assert list(found) == pytest.approx(expected, abs=1e-3)
