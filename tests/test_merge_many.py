"""Do many recipes with one reading give what each gives by itself, and nothing if one is wrong?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import checkpoints
import mergecore
from mergecore import pocket

DENSE = ("tsv", "iso_c", "iso_cts")
VALUES: dict[str, tuple[object, ...]] = {
    "lambda": (0.5, 1.5),
    "density": (0.2, 0.8),
    "t": (0.2, 0.7),
    "normalize": (True, False),
}


def place(name: str) -> str:
    return str(pocket.path(name))


def recipe(
    method: str, models: tuple[str, ...] = ("reverse", "sort"), **parameters: object
) -> dict:
    spec = mergecore.methods()[method]
    asked: dict[str, Any] = {"merge_method": method, "parameters": parameters}
    asked["models"] = [{"model": place(model)} for model in models[: spec.max_models]]
    return asked | ({"base_model": place("base")} if spec.base == "required" else {})


def each_method() -> list[dict]:
    """Every method that merges element by element, each of some parameters two ways."""
    found = []
    for name, spec in mergecore.methods().items():
        if name in DENSE:
            continue
        found.append(recipe(name))
        for key, values in VALUES.items():
            found += [recipe(name, **{key: value}) for value in values if spec.parameter(key)]
    return found


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def folders(where: Path, count: int) -> list[Path]:
    return [where / str(i) for i in range(count)]


def assert_alike(recipes: list, outs: list[Path], apart: list[Path]) -> None:
    for request, out, alone in zip(recipes, outs, apart, strict=True):
        assert content(out) == content(alone), request


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> tuple[list[dict], list[Path]]:
    recipes = each_method()
    apart = folders(tmp_path_factory.mktemp("alone"), len(recipes))
    for request, out in zip(recipes, apart, strict=True):
        mergecore.run(request, out)
    return recipes, apart


@pytest.mark.parametrize(("threads", "max_memory"), [(None, None), (1, None), (2, 48 << 20)])
def test_the_same_bytes_as_apart(alone, tmp_path, threads, max_memory):
    recipes, apart = alone
    assert len(recipes) > 50
    outs = folders(tmp_path, len(recipes))
    told: list[tuple[int, int]] = []
    reports = mergecore.merge_many(
        recipes,
        outs,
        threads=threads,
        max_memory=max_memory,
        progress=lambda *bytes_done: told.append(bytes_done),
    )
    assert [report.out for report in reports] == [str(out) for out in outs]
    assert [r.method for r in reports] == [request["merge_method"] for request in recipes]
    assert all(mergecore.verify(out) == [] for out in outs[::10])
    assert told[-1][0] == told[-1][1] > 0
    assert_alike(recipes, outs, apart)


def test_models_in_part_in_common_files_and_shards(tmp_path):
    recipes: list[Any] = [
        recipe("ties", ("reverse", "sort")),
        recipe("ties", ("sort", "add", "uppercase")),
        recipe("linear", ("add", "base")),
        recipe("tsv", ("reverse", "add")),
        recipe("task_arithmetic", ("rl",)) | {"base_model": place("sft")},
        tmp_path / "recipe.yml",
    ]
    recipes[5].write_text(json.dumps(recipe("della", ("reverse", "add"), density=0.5)))  # YAML too
    apart, outs = folders(tmp_path / "alone", 6), folders(tmp_path / "many", 6)
    limits = {"shard_size": 200_000}
    separate = [mergecore.run(r, out, **limits) for r, out in zip(recipes, apart, strict=True)]
    reports = mergecore.merge_many(recipes, outs, **limits)
    assert_alike(recipes, outs, apart)
    for report, other in zip(reports, separate, strict=True):
        assert report.bytes_read == other.bytes_read
        assert report.delta_norm == other.delta_norm
        assert (report.notes, report.warnings) == (other.notes, other.warnings)


def test_documents_come_last_and_are_made_too(tmp_path):
    chained = tmp_path / "chain.yml"
    first = recipe("linear") | {"name": "first"}
    last = recipe("linear") | {"models": [{"model": "first"}, {"model": place("add")}]}
    chained.write_text(f"{json.dumps(first)}\n---\n{json.dumps(last)}\n")
    recipes: list[Any] = [chained, recipe("ties"), recipe("slerp", t=0.5)]
    apart, outs = folders(tmp_path / "alone", 3), folders(tmp_path / "many", 3)
    for request, out in zip(recipes, apart, strict=True):
        mergecore.run(request, out)
    reports = mergecore.merge_many(recipes, outs)
    assert [report.method for report in reports] == ["linear", "ties", "slerp"]
    for name in ("model.safetensors", "config.json"):
        assert all((a / name).read_bytes() == (b / name).read_bytes()
                   for a, b in zip(outs, apart, strict=True))  # fmt: skip


def wrong(recipes: list, outs: list, kind: type[Exception], words: str, **options: Any) -> None:
    with pytest.raises(kind, match=words) as caught:
        mergecore.merge_many(recipes, outs, **options)
    assert "\n" not in str(caught.value)


def test_one_wrong_recipe_leaves_nothing(tmp_path):
    good, outs = recipe("ties"), folders(tmp_path / "out", 3)
    for bad, words in (
        (recipe("ties", dense=0.5), 'recipe 2: ties has no parameter "dense"'),
        ({**good, "base_model": "nowhere/at-all"}, "recipe 2: .*nowhere"),
        (tmp_path / "none.yml", r"recipe 2 \(.*none.yml\): "),
        (recipe("dare_ties", density=2), "recipe 2: .*density"),
    ):
        wrong([good, bad, good], outs, mergecore.MergecoreError, words)
        assert not (tmp_path / "out").exists()
    outs[2].mkdir(parents=True)
    wrong([good] * 3, outs, mergecore.OutputExistsError, "recipe 3: .*exists already")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["2"]
    outs[2].rmdir()
    wrong([good], outs, mergecore.RecipeError, "1 recipes and 3 outputs")
    wrong(good, outs, mergecore.RecipeError, "recipes is a list")  # type: ignore[arg-type]
    wrong([good] * 3, outs, mergecore.SpaceError, "max-memory", max_memory=1 << 20)
    assert list((tmp_path / "out").iterdir()) == []
    assert mergecore.merge_many([], []) == []


def test_two_outputs_in_one_place_are_refused(tmp_path):
    recipes, out = [recipe("ties"), recipe("linear")], tmp_path / "out"
    for other in (out, f"{out}/", tmp_path / "x" / ".." / "out"):
        wrong(recipes, [out, other], mergecore.OutputExistsError, "two recipes")
    for other in (out / "in", tmp_path / "out.partial"):
        wrong(recipes, [out, other], mergecore.OutputExistsError, "inside another")
    copy = checkpoints.save(tmp_path / "model", {"w": np.ones((4, 4), np.float32)})
    mine = {"merge_method": "linear", "models": [{"model": str(copy)}]}
    wrong([mine, recipes[0]], [out, copy], mergecore.OutputExistsError, "input", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A base and two fine-tunes of 32 MB each."""
    folder = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    base = rng.normal(size=(16, 1 << 19)).astype(np.float32)
    for name in ("base", "a", "b"):
        moved = base + (name != "base") * rng.normal(size=base.shape).astype(np.float32)
        checkpoints.save(folder / name, {f"layers.{i}.weight": row for i, row in enumerate(moved)})
    return folder


SCRIPT = """
import json, sys, mergecore
recipes, outs = map(json.loads, sys.argv[1:])
mergecore.merge_many(recipes, outs, threads=1, shard_size=4 << 20)
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_killed_and_interrupted_the_same_call_goes_on(large, tmp_path):
    models = [{"model": str(large / "a")}, {"model": str(large / "b")}]
    shared = {"base_model": str(large / "base"), "models": models}
    recipes = [
        {**shared, "merge_method": "dare_ties", "parameters": {"density": 0.3}},
        {**shared, "merge_method": "ties", "parameters": {"density": 0.1}},
        {**shared, "merge_method": "task_arithmetic", "parameters": {"lambda": 0.7}},
    ]
    apart, outs = folders(tmp_path / "alone", 3), folders(tmp_path / "many", 3)
    for request, out in zip(recipes, apart, strict=True):
        mergecore.run(request, out, shard_size=4 << 20)
    call = [sys.executable, "-c", SCRIPT, json.dumps(recipes), json.dumps([str(o) for o in outs])]
    for number, ending in enumerate((signal.SIGINT, signal.SIGKILL, signal.SIGINT)):
        process = subprocess.Popen(call, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (tmp_path / "many" / "2.partial").exists():
            time.sleep(0.001)
        time.sleep(0.1 * number)
        process.send_signal(ending)
        process.wait(timeout=20)
        for out in outs:
            assert not out.exists() or mergecore.verify(out) == []
    reports = mergecore.merge_many(recipes, outs, threads=1, shard_size=4 << 20)
    assert_alike(recipes, outs, apart)
    before = [out.stat().st_mtime_ns for out in outs]
    again = mergecore.merge_many(recipes, outs, threads=1, shard_size=4 << 20)
    assert [out.stat().st_mtime_ns for out in outs] == before
    assert [report.delta_norm for report in again] == [report.delta_norm for report in reports]
    assert all(report.resumed_tensors == report.tensors for report in again)
    mergecore.merge_many(recipes, outs, shard_size=4 << 20, overwrite=True)
    assert_alike(recipes, outs, apart)


def test_all_of_them_stay_within_one_memory(large, tmp_path):
    """The peak of a process of its own, which also holds Python and NumPy."""
    models = [{"model": str(large / "a")}, {"model": str(large / "b")}]
    shared = {"base_model": str(large / "base"), "models": models, "merge_method": "ties"}
    recipes = [{**shared, "parameters": {"density": 0.05 * (i + 1)}} for i in range(8)]
    code = (
        "import json, sys, mergecore\n"
        "r = mergecore.merge_many(json.loads(sys.argv[1]), json.loads(sys.argv[2]),"
        " max_memory=int(sys.argv[3]))\nprint(max(x.peak_rss_bytes for x in r))"
    )
    outs = [str(out) for out in folders(tmp_path, len(recipes))]
    call = [sys.executable, "-c", code, json.dumps(recipes), json.dumps(outs), str(100_000_000)]
    peak = int(subprocess.run(call, check=True, capture_output=True, text=True).stdout)
    assert peak < 100_000_000
