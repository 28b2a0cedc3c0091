"""Is what mergekit refuses or leaves out of these architectures merged, and do loaders take it?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cases import CASES, REFUSED
from deviations import DERIVED, MERGEKIT_DROPS, MERGEKIT_KEEPS_LAYERS, MERGEKIT_REFUSES
from families import ADAPTED, in_place

import checkpoints
import mergecore

REASONS = MERGEKIT_REFUSES | {
    f"{family}-slices": says for family, says in MERGEKIT_KEEPS_LAYERS.items()
}
LOADED = [name for name in CASES if name.endswith(("-linear", "-slices"))]


@pytest.mark.parametrize("name", REFUSED)
def test_mergekit_still_refuses_it(name, merged):
    assert REASONS[name] in (merged / f"{name}.refused").read_text()


@pytest.mark.parametrize("family", MERGEKIT_REFUSES)
def test_what_mergekit_refuses_is_merged_all_the_same(family, families, tmp_path):
    recipe = in_place(tmp_path / "mix.yml", REFUSED[family][1], families[family])
    mergecore.run(recipe, tmp_path / "out")
    ours, base, a, b = (
        checkpoints.load(folder)
        for folder in (tmp_path / "out", *(families[family] / m for m in ("base", "a", "b")))
    )
    assert ours.keys() == base.keys()
    for name, tensor in ours.items():
        wide = (x[name].astype(np.float64) for x in (base, a, b))
        start, first, second = wide
        expected = start + 0.3 * (first - start) + 0.7 * (second - start)
        np.testing.assert_allclose(tensor, expected, rtol=2**-23, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("family", MERGEKIT_DROPS)
def test_what_mergekit_drops_is_merged_like_the_rest(family, families, tmp_path):
    recipe = in_place(tmp_path / "mix.yml", CASES[f"{family}-linear"][1], families[family])
    mergecore.run(recipe, tmp_path / "out")
    ours, a, b = (
        checkpoints.load(folder)
        for folder in (tmp_path / "out", *(families[family] / m for m in ("a", "b")))
    )
    for name in MERGEKIT_DROPS[family]:
        expected = 0.3 * a[name].astype(np.float64) + 0.7 * b[name].astype(np.float64)
        np.testing.assert_allclose(ours[name], expected, rtol=2**-23, atol=1e-9, err_msg=name)


@pytest.mark.filterwarnings("ignore")  # transformers' own
@pytest.mark.parametrize("name", [*LOADED, *REFUSED])
def test_transformers_loads_the_output_whole(name, families, tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch", exc_type=ImportError)
    family, content = (CASES | REFUSED)[name]
    recipe = in_place(tmp_path / "mix.yml", content, families[family])
    mergecore.run(recipe, tmp_path / "out", shard_size=4_000)
    ours = through_the_index(tmp_path / "out")
    if "slices" not in str(content):
        inputs = checkpoints.load(families[family] / "a").keys()
        assert ours.keys() == inputs - DERIVED.get(family, set())
    config = json.loads((tmp_path / "out/config.json").read_text())
    kind = getattr(transformers, config["architectures"][0])
    model, told = kind.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["mismatched_keys"]
    loaded = model.state_dict()
    for tensor in ours.keys() & loaded.keys():
        if "embed_tokens" in tensor and family.startswith("t5"):
            continue  # of T5's copies one embedding, shared, is what counts
        expected = ours[tensor].astype(np.float32)
        np.testing.assert_array_equal(loaded[tensor].float().numpy(), expected, err_msg=tensor)


def through_the_index(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a sharded model, read by safetensors from the file that the index names."""
    safetensors = pytest.importorskip("safetensors")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    tensors = {}
    for name, file in index["weight_map"].items():
        with safetensors.safe_open(folder / file, "np") as shard:
            tensors[name] = shard.get_tensor(name)
    assert index["metadata"]["total_size"] == sum(x.nbytes for x in tensors.values())
    assert {p.name for p in folder.glob("*.safetensors")} == set(index["weight_map"].values())
    return tensors


@pytest.mark.parametrize("family", ADAPTED)
def test_adapters_change_what_they_adapt_and_nothing_else(family, merged):
    lora, rslora = (
        checkpoints.load(merged / f"{family}-{case}.mergekit") for case in ("lora", "rslora")
    )
    for name, tensor in lora.items():
        adapted = name.endswith(tuple(f"{module}.weight" for module in ADAPTED[family]))
        assert adapted != np.array_equal(tensor, rslora[name]), name
