"""Do the documents of a recipe file give what they give one after another, and nothing more?"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

import adapters
import checkpoints
import mergecore

ONE = "name: one\nmerge_method: ties\nbase_model: base\nmodels: [{model: a}, {model: b}]\n" \
      "parameters: {density: 0.5}\n"  # fmt: skip
TWO = "name: two\nmerge_method: slerp\nbase_model: one\nmodels: [{model: a}]\n" \
      "parameters: {t: 0.25}\n"  # fmt: skip
LAST = "merge_method: linear\nmodels: [{model: one}, {model: two}, {model: b}]\n" \
       "parameters: {weight: 1}\n"  # fmt: skip
HIDDEN = ".mergecore-documents"


def write(path: Path, *documents: str) -> Path:
    path.write_text("---\n".join(documents))
    return path


def by_hand(folder: Path, out: str, *documents: str) -> dict[str, np.ndarray]:
    """Each document run by itself, into a folder of its name."""
    for text in documents:
        request = yaml.safe_load(text)
        name = request.pop("name", out)
        (folder / f"{name}.yml").write_text(yaml.safe_dump(request))
        mergecore.run(folder / f"{name}.yml", folder / name)
    return checkpoints.load(folder / out)


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return list(a) == list(b) and all(a[name].tobytes() == b[name].tobytes() for name in a)


@pytest.fixture
def expected(command, family, tmp_path):
    merged = by_hand(tmp_path, "expected", ONE, TWO, LAST)
    for name in ("one", "two"):
        shutil.rmtree(tmp_path / name)
    return merged


@pytest.mark.parametrize("order", [(ONE, TWO, LAST), (LAST, TWO, ONE), (TWO, LAST, ONE)])
def test_they_give_what_they_give_one_after_another(command, expected, tmp_path, order):
    write(tmp_path / "mix.yml", *order)
    answer = command("run", "mix.yml", "out")
    assert answer.status == 0, answer
    assert "documents made first: one, two" in answer.out
    assert same(checkpoints.load(tmp_path / "out"), expected)
    assert command("verify", "out").status == 0


def test_python_runs_them_and_json_lists_them(command, expected, tmp_path):
    documents = [yaml.safe_load(text) for text in (LAST, ONE, TWO)]
    (tmp_path / "mix.json").write_text(json.dumps(documents))
    told: list[int] = []
    report = mergecore.run("mix.json", "first", progress=lambda done, _: told.append(done))
    assert (report.models, report.method) == (["one", "two", "b"], "linear")
    assert told[-1] > 0
    said = json.loads(command("run", "mix.json", "second", "--json").out)
    assert [(d["name"], d["reused"]) for d in said["documents"]] == [("one", False), ("two", False)]
    assert same(checkpoints.load(tmp_path / "first"), expected)
    assert same(checkpoints.load(tmp_path / "second"), expected)


def test_the_output_is_whole_without_the_documents_and_makes_itself_again(
    command, expected, tmp_path
):
    write(tmp_path / "mix.yml", ONE, TWO, LAST)
    assert command("run", "mix.yml", "out").status == 0
    out = tmp_path / "out"
    assert not (tmp_path / "out.partial").exists()
    assert not (out / HIDDEN).exists()
    for path in out.iterdir():
        assert path.suffix == ".safetensors" or b".partial" not in path.read_bytes(), path
    card = yaml.safe_load((out / "README.md").read_text().split("---")[1])
    assert card["base_model"] == ["../base", "../a", "../b"]
    manifest = json.loads((out / "mergecore.json").read_text())
    assert [m["model"] for m in manifest["recipe"]["models"]] == ["one", "two", "b"]
    one, two, b = manifest["inputs"]
    assert "path" not in one
    assert "path" not in two
    documents = manifest["documents"]
    assert list(documents) == ["one", "two"]
    assert documents["one"]["recipe"]["merge_method"] == "ties"
    assert [i["model"] for i in documents["two"]["inputs"]] == ["one", "a"]
    assert b["path"] == "b"
    assert command("run", "out/mergecore_recipe.yml", "again").status == 0
    for name in ("mergecore_recipe.yml", "mergecore.json", "model.safetensors"):
        first, second = (
            (tmp_path / place / name).read_text("latin-1") for place in ("out", "again")
        )
        # The card tells the output's name, and the second recipe says how the models are reached.
        assert name == "mergecore.json" or first == second


def test_slices_bases_donors_and_adapters_may_be_documents(command, family, tmp_path):
    config = json.loads((tmp_path / "base/config.json").read_text())
    (tmp_path / "base/config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    stack = "merge_method: passthrough\ndonor: one\nslices:\n" \
            "- sources: [{model: one, layer_range: [0, 2]}]\n" \
            "- sources: [{model: a, layer_range: [1, 2]}]\n"  # fmt: skip
    write(tmp_path / "stack.yml", stack, ONE)
    assert command("run", "stack.yml", "out").status == 0
    merged = checkpoints.load(tmp_path / "out")
    assert same(merged, by_hand(tmp_path, "by-hand", ONE, stack))
    assert json.loads((tmp_path / "out/config.json").read_text())["num_hidden_layers"] == 3


def test_an_adapter_goes_on_a_document(command, tmp_path):
    models = [adapters_model(seed) for seed in (0, 1)]
    for name, model in zip("ab", models, strict=True):
        checkpoints.save(tmp_path / name, model)
    adapters.save(tmp_path / "lora", adapter_tensors(), r=2, lora_alpha=4)
    mean = "name: mean\nmerge_method: linear\nmodels: [{model: a}, {model: b}]\n"
    last = "merge_method: linear\nmodels: [{model: mean+lora}]\n"
    write(tmp_path / "mix.yml", mean, last)
    answer = command("run", "mix.yml", "out")
    assert answer.status == 0, answer
    merged = checkpoints.load(tmp_path / "out")
    assert same(merged, by_hand(tmp_path, "by-hand", mean, last))
    assert "mean+lora" in (tmp_path / "out/README.md").read_text()


def adapters_model(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"model.layers.0.mlp.up_proj.weight": rng.normal(size=(6, 4)).astype(np.float32)}


def adapter_tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    stem = "model.layers.0.mlp.up_proj"
    return {
        f"{stem}.lora_A.weight": rng.normal(size=(2, 4)).astype(np.float32),
        f"{stem}.lora_B.weight": rng.normal(size=(6, 2)).astype(np.float32),
    }


def test_seed_is_for_all_and_dtype_for_the_output(command, family, tmp_path):
    dare = ONE.replace("ties", "dare_ties")
    write(tmp_path / "mix.yml", dare, "merge_method: linear\nmodels: [one, b]\n")
    said = command("run", "mix.yml", "out", "--seed", "7", "--dtype", "bfloat16", "--json")
    report = json.loads(said.out)
    assert (report["seed"], report["documents"][0]["recipe"]["seed"]) == (7, 7)
    assert report["documents"][0]["recipe"]["dtype"] is None
    assert checkpoints.load(tmp_path / "out")["model.norm.weight"].dtype.name == "bfloat16"


def test_a_lone_document_is_the_output_whatever_it_is_called(command, family, tmp_path):
    write(tmp_path / "mix.yml", ONE, "")
    assert command("run", "mix.yml", "out").status == 0
    assert "document" not in (tmp_path / "out/README.md").read_text()


def test_a_document_wins_against_a_folder_of_its_name(command, expected, tmp_path):
    checkpoints.save(tmp_path / "one", {"w": np.ones(1, np.float32)})
    write(tmp_path / "mix.yml", ONE, TWO, LAST)
    answer = command("run", "mix.yml", "out")
    assert "one is the document of that name" in answer.out
    assert same(checkpoints.load(tmp_path / "out"), expected)
    assert "one" in (tmp_path / "out/mergecore_recipe.yml").read_text().split("models")[2]
    assert str(tmp_path) not in (tmp_path / "out/mergecore_recipe.yml").read_text()


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        ((ONE, TWO), ["every document has a name", "one", "two"]),
        ((ONE, LAST, LAST), ["document 3", "name: NAME"]),
        ((ONE, ONE, TWO, LAST), ["two documents", "one", "rename"]),
        ((ONE, ONE.replace("one", "One"), TWO, LAST), ["two documents", "One"]),
        ((ONE, TWO, LAST.replace("{model: two}, ", "")), ["no document uses two"]),
        ((ONE.replace("{model: b}", "{model: two}"), TWO, LAST), ["two uses one", "first"]),
        ((ONE.replace("{model: b}", "{model: one}"), TWO, LAST), ["one uses one"]),
        ((ONE.replace("name: one", "name: x/one"), TWO, LAST), ["'x/one'"]),
        ((ONE.replace("name: one", "name: ''"), TWO, LAST), ["name ''"]),
        ((ONE.replace("name: one", "name: .."), TWO, LAST), ["'..'"]),
        ((ONE.replace("name: one", "name:"), TWO, LAST), ["None"]),
        ((ONE.replace("name: one", "name: 7"), TWO, LAST), ["name 7", "quote"]),
        ((ONE.replace("name: one", "name: one.partial"), TWO, LAST), ["one.partial"]),
        ((ONE, TWO, LAST + "wieght: 1\n"), ["without a name", "wieght"]),
        ((ONE.replace("density", "dencity"), TWO, LAST), ["document one", "dencity"]),
        ((ONE, TWO.replace("model: a", "model: nowhere"), LAST), ["document two", "nowhere"]),
        ((ONE, TWO, LAST.replace("model: b", "model: broken")), ["without a name", "broken"]),
        ((ONE, TWO.replace("slerp", "ties").replace("base_model: one\n", "").replace("{t: 0.25}",
          "{}").replace("model: a", "model: one"), LAST), ["document two", "base_model"]),
        ((ONE, "- 1\n", LAST), ["mapping"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("doing", [("run", "mix.yml", "out"), ("show", "mix.yml")])
def test_what_cannot_be_run_is_refused_before_a_byte(refused, family, tmp_path, documents, words,
                                                     doing):  # fmt: skip
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/model.safetensors").write_bytes(b"12345678901")
    write(tmp_path / "mix.yml", *documents)
    before = sorted(os.listdir(tmp_path))
    message = refused(*doing)
    assert all(word in message for word in words), message
    assert sorted(os.listdir(tmp_path)) == before


def test_an_output_that_is_there_is_refused_before_the_first_document(refused, family, tmp_path):
    write(tmp_path / "mix.yml", ONE, TWO, LAST)
    checkpoints.save(tmp_path / "out", {"w": np.ones(1, np.float32)})
    assert "--overwrite" in refused("run", "mix.yml", "out")
    assert "input" in refused("run", "mix.yml", "b", "--overwrite")
    assert not (tmp_path / "out.partial").exists()


def test_show_and_a_dry_run_tell_what_is_known(command, family, tmp_path):
    write(tmp_path / "mix.yml", LAST, TWO, ONE)
    before = sorted(os.listdir(tmp_path))
    said = json.loads(command("show", "mix.yml", "--json").out)
    one, two, last = said["documents"]
    assert [d["name"] for d in said["documents"]] == ["one", "two", None]
    assert [d["waits_for"] for d in said["documents"]] == [[], ["one"], ["one", "two"]]
    assert said["disk_needed"] == one["bytes_to_write"] > 0
    assert (two["method"], two["parameters"]) == ("slerp", {"t": 0.25})
    assert last["models"] == ["one", "two", "b"]
    text = command("show", "mix.yml", "--tensors").out
    assert "waits for" in text
    assert "odd.half" in text
    assert "nothing (--dry-run)" in command("run", "mix.yml", "out", "--dry-run").out
    assert len(json.loads(command("run", "mix.yml", "--dry-run", "--json").out)["documents"]) == 3
    assert sorted(os.listdir(tmp_path)) == before


def test_a_disk_without_room_for_what_is_known_is_told_before_the_start(
    refused, family, tmp_path, monkeypatch
):
    write(tmp_path / "mix.yml", ONE, TWO, LAST)
    monkeypatch.setattr("mergecore.chain.free_space", lambda _: 1000)
    assert "not enough space" in refused("run", "mix.yml", "out")
    assert not (tmp_path / "out.partial").exists()


@pytest.fixture
def stopped(command, family, tmp_path):
    """A run of `mix.yml` that was stopped by its progress after some documents."""

    def stop(documents: int) -> None:
        from mergecore import chain
        from mergecore.documents import load

        def bars(name: str):
            nonlocal documents
            documents -= 1
            if documents < 0:
                raise KeyboardInterrupt
            from contextlib import nullcontext

            return nullcontext(None)

        with pytest.raises(KeyboardInterrupt):
            chain.check(load("mix.yml")).run("out", False, bars)
        assert (tmp_path / "out.partial" / HIDDEN / "one").is_dir()

    write(tmp_path / "mix.yml", ONE, TWO, LAST)
    return stop


def reused(answer) -> list[bool]:
    assert answer.status == 0, answer
    return [document["reused"] for document in json.loads(answer.out)["documents"]]


@pytest.mark.parametrize("documents", [1, 2])
def test_a_document_that_is_done_is_not_done_again(command, expected, stopped, tmp_path, documents):
    stopped(documents)
    answer = command("run", "mix.yml", "out", "--json")
    assert reused(answer) == [True, documents == 2]
    assert "used again from an interrupted run: one" in answer.out
    assert same(checkpoints.load(tmp_path / "out"), expected)


def test_another_recipe_s_leftovers_are_refused_and_only_what_fits_is_used(
    command, refused, stopped, tmp_path
):
    stopped(2)
    changed = TWO.replace("0.25", "0.75")
    write(tmp_path / "mix.yml", ONE, changed, LAST)
    assert "--overwrite" in refused("run", "mix.yml", "out")
    assert reused(command("run", "mix.yml", "out", "--overwrite", "--json")) == [True, False]
    assert same(
        checkpoints.load(tmp_path / "out"), by_hand(tmp_path, "by-hand", ONE, changed, LAST)
    )


def test_a_changed_input_is_seen(command, stopped, tmp_path):
    stopped(2)
    states = checkpoints.family(seed=5)
    checkpoints.save(tmp_path / "a", states[1])
    assert reused(command("run", "mix.yml", "out", "--json")) == [False, False]
    assert same(checkpoints.load(tmp_path / "out"), by_hand(tmp_path, "by-hand", ONE, TWO, LAST))


def test_a_changed_input_of_an_output_that_was_begun_is_refused_at_once(
    command, refused, stopped, tmp_path
):
    stopped(2)
    # A journal of the output, as a kill in the midst of it leaves it.
    (tmp_path / "out.partial/.mergecore-journal.jsonl").write_text("{}\n")
    (tmp_path / "a/model.safetensors").touch()
    assert "have changed" in refused("run", "mix.yml", "out")
    assert reused(command("run", "mix.yml", "out", "--overwrite", "--json")) == [False, False]


def test_a_document_that_lost_a_file_is_made_again(command, expected, stopped, tmp_path):
    stopped(1)
    (tmp_path / "out.partial" / HIDDEN / "one/model.safetensors").unlink()
    assert reused(command("run", "mix.yml", "out", "--json")) == [False, False]
    assert same(checkpoints.load(tmp_path / "out"), expected)


def test_documents_and_a_single_merge_do_not_take_each_other_s_place(
    command, refused, expected, stopped, tmp_path
):
    merge = ("merge", "a", "b", "--method", "linear", "--out", "out")
    stopped(1)
    assert "another recipe" in refused(*merge)
    assert (tmp_path / "out.partial" / HIDDEN / "one").is_dir()
    assert command(*merge, "--overwrite").status == 0
    assert not (tmp_path / "out" / HIDDEN).exists()
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial/.mergecore-journal.jsonl").write_text('{"mergecore":1}\n')
    (tmp_path / "out.partial/model.safetensors").write_text("x")
    assert "another recipe" in refused("run", "mix.yml", "out")
    assert command("run", "mix.yml", "out", "--overwrite").status == 0
    assert same(checkpoints.load(tmp_path / "out"), expected)


def test_a_stranger_s_folder_is_never_deleted(refused, family, tmp_path):
    write(tmp_path / "mix.yml", ONE, TWO, LAST)
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial/thesis.txt").write_text("x")
    for flags in ((), ("--overwrite",)):
        assert "in the way" in refused("run", "mix.yml", "out", *flags)
    assert os.listdir(tmp_path / "out.partial") == ["thesis.txt"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_killed_in_the_second_document_the_first_is_not_made_again(tmp_path, command):
    rng = np.random.default_rng(0)
    for name in ("base", "a", "b"):
        state = {f"layers.{i}.weight": rng.normal(size=1 << 19) for i in range(16)}
        checkpoints.save(tmp_path / name, {k: v.astype(np.float32) for k, v in state.items()})
    write(tmp_path / "mix.yml", ONE, TWO, LAST)
    arguments = [sys.executable, "-m", "mergecore", "run", "mix.yml", "out", "--threads", "1"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    folder = tmp_path / "out.partial" / HIDDEN
    while process.poll() is None and not (folder / "two.partial").exists():
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert (folder / "one/mergecore.json").is_file()
    assert reused(command("run", "mix.yml", "out", "--json"))[0]
    merged = checkpoints.load(tmp_path / "out")
    assert same(merged, by_hand(tmp_path, "by-hand", ONE, TWO, LAST))
