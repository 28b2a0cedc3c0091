"""Can others read what is written? Names, index, metadata, and the same bytes every time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

import checkpoints
import mergecore


@pytest.fixture
def paths(family, tmp_path) -> list[Path]:
    return [tmp_path / "a", tmp_path / "b"]


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def test_one_file_has_no_index_and_the_reference_reader_opens_it(paths, tmp_path):
    mergecore.merge(paths, "ties", out=tmp_path / "out")
    assert list(weights(tmp_path / "out")) == ["model.safetensors"]
    assert not (tmp_path / "out/model.safetensors.index.json").exists()
    merged = checkpoints.load(tmp_path / "out")
    with safe_open(tmp_path / "out/model.safetensors", framework="numpy") as file:
        assert file.metadata()["format"] == "pt"
        assert set(file.keys()) == set(merged)
        for name, tensor in merged.items():
            np.testing.assert_array_equal(file.get_tensor(name), tensor)


def test_shards_are_named_and_indexed_as_everywhere(paths, tmp_path):
    mergecore.merge(paths, "ties", out=tmp_path / "out", shard_size=700)
    names = list(weights(tmp_path / "out"))
    count = len(names)
    assert count > 1
    assert names == [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    merged = checkpoints.load(tmp_path / "out")
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in merged.values())
    for name, file in index["weight_map"].items():
        with safe_open(tmp_path / "out" / file, framework="numpy") as shard:
            np.testing.assert_array_equal(shard.get_tensor(name), merged[name])
    assert mergecore.verify(tmp_path / "out") == []


@pytest.mark.parametrize("method", list(mergecore.methods()))
def test_the_same_request_gives_the_same_bytes(paths, tmp_path, method):
    paths = paths[: mergecore.methods()[method].max_models]
    for name, threads in (("one", 1), ("two", 2)):
        mergecore.merge(paths, method, out=tmp_path / name, threads=threads)
    assert weights(tmp_path / "one") == weights(tmp_path / "two")


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della", "della_linear"])
def test_the_seed_counts_and_is_recorded(paths, tmp_path, method):
    seeds = {}
    for seed in (42, 43):
        report = mergecore.merge(paths, method, out=tmp_path / str(seed), seed=seed)
        assert report.seed == seed
        assert json.loads((tmp_path / str(seed) / "mergecore.json").read_text())["seed"] == seed
        seeds[seed] = weights(tmp_path / str(seed))
    assert seeds[42] != seeds[43]


def test_ignored_tensors_are_left_out_and_listed(command, family, tmp_path):
    answer = command("merge", "a", "b", "--method", "ties", "--ignore", "odd.*", "--out", "out")
    assert answer.status == 0
    assert not [name for name in checkpoints.load(tmp_path / "out") if name.startswith("odd.")]
    plan = command("merge", "a", "b", "--method", "ties", "--ignore", "odd.*", "--dry-run")
    assert "odd.half" in plan.out


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_the_dtype_is_as_asked(paths, tmp_path, dtype):
    mergecore.merge(paths, "linear", out=tmp_path / "out", dtype=dtype)
    merged = checkpoints.load(tmp_path / "out")
    assert {str(t.dtype) for name, t in merged.items() if name != "odd.counter"} == {dtype}
    assert merged["odd.counter"].dtype == np.int64
