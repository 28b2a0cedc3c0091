"""Does a sweep run what its file says, once, whatever happens on the way?"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from mergecore import pocket
from mergecore.errors import ModelError, RecipeError
from mergecore.evaluate.backends import NotTakenError, Reply
from mergecore.evaluate.backends.transformers import Transformers
from mergecore.pocket import chat
from mergecore.study import grid, spec, work

pytest.importorskip("pyarrow", reason="the extra report is not installed")
pytest.importorskip("torch", reason="the extra generate is not installed")


def recipe(**more):
    return {
        "merge_method": "task_arithmetic",
        "base_model": "sft",
        "onto": "rl",
        "models": [{"model": "rl", "parameters": {"weight": 1.0}}],
        "parameters": {"lambda": "{alpha}"},
        **more,
    }


def content(folder, alphas, **more):
    prompts = folder / "prompts.jsonl"
    if not prompts.exists():
        asked = enumerate(a.text for a in chat.instructions(6))
        rows = [json.dumps({"id": str(i), "instruction": text}) for i, text in asked]
        prompts.write_text("\n".join(rows) + "\n")
    return {
        "models": {"sft": str(pocket.path("sft")), "rl": str(pocket.path("rl"))},
        "evaluate": ["sft"],
        "merges": [{"name": "expo {alpha}", "grid": {"alpha": alphas}, "recipe": recipe()}],
        "stages": {
            "generate": {"prompts": str(prompts), "max_tokens": 8, "backend": "transformers"},
            "reward": {"model": str(pocket.path("rm")), "backend": "transformers"},
            "judge": {"who": "rules"},
        },
        **more,
    }


def written(folder, said):
    file = folder / "sweep.yml"
    file.write_text(yaml.safe_dump(said))
    return file


def table(run):
    import pyarrow.parquet as pq

    return {row["configuration"]: row for row in pq.read_table(run / "results.parquet").to_pylist()}


def answers(run):
    """The table but for what a run took, which an interruption changes."""
    taken = ("_seconds", "_rss", "_read", "_written")
    return [{k: v for k, v in row.items() if not k.endswith(taken)} for row in table(run).values()]


def files(run):
    """When every row of the run was written."""
    found = list(run.rglob("*.jsonl"))
    return {str(f.relative_to(run)): f.stat().st_mtime_ns for f in found}


def test_a_grid_is_every_combination():
    found = grid.points({"a": [1, 2], "b": ["x", "y"]}, "here")
    assert found == [{"a": a, "b": b} for a, b in itertools.product([1, 2], "xy")]
    assert grid.points([{"a": [1]}, {"b": [2, 3]}], "here") == [{"a": 1}, {"b": 2}, {"b": 3}]
    assert grid.points({}, "here") == [{}]
    pairs = grid.points({"m": {"pairs": ["p", "q", "r"]}}, "here")
    assert [point["m"] for point in pairs] == [["p", "q"], ["p", "r"], ["q", "r"]]


def test_subsets_are_different_and_the_same_for_the_same_seed():
    asked = {"subsets": list("abcdefgh"), "sizes": [2, 4, 8], "count": 15, "seed": 1}
    found = [point["m"] for point in grid.points({"m": asked}, "here")]
    assert [len(group) for group in found] == [2] * 15 + [4] * 15 + [8]
    assert len({tuple(group) for group in found}) == len(found)
    assert found == [point["m"] for point in grid.points({"m": asked}, "here")]
    assert found != [point["m"] for point in grid.points({"m": {**asked, "seed": 2}}, "here")]


def test_a_value_keeps_its_type_and_braces_of_templates_stay():
    point = {"alpha": 0.5, "group": ["a", "b"]}
    template = {"lambda": "{alpha}", "text": "{{ x }}-{alpha}-{group}", "models": ["{group}"]}
    assert grid.filled(template, point, "here") == {
        "lambda": 0.5,
        "text": "{{ x }}-0.5-a+b",
        "models": [["a", "b"]],
    }
    with pytest.raises(RecipeError, match=r"did you mean \{alpha\}"):
        grid.filled("{alhpa}", point, "here")


def test_a_group_becomes_the_models_of_a_recipe(tmp_path):
    said = content(tmp_path, [1])
    merge = {
        "grid": {"group": {"pairs": ["sft", "rl"]}},
        "recipe": {
            "merge_method": "linear",
            "models": [{"model": "{group}", "parameters": {"weight": 1}}],
        },
    }
    found = spec.parse({**said, "merges": [merge]}, "here").configurations[1]
    models = [{"model": str(pocket.path(m)), "parameters": {"weight": 1}} for m in ("sft", "rl")]
    assert found.recipe[0]["models"] == models
    assert (found.name, found.parents) == ("group=sft+rl", tuple(m["model"] for m in models))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mergse": []}, 'did you mean "merges"'),
        ({"stages": {"generate": {"prompt": "x"}}}, 'did you mean "prompts"'),
        ({"stages": {"judge": {}}}, "judge needs answers"),
        ({"stages": {"generate": {"prompts": "x", "max_tokens": "many"}}}, "max_tokens is 'many'"),
        ({"stages": {"generate": {"prompts": "x", "top_p": 7}}}, "top_p"),
        ({"stages": {"tasks": {}}}, "names are the tasks"),
        ({"merges": [{"name": "same", "grid": {"alpha": [1, 2]}, "recipe": recipe()}]}, "'same'"),
        ({"merges": [{"recipe": 3}]}, "its recipe is a mapping"),
        ({"merges": [{"grid": {"a": 3}, "recipe": {}}]}, "list of values"),
        ({"merges": [], "evaluate": []}, "nothing is to be run"),
        ({"keep": "yes"}, "true or false"),
        ({"evaluate": [{"model": "x"}]}, "is no text"),
        ({"evaluate": ["stf"]}, 'did you mean "sft"'),
        ({"merges": [{"name": {"w": None}, "recipe": {}}]}, "quote it"),
        ({"merges": [{"grid": {"w": [1]}, "recipe": {"merge_method": "linear"}}]}, "has no {w}"),
        ({"merges": [{"grid": [], "recipe": {}}]}, "no combination"),
        ({"stages": {"generate": {"prompts": "x", "batch_size": 0}}}, "1 or more"),
        ({"stages": {"tasks": {"names": ["gsm8k"], "data": "x"}}}, "data is 'x'"),
        ({"resources": {"cpus": -1}}, "0 or more"),
    ],
)
def test_what_a_file_says_wrong_is_refused_by_name(tmp_path, change, words):
    with pytest.raises(RecipeError, match=words):
        spec.parse({**content(tmp_path, [1]), **change}, "here")


def test_a_sweep_is_resumed_and_only_what_changed_is_run_again(tmp_path, command):
    run = tmp_path / "run"
    file = written(tmp_path, content(tmp_path, [0.3, 8.0]))
    told = command("sweep", file, "--out", run, "--dry-run")
    assert (told.status, run.exists()) == (0, False)
    assert "3, 3 to do" in told.out
    first = command("sweep", file, "--out", run)
    assert first.status == 0, first.err
    rows = table(run)
    assert list(rows) == ["sft", "expo 0.3", "expo 8.0"]
    assert rows["expo 8.0"]["delta_norm"] > rows["expo 0.3"]["delta_norm"] > 0
    assert rows["expo 8.0"]["reward"] < rows["expo 0.3"]["reward"]
    assert rows["sft"]["kind"] == "model"
    assert rows["expo 0.3"]["grid.alpha"] == 0.3
    assert rows["expo 0.3"]["responses"] == rows["expo 0.3"]["judged"] == 6
    assert not (run / "weights").exists(), "merged weights are deleted"
    before = files(run)
    again = command("sweep", file, "--out", run)
    assert again.status == 0
    assert "answers" not in again.err
    assert "3, 0 to do" in again.err + again.out
    assert files(run) == before
    # One value more, the others stay; a reward less, and answers stay.
    more = content(tmp_path, [0.3, 8.0, 1.0])
    del more["stages"]["reward"]
    assert command("sweep", written(tmp_path, more), "--out", run, "--quiet").status == 0
    after = files(run)
    assert {name: after[name] for name in before} == before
    assert table(run)["expo 1.0"]["reward"] is None


def test_a_failure_is_a_row_and_not_the_end(tmp_path, command):
    said = content(tmp_path, [0.3])
    said["evaluate"] = []
    gone = {"merge_method": "linear", "models": ["rl", str(tmp_path / "gone")]}
    odd = {"merge_method": "linear", "models": ["rl", str(pocket.path("rm"))]}
    said["merges"] += [{"name": "gone", "recipe": gone}, {"name": "odd", "recipe": odd}]
    del said["stages"]["reward"]
    answer = command("sweep", written(tmp_path, said), "--out", tmp_path / "run")
    assert answer.status == 1
    rows = table(tmp_path / "run")
    assert [row["status"] for row in rows.values()] == ["done", "failed", "failed"]
    assert "no such file" in rows["gone"]["error"]
    assert rows["odd"]["error"]


def test_places_are_no_part_of_an_address_and_contents_are(tmp_path):
    import shutil

    from mergecore.study import address

    copied = tmp_path / "elsewhere"
    shutil.copytree(pocket.path("rl"), copied)
    said = content(tmp_path, [0.3])
    moved = {**said, "models": {**said["models"], "rl": str(copied)}}
    one, other = (spec.parse(s, "here").configurations[1] for s in (said, moved))
    assert one.recipe != other.recipe
    assert address.of_weights(one) == address.of_weights(other)
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "rope_theta": 5e5}))
    assert address.of_weights(one) != address.of_weights(other)


def test_killed_at_any_moment_the_same_command_goes_on(tmp_path, command):
    said = content(tmp_path, [0.3, 0.8])
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    file = written(tmp_path, said)
    assert command("sweep", file, "--out", calm, "--quiet").status == 0
    order = [sys.executable, "-m", "mergecore", "sweep", str(file), "--out", str(killed), "--quiet"]
    for wanted in ("*.yml", "answers/*.jsonl", "rewards/*.jsonl"):
        process = subprocess.Popen(order, cwd=tmp_path)
        deadline = time.monotonic() + 120
        while not list(killed.rglob(wanted)) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert command("sweep", file, "--out", killed, "--quiet").status == 0
    assert answers(calm) == answers(killed)


def test_every_column_says_what_it_is(tmp_path, command):
    import pyarrow.parquet as pq

    said = content(tmp_path, [0.3])
    said["stages"] = {"generate": said["stages"]["generate"]}
    assert command("sweep", written(tmp_path, said), "--out", tmp_path / "r", "--quiet").status == 0
    schema = pq.read_schema(tmp_path / "r" / "results.parquet")
    assert all(field.metadata[b"description"] for field in schema)


def test_a_cluster_that_loses_a_node_ends_with_the_same_table(tmp_path, command):
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    from ray.cluster_utils import Cluster

    from mergecore.study import sweep as sweeps

    said = content(tmp_path, [0.3, 0.8, 1.5])
    calm = tmp_path / "calm"
    file = written(tmp_path, said)
    assert command("sweep", file, "--out", calm, "--quiet").status == 0
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        lost: list[str] = []

        def lose_it(what):
            if not lost:
                lost.append(what)
                cluster.remove_node(second, allow_graceful=False)

        done = sweeps.run(spec.load(file), tmp_path / "ray", engine="ray", announce=lose_it)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert lost, "no node was lost on the way"
    assert done.failed == {}
    assert answers(calm) == answers(tmp_path / "ray")


def test_the_documented_columns_are_the_table_s():
    from pathlib import Path

    from mergecore.study.table import COLUMNS

    text = (Path(__file__).parents[1] / "docs" / "sweeps.md").read_text("utf-8")
    for name, (kind, about) in COLUMNS.items():
        assert f"| {name} | {'list of string' if kind == 'list' else kind} | {about} |" in text


def test_what_decides_a_result_is_in_its_address(tmp_path):
    from mergecore.study.work import Work

    template = tmp_path / "t.jinja"
    template.write_text("one")
    said = content(tmp_path, [0.3])
    said["stages"]["generate"]["chat_template"] = str(template)

    def place():
        parsed = spec.parse(said, "here")
        return Work(parsed, tmp_path / "run").answers(parsed.configurations[0])

    first = place()
    template.write_text("two")
    assert place() != first


def test_a_missing_reward_model_or_task_is_said_before_the_first_merge(tmp_path, command):
    run = tmp_path / "run"
    said = content(tmp_path, [0.3])
    said["stages"]["reward"]["model"] = str(tmp_path / "none")
    answer = command("sweep", written(tmp_path, said), "--out", run)
    assert (answer.status, "no such file" in answer.err) == (2, True)
    del said["stages"]["reward"]
    said["stages"]["tasks"] = {"names": ["gsm9k"]}
    answer = command("sweep", written(tmp_path, said), "--out", run)
    assert (answer.status, "gsm9k" in answer.err) == (2, True)
    assert not (run / "merges").exists()


def test_a_raised_limit_is_told_and_done_and_weights_are_kept_if_asked(tmp_path, command):
    run = tmp_path / "run"
    file = written(tmp_path, content(tmp_path, [0.3]))
    assert command("sweep", file, "--out", run, "--limit", 2, "--quiet").status == 0
    told = json.loads(command("sweep", file, "--out", run, "--dry-run", "--json").out)
    assert (told["left"], told["merges"]) == (2, 1)
    assert command("sweep", file, "--out", run, "--quiet").status == 0
    assert {row["responses"] for row in table(run).values()} == {6}
    assert command("sweep", file, "--out", run, "--keep", "--quiet").status == 0
    assert len(list((run / "weights").iterdir())) == 1


def test_merges_that_share_models_are_made_in_one_reading(tmp_path, command):
    said = content(tmp_path, [0.3, 0.5, 0.8, 1.0, 2.0], keep=True, stages={})
    del said["evaluate"]
    odd = {"merge_method": "linear", "models": ["rl", str(pocket.path("rm"))]}
    said["merges"] += [{"name": "odd", "recipe": odd}]
    together = command("sweep", written(tmp_path, said), "--out", "together")
    assert together.status == 1, "one of them cannot be merged"
    assert "[1/5] expo 0.3: merge, and the next 3" in together.err
    alone = command("sweep", written(tmp_path, {**said, "together": 1}), "--out", "alone")
    assert "and the next" not in alone.err
    rows = [table(tmp_path / name) for name in ("together", "alone")]
    assert [row["status"] for row in rows[0].values()] == ["done"] * 5 + ["failed"]
    for name in list(rows[0])[:5]:
        made = [
            (tmp_path / run / "weights" / rows[0][name]["weights"] / "model.safetensors")
            for run in ("together", "alone")
        ]
        assert made[0].read_bytes() == made[1].read_bytes()
        assert rows[0][name]["delta_norm"] == rows[1][name]["delta_norm"]


def test_parts_labels_and_models_as_they_are_of_a_grid():
    pair = {"name": "p", "sft": "org/sft", "rl": "org/rl"}
    said = {
        "merges": [
            {"name": "{pair} {alpha}", "labels": {"kind": "as it is"}, "model": "{pair.rl}",
             "grid": {"pair": [pair], "alpha": [0.0]}},
            {"name": "{group} TIES", "grid": {"group": [[pair, {**pair, "name": "q"}]]},
             "tasks": ["{group.*.name}"],
             "recipe": {"merge_method": "linear", "models": "{group.*.sft}"}},
        ],
        "stages": {"tasks": {"names": ["p", "q", "r"]}},
    }  # fmt: skip
    one, two = spec.parse(said, "here").configurations
    assert (one.name, one.model, one.point["kind"]) == ("p 0.0", "org/rl", "as it is")
    assert (two.name, two.tasks) == ("p+q TIES", ("p", "q"))
    assert [entry["model"] for entry in two.recipe[0]["models"]] == ["org/sft", "org/sft"]
    said["merges"][1]["tasks"] = ["qq"]
    with pytest.raises(RecipeError, match='did you mean "q"'):
        spec.parse(said, "here")
    said["merges"][1]["tasks"] = ["{group.0.nam}"]
    with pytest.raises(RecipeError, match="there is no 'nam' in p"):
        spec.parse(said, "here")


def dying(group):
    """What a worker does whose process is killed at one of the configurations."""
    if group[0].name == "expo 0.5":
        os.kill(os.getpid(), signal.SIGKILL)
    return {"expo 0.8": "as it says"} if group[0].name == "expo 0.8" else {}


def test_a_killed_process_costs_its_own_configuration_alone(tmp_path, monkeypatch):
    from mergecore.study import pool
    from mergecore.study.work import Work

    monkeypatch.setattr(pool, "_configurations", dying)
    said = content(tmp_path, [0.3, 0.5, 0.8, 1.0, 2.0], stages={})
    said["evaluate"] = []
    work = Work(spec.parse(said, "here"), tmp_path / "run")
    told = []
    failed = pool.run(work, work.sweep.configurations, 2, told.append)
    assert set(failed) == {"expo 0.5", "expo 0.8"}
    assert "killed" in failed["expo 0.5"]
    assert len(told) == 5
    assert told[-1].startswith("[5/5]")


@pytest.mark.parametrize("backend", ["transformers", "harness"])
def test_merges_into_memory_give_what_merges_into_folders_give(tmp_path, command, backend):
    said = content(tmp_path, [0.5, 1.5])
    said["stages"]["tasks"] = tasks_of(tmp_path, backend)
    found = {}
    for name, streams in (("memory", True), ("folders", False)):
        file = written(tmp_path, {**said, "stream": streams})
        assert command("sweep", file, "--out", name, "--quiet").status == 0
        found[name] = answers(tmp_path / name)
        told = table(tmp_path / name)["expo 0.5"]
        assert (told["merge_bytes_written"] == 0) == streams
    for one, other in zip(found["memory"], found["folders"], strict=True):
        assert one == other
    assert not list((tmp_path / "memory").rglob("*.safetensors"))


def tasks_of(folder, kind):
    if kind == "harness":
        pytest.importorskip("lm_eval", reason="the extra tasks is not installed")
        (folder / "docs.jsonl").write_text(
            "".join(
                json.dumps({"q": f"Copy the letters: {a} b", "a": f"{a} b"}) + "\n" for a in "cde"
            )
        )
        (folder / "own").mkdir()
        (folder / "own" / "copying.yaml").write_text(
            "task: copying\ndataset_path: json\ndataset_kwargs: {data_files: {test: "
            + str(folder / "docs.jsonl")
            + "}}\ntest_split: test\noutput_type: multiple_choice\n"
            'doc_to_text: "{{q}}"\ndoc_to_target: 0\ndoc_to_choice: ["{{a}}", "x y"]\n'
            "metric_list: [{metric: acc}]\n"
        )
        return {"names": ["copying"], "include_path": str(folder / "own")}
    rows = [{"instruction": f"Copy the letters: {a} b", "reference": f"{a} b"} for a in "cde"]
    (folder / "copies.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"names": ["exact"], "data": {"exact": str(folder / "copies.jsonl")}}


class Engine:
    """In the place of vLLM: answers with how often it was given weights."""

    name = "vllm"

    def __init__(self, takes):
        self.given, self.takes = 1, takes

    def swap(self, merged):
        assert dict(merged)
        self.given += 1
        if self.given > self.takes:
            raise NotTakenError("it has not taken the weights")

    def answer(self, requests, decoding, tell):
        for request in requests:
            tell(Reply(request.id, f"{self.given}", "stop", 1, 1))


@pytest.fixture
def engines(monkeypatch):
    """Those that are started; each takes weights as often as `takes` says."""
    started = []

    def start(model, *given, merged=None, **more):
        def make():
            started.append(Engine(started_with["takes"]))
            if merged is not None:
                assert dict(merged())
            return started[-1]

        return make, {}

    started_with = {"takes": 100}
    monkeypatch.setattr(work.loading, "backend_of", start)
    started_with["started"] = started
    return started_with


def plain(folder, alphas):
    said = content(folder, alphas, evaluate=[])
    del said["stages"]["reward"], said["stages"]["judge"]
    return written(folder, said)


def test_one_engine_takes_every_merge(tmp_path, command, engines):
    assert command("sweep", plain(tmp_path, [0.1, 0.2, 0.3]), "--out", "run").status == 0
    assert len(engines["started"]) == 1
    assert engines["started"][0].given == 4  # the first once more, in the end
    assert all(row["merge_bytes_written"] == 0 for row in table(tmp_path / "run").values())


def test_what_an_engine_does_not_take_is_merged_into_a_folder(tmp_path, command, engines):
    engines["takes"] = 2
    assert command("sweep", plain(tmp_path, [0.1, 0.2, 0.3, 0.4]), "--out", "run").status == 1
    rows = table(tmp_path / "run")
    # Nobody knows what it had taken before: what it has answered is asked anew by the next call.
    assert [row["status"] for row in rows.values()] == ["failed", "failed", "done", "done"]
    assert [row["merge_bytes_written"] > 0 for row in rows.values()] == [False, False, True, True]
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_an_engine_that_forgets_its_first_weights_has_answered_for_nobody(
    tmp_path, command, engines
):
    engines["takes"] = 3
    file = plain(tmp_path, [0.1, 0.2, 0.3])
    answer = command("sweep", file, "--out", "run")
    assert answer.status == 1
    assert {row["status"] for row in table(tmp_path / "run").values()} == {"failed"}
    assert "not taken" in table(tmp_path / "run")["expo 0.2"]["error"]
    assert "stream: false" in table(tmp_path / "run")["expo 0.2"]["error"]
    assert not list((tmp_path / "run" / "answers").glob("*.jsonl"))
    engines["takes"] = 100
    assert command("sweep", file, "--out", "run").status == 0
    assert {row["responses"] for row in table(tmp_path / "run").values()} == {6}


def test_equal_weights_share_what_is_not_to_be_trusted(tmp_path, command, engines):
    """Two names of one merge: neither is left as done without answers, nor judged without any."""
    engines["takes"] = 2
    said = content(tmp_path, [0.1, 0.2], evaluate=[])
    del said["stages"]["reward"]
    said["merges"].append({"name": "again {alpha}", "grid": {"alpha": [0.1]}, "recipe": recipe()})
    file = written(tmp_path, said)
    assert command("sweep", file, "--out", "run").status == 1
    assert {row["status"] for row in table(tmp_path / "run").values()} == {"failed"}
    engines["takes"] = 100
    assert command("sweep", file, "--out", "run").status == 0
    assert {row["judged"] for row in table(tmp_path / "run").values()} == {6}


def test_a_last_look_that_fails_for_another_reason_costs_nothing(
    tmp_path, command, engines, monkeypatch
):
    own = Engine.swap

    def broken(self, merged):
        if self.given == 2:
            raise ModelError("the donor is gone")
        own(self, merged)

    monkeypatch.setattr(Engine, "swap", broken)
    answer = command("sweep", plain(tmp_path, [0.1, 0.2]), "--out", "run")
    assert answer.status == 0
    assert "the last look at vLLM failed: the donor is gone" in answer.err
    assert {row["responses"] for row in table(tmp_path / "run").values()} == {6}


def test_tasks_go_on_when_weights_move_from_memory_to_a_folder(tmp_path, command, monkeypatch):
    said = content(tmp_path, [0.5], evaluate=[])
    del said["stages"]["generate"], said["stages"]["reward"], said["stages"]["judge"]
    said["stages"]["tasks"] = {**tasks_of(tmp_path, "transformers"), "batch_size": 1}
    own, told = Transformers.answer, []

    def interrupted(self, requests, decoding, tell):
        own(self, requests[:1], decoding, tell)
        told.append(requests)
        raise KeyboardInterrupt

    monkeypatch.setattr(Transformers, "answer", interrupted)
    assert command("sweep", written(tmp_path, said), "--out", "run").status == 130
    monkeypatch.setattr(Transformers, "answer", own)
    answer = command("sweep", written(tmp_path, {**said, "stream": False}), "--out", "run")
    assert answer.status == 0, answer.err
    assert table(tmp_path / "run")["expo 0.5"]["task.exact_n"] == 3
    assert len(told) == 1
