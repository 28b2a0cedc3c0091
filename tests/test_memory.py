"""Is memory what is promised, whatever the size of a model and the number of models? Measured."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import adapters
import checkpoints

# A small process of its own: a command that a large one forks seems to hold what that holds.
STOPWATCH = Path(__file__).parents[1] / "benches/stopwatch.py"

MB = 1_000_000
LIMIT = 400 * MB
"""A few hundred megabytes, and less than a copy of one of the tensors below takes."""


@pytest.fixture
def folder(tmp_path) -> Iterator[Path]:
    """A folder that does not outlive the test: pytest keeps its own for three runs."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def peak_of(folder: Path, *arguments: str) -> int:
    """The peak RSS of a merge, as the kernel has it; the merge's own figure must be near."""
    command = [sys.executable, STOPWATCH, sys.executable, "-m", "mergecore", *arguments]
    with (folder / "said").open("w+") as said:
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=said, check=True)
        said.seek(0)
        report = said.read()
    measured = json.loads(done.stdout)
    assert measured["status"] == 0, report
    stated = json.loads(report[report.index("{") :])["peak_rss_bytes"]
    assert abs(stated - measured["peak_rss_bytes"]) < MB
    return max(stated, measured["peak_rss_bytes"])


def write_large(folder: Path, shapes: dict[str, tuple[int, ...]], tune: int = 0) -> None:
    """A bf16 model, or a fine-tune of it: some noise over and over, so that it is soon written."""
    wide = np.random.default_rng(0).normal(0, 0.02, 1_048_573)
    if tune:
        wide += np.random.default_rng(tune).normal(0, 4e-4, wide.size)
    data = wide.astype(ml_dtypes.bfloat16).tobytes()
    folder.mkdir()
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    with (folder / "model.safetensors").open("wb") as file:
        file.write(checkpoints.raw(json.dumps(header)))
        for _ in range(end // len(data)):
            file.write(data)
        file.write(data[: end % len(data)])
    config = {"model_type": "llama", "torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config))


def rows_of(folder: Path, name: str, first: int, count: int) -> np.ndarray:
    """Some rows of a large bf16 tensor."""
    with (folder / "model.safetensors").open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(start - 8))[name]
        width = entry["shape"][1]
        file.seek(start + entry["data_offsets"][0] + 2 * width * first)
        data = file.read(2 * width * count)
    return np.frombuffer(data, ml_dtypes.bfloat16).reshape(count, width)


def test_an_adapter_is_put_on_a_large_model_without_a_copy_of_it(folder):
    side, modules = 16_384, [f"model.layers.{layer}.mlp.up_proj" for layer in range(2)]
    shapes = {f"{module}.weight": (side, side) for module in modules}  # 537 MB each
    write_large(folder / "base", {"model.norm.weight": (side,), **shapes})
    rng = np.random.default_rng(2)
    factors: dict[str, Any] = {}
    for module in modules:
        factors |= adapters.factors(rng, module, (side, side), 16)
    adapters.save(folder / "adapter", factors, r=16, lora_alpha=1)

    merge = ("merge", "base+adapter", "--method", "linear", "--out", "out", "--json")
    peak = peak_of(folder, *merge)
    assert peak < LIMIT, f"{peak / MB:.0f} MB"
    for module in modules:
        for first in (0, 9_999, side - 8):
            place = (f"{module}.weight", first, 8)
            before, after = (rows_of(folder / model, *place) for model in ("base", "out"))
            a = factors[f"{module}.lora_A.weight"]
            b = factors[f"{module}.lora_B.weight"][first : first + 8]
            want = adapters.merged(before, a, b, 1 / 16)
            assert adapters.ulps(after, want, before) <= 0.51


@pytest.fixture(scope="module")
def tunes(tmp_path_factory) -> Iterator[Path]:
    """A base and twelve models of 170 MB; of their contents there are three."""
    folder = tmp_path_factory.mktemp("tunes")
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (16_384, 2_048)}
    for layer in range(3):
        for name in ("q_proj", "o_proj"):
            shapes[f"model.layers.{layer}.self_attn.{name}.weight"] = (2_048, 2_048)
        shapes[f"model.layers.{layer}.mlp.up_proj.weight"] = (4_096, 2_048)
    for number, model in enumerate(["base", "0", "1", "2"]):
        write_large(folder / model, shapes, tune=number)
    for number in range(3, 12):
        (folder / str(number)).mkdir()
        for file in ("model.safetensors", "config.json"):
            os.link(folder / str(number % 3) / file, folder / str(number) / file)
    yield folder
    shutil.rmtree(folder)


def peak_of_models(folder: Path, method: str, models: int, *more: str) -> int:
    base = () if method == "linear" else ("--base", "base")
    merge = ("merge", *map(str, range(models)), *base, "--method", method, "--out", "out")
    return peak_of(folder, *merge, "--overwrite", "--threads", "2", "--json", *more)


@pytest.mark.parametrize("method", ["linear", "dare-ties", "ties", "breadcrumbs", "model-stock"])
def test_twelve_models_take_the_memory_of_two(method, tunes):
    two, twelve = (peak_of_models(tunes, method, models) for models in (2, 12))
    said = f"{method}: 2 models {two / MB:.0f} MB, 12 models {twelve / MB:.0f} MB"
    print(said)
    # Each further model has a row of 64 KB a thread, and where thresholds are sought a short list;
    # breadcrumbs seeks two a model.
    assert twelve <= 1.15 * two + (35 if method == "breadcrumbs" else 10) * MB, said
    assert twelve < LIMIT, said


STREAM = """
import json, sys
import mergecore
recipe = {"merge_method": "linear", "models": [{"model": "a"}, {"model": "b"}]}
stream = mergecore.stream(recipe, ahead=int(sys.argv[1]))
taken = sum(tensor.nbytes for _, tensor in stream)
print(json.dumps({"taken": taken, "peak_rss_bytes": stream.report.peak_rss_bytes}))
"""


def test_a_stream_holds_the_tensors_in_work_and_not_the_model(folder):
    shapes = {f"model.layers.{layer}.mlp.up_proj.weight": (4096, 4096) for layer in range(24)}
    for tune, name in enumerate(("a", "b")):
        write_large(folder / name, shapes, tune)  # 805 MB each
    command = [sys.executable, "-c", STREAM, str(32 * MB)]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=True)
    said = json.loads(done.stdout)
    assert said["taken"] == 24 * 2 * 4096 * 4096
    assert said["peak_rss_bytes"] < LIMIT
