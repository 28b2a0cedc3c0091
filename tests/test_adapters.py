"""`model+adapter`: is it the model that the adapter makes, whatever its options?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import adapters
import checkpoints
import mergecore
from mergecore import ModelError, recipe
from mergecore.planning import prepare

DTYPES = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
UP, GATE, SQUARE, DOWN = (
    f"model.layers.{place}"
    for place in ("0.mlp.up_proj", "0.mlp.gate_proj", "1.self_attn.q_proj", "1.mlp.down_proj")
)
EMBEDDING, NORM, HEAD = "model.embed_tokens", "model.norm", "lm_head"
# One row is longer than the strips that are computed at a time, one tensor than a block.
SHAPES = {
    f"{UP}.weight": (17, 8),
    f"{GATE}.weight": (9, 2500),
    f"{SQUARE}.weight": (24, 24),
    f"{DOWN}.weight": (600, 40),
    f"{EMBEDDING}.weight": (33, 8),
    f"{HEAD}.weight": (33, 8),
    f"{NORM}.weight": (8,),
}


def base_of(rng: np.random.Generator, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    base = {name: rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}
    base["counter"] = np.arange(3, dtype=np.int64)
    return base


def lora_of(rng: np.random.Generator, module: str, rank: int, **options: Any) -> dict[str, Any]:
    return adapters.factors(rng, module, SHAPES[f"{module}.weight"], rank, **options)


def alone(folder: Path, model: str, **options: Any) -> dict[str, np.ndarray]:
    """The model by itself, written out."""
    mergecore.merge([model], "linear", out=folder / "out", overwrite=True, **options)
    return checkpoints.load(folder / "out")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("factors", [np.float32, ml_dtypes.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_every_option_at_once(tmp_path, rng, dtype, factors, dora):
    base = base_of(rng, dtype)
    checkpoints.save(tmp_path / "base", base, shards=3)
    patches = {UP: (4, 8), GATE: (3, 8), SQUARE: (5, 2), DOWN: (4, 1), EMBEDDING: (4, 8)}
    tensors: dict[str, np.ndarray] = {}
    for module, (rank, _) in patches.items():
        size = SHAPES[f"{module}.weight"][1 if module == EMBEDDING else 0]
        tensors |= lora_of(
            rng,
            module,
            rank,
            dtype=factors,
            embedding=module == EMBEDDING,
            magnitudes=size if dora else 0,
        )
    saved = {f"{name}.weight": rng.normal(size=SHAPES[f"{name}.weight"]) for name in (HEAD, NORM)}
    tensors |= {name: tensor.astype(factors) for name, tensor in saved.items()}
    adapters.save(
        tmp_path / "adapter",
        tensors,
        shards=2,
        use_dora=dora,
        use_rslora=True,
        rank_pattern={"layers.0.mlp.gate_proj": 3, ".*attn.*": 5, "gate_proj": 99},
        alpha_pattern={"q_proj": 2, r"^model\.layers\.1\.mlp\.\w+": 1},
        modules_to_save=["lm_head", "norm"],
    )
    got = alone(tmp_path, f"{tmp_path}/base+{tmp_path}/adapter")
    assert {name: tensor.dtype for name, tensor in got.items()} == {
        name: tensor.dtype for name, tensor in base.items()
    }
    for module, (rank, alpha) in patches.items():
        a, b = (
            next(t for n, t in tensors.items() if n.startswith(module) and f"{kind}" in n)
            for kind in ("_A", "_B")
        )
        weight = base[f"{module}.weight"]
        want = adapters.merged(
            weight,
            a,
            b,
            alpha / np.sqrt(rank),
            transposed=module == EMBEDDING,
            magnitude=tensors.get(f"{module}.lora_magnitude_vector"),
        )
        # Half a unit for the rounding; in float32 also the sum's own, and in DoRA the norm's.
        allowed = {"float64": 8, "float32": 8, "float16": 0.51, "bfloat16": 0.51}[weight.dtype.name]
        bound = np.abs(b.astype(np.float64)) @ np.abs(a.astype(np.float64))
        inputs = (weight, (bound.T if module == EMBEDDING else bound) * alpha / np.sqrt(rank))
        assert adapters.ulps(got[f"{module}.weight"], want, *inputs) <= allowed, module
    for name, tensor in saved.items():
        want = tensor.astype(factors).astype(dtype)
        np.testing.assert_array_equal(got[name].view(np.uint8), want.view(np.uint8))
    np.testing.assert_array_equal(got["counter"], base["counter"])


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("square_only", [False, True])
def test_fan_in_fan_out(tmp_path, rng, dora, square_only):
    # GPT-2's weights are (in, out). Square ones go by those that are not, else by the config.
    names = [SQUARE] if square_only else [SQUARE, DOWN]
    base = base_of(rng)
    checkpoints.save(tmp_path / "base", base)
    tensors: dict[str, np.ndarray] = {}
    for module in names:
        inner, outer = SHAPES[f"{module}.weight"]
        magnitudes = outer if dora else 0
        tensors |= adapters.factors(rng, module, (outer, inner), 4, magnitudes=magnitudes)
    adapters.save(tmp_path / "adapter", tensors, use_dora=dora, fan_in_fan_out=square_only)
    got = alone(tmp_path, f"{tmp_path}/base+{tmp_path}/adapter")
    for module in names:
        a, b = tensors[f"{module}.lora_A.weight"], tensors[f"{module}.lora_B.weight"]
        magnitude = tensors.get(f"{module}.lora_magnitude_vector")
        weight = base[f"{module}.weight"]
        want = adapters.merged(weight, a, b, 2.0, transposed=True, magnitude=magnitude)
        bound = 2 * (np.abs(b) @ np.abs(a)).T
        assert adapters.ulps(got[f"{module}.weight"], want, weight, bound) <= 8
    np.testing.assert_array_equal(got[f"{UP}.weight"], base[f"{UP}.weight"])


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_neither_tiles_nor_threads_are_seen(tmp_path, rng, dora):
    from mergecore._mergecore import Plan

    checkpoints.save(tmp_path / "base", base_of(rng, ml_dtypes.bfloat16))
    places = {"base": str(tmp_path / "base")}
    patched = {}
    for name in ("a", "b"):
        tensors: dict[str, np.ndarray] = {}
        for module in (GATE, DOWN, SQUARE):
            size = SHAPES[f"{module}.weight"][0] if dora else 0
            tensors |= lora_of(rng, module, 4, magnitudes=size)
        patched[name] = str(adapters.save(tmp_path / name, tensors, use_dora=dora))
        places[name] = str(tmp_path / "base")
    request = recipe.to_json(recipe.build("ties", ["a", "b"], "base", {"density": 0.3}, seed=1))
    seen = set()
    for threads, tile in ((1, None), (2, None), (2, 1), (1, 777)):
        out = tmp_path / f"out-{threads}-{tile}"
        plan = Plan(request, places, adapters=patched, threads=threads, tile=tile)
        plan.run(str(out), [])
        seen.add((out / "model.safetensors").read_bytes())
    assert len(seen) == 1


def test_task_vectors_are_the_products_and_not_rounded(tmp_path, rng):
    # In bfloat16 a small product would vanish in its weight; the sum of many such does not.
    base = base_of(rng, ml_dtypes.bfloat16)
    checkpoints.save(tmp_path / "base", base)
    name, models = f"{DOWN}.weight", []
    product = np.zeros(SHAPES[name])
    for i in range(8):
        tensors = lora_of(rng, DOWN, 4)
        adapters.save(tmp_path / f"a{i}", tensors, lora_alpha=1e-3)
        models.append(f"{tmp_path}/base+{tmp_path}/a{i}")
        a, b = (tensors[f"{DOWN}.lora_{x}.weight"].astype(np.float64) for x in "AB")
        product += b @ a * 1e-3 / 4
    report = mergecore.merge(models, "task_arithmetic", out=tmp_path / "out", weights=1.0)
    assert report.base == str(tmp_path / "base")  # no base was given: the adapters are on it
    assert report.delta_norm == pytest.approx(np.linalg.norm(product), rel=1e-3)
    options = {"weights": 1.0, "dtype": "float32", "overwrite": True}
    mergecore.merge(models, "task_arithmetic", out=tmp_path / "out", **options)
    delta = checkpoints.load(tmp_path / "out")[name] - base[name].astype(np.float32)
    np.testing.assert_allclose(delta, product, atol=2e-6)


def test_the_base_may_have_one_too_and_the_donor_is_the_model(tmp_path, rng, command):
    checkpoints.save(tmp_path / "base", base_of(rng))
    (tmp_path / "base/tokenizer.json").write_text("{}")
    for name in ("a", "b"):
        adapters.save(tmp_path / name, lora_of(rng, UP, 4))
        (tmp_path / name / "tokenizer.json").write_text('{"other": 1}')
    said = command("merge", "base+b", "--base", "base+a", "--method", "task-arithmetic")
    assert said.status == 0, said.err
    out = tmp_path / "b-task-arithmetic"
    got, want = checkpoints.load(out), alone(tmp_path, "base+b")
    np.testing.assert_allclose(got[f"{UP}.weight"], want[f"{UP}.weight"], atol=1e-6)
    assert (out / "tokenizer.json").read_text() == "{}"
    # The recipe in the output holds from where it lies, and gives the same again.
    assert "model: ../base+../b" in (out / "mergecore_recipe.yml").read_text()
    again = command("run", out / "mergecore_recipe.yml", "again")
    assert again.status == 0, again.err
    first, second = (tmp_path / place / "model.safetensors" for place in (out, "again"))
    assert first.read_bytes() == second.read_bytes()
    manifest = json.loads((out / "mergecore.json").read_text())
    files = {entry["file"] for entry in manifest["inputs"][1]["files"]}
    assert files == {"model.safetensors", "adapter_model.safetensors", "adapter_config.json"}


def test_an_adapter_that_has_changed_is_another_input(tmp_path, rng):
    checkpoints.save(tmp_path / "base", base_of(rng))
    adapters.save(tmp_path / "a", lora_of(rng, UP, 4))
    request = recipe.build("linear", [f"{tmp_path}/base+{tmp_path}/a"])
    prepared = prepare(request)
    config = tmp_path / "a/adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 16'))
    with pytest.raises(mergecore.RunError, match=r"adapter_config\.json: the file changed"):
        prepared.run(tmp_path / "out")
    with pytest.raises(mergecore.MergecoreError, match="the output is also the input"):
        prepare(request).run(tmp_path / "a", overwrite=True)


def test_tied_embeddings(tmp_path, rng):
    base = base_of(rng)
    base[f"{HEAD}.weight"] = base[f"{EMBEDDING}.weight"]
    checkpoints.save(tmp_path / "copy", base, tie_word_embeddings=True)
    adapters.save(tmp_path / "a", lora_of(rng, EMBEDDING, 4, embedding=True))
    # The copy of a tied embedding is the embedding, and not the one before the adapter.
    assert f"{HEAD}.weight" not in alone(tmp_path, f"{tmp_path}/copy+{tmp_path}/a")
    del base[f"{HEAD}.weight"]
    checkpoints.save(tmp_path / "tied", base, tie_word_embeddings=True)
    assert f"{HEAD}.weight" not in alone(tmp_path, f"{tmp_path}/tied+{tmp_path}/a")
    head = rng.normal(size=SHAPES[f"{HEAD}.weight"]).astype(np.float32)
    adapters.save(tmp_path / "own", {f"{HEAD}.weight": head})
    got = alone(tmp_path, f"{tmp_path}/tied+{tmp_path}/own")
    np.testing.assert_array_equal(got[f"{HEAD}.weight"], head)
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is False
    adapters.save(tmp_path / "lora", lora_of(rng, HEAD, 4))
    with pytest.raises(ModelError, match="lm_head, which is tied"):
        alone(tmp_path, f"{tmp_path}/tied+{tmp_path}/lora")


def test_show(tmp_path, rng, command):
    checkpoints.save(tmp_path / "base", base_of(rng, ml_dtypes.bfloat16))
    adapters.save(tmp_path / "a", lora_of(rng, UP, 4))
    said = command("show", "base+a", "--json")
    assert said.status == 0, said.err
    shown = json.loads(said.out)
    assert {t["dtype"] for t in shown["tensors"]} == {"bfloat16", "int64"}
    assert "adapter_config.json" in {file["name"] for file in shown["files"]}


@pytest.mark.parametrize(
    ("tensors", "config", "says"),
    [
        ({}, {"peft_type": "IA3"}, "IA3"),
        ({}, {"bias": "all"}, "bias"),
        ({}, {"layer_replication": [[0, 2]]}, "layer_replication"),
        ({}, {"future_key": 3}, "future_key"),
        ({}, {"init_lora_weights": "pissa"}, "pissa"),
        ({}, {"r": 5}, "up_proj"),
        ({}, {"use_dora": True}, "up_proj has no lora_magnitude_vector"),
        ({f"{UP}.lora_magnitude_vector": (17,)}, {}, "use_dora"),
        ({f"{UP}.lora_magnitude_vector": (8,)}, {"use_dora": True}, "does not fit"),
        ({"model.nowhere.lora_A.weight": (4, 8)}, {}, "model.nowhere"),
        (
            {"model.nowhere.lora_A.weight": (4, 8), "model.nowhere.lora_B.weight": (8, 4)},
            {},
            "no model.nowhere.weight",
        ),
        (
            {f"{DOWN}.lora_A.weight": (4, 8), f"{DOWN}.lora_B.weight": (600, 4)},
            {},
            f"{DOWN}: its factors",
        ),
        (
            {f"{NORM}.lora_A.weight": (4, 8), f"{NORM}.lora_B.weight": (8, 4)},
            {},
            f"{NORM}: its factors",
        ),
        (
            {f"{DOWN}.lora_A.weight": (4, 8, 1, 1), f"{DOWN}.lora_B.weight": (600, 4, 1, 1)},
            {},
            "no linear layer",
        ),
        ({f"{UP}.lora_B.bias": (17,)}, {}, "lora_B.bias"),
        ({f"{UP}.lora_A.default.weight": (4, 8)}, {}, "lora_A.default.weight"),
        ({"elsewhere.weight": (3,)}, {}, "elsewhere.weight is not in"),
        ({f"{NORM}.weight": (9,)}, {}, "[9]"),
    ],
)
def test_what_finds_no_place_is_refused(tmp_path, rng, refused, tensors, config, says):
    checkpoints.save(tmp_path / "base", base_of(rng))
    more = {name: rng.normal(size=shape).astype(np.float32) for name, shape in tensors.items()}
    adapters.save(tmp_path / "adapter", {**lora_of(rng, UP, 4), **more}, **config)
    error = refused("merge", "base+adapter", "--method", "linear", "--out", "out")
    assert says in error
    assert "adapter" in error


def test_folders_that_are_not_what_they_should_be(tmp_path, rng, refused):
    checkpoints.save(tmp_path / "base", base_of(rng))
    adapters.save(tmp_path / "adapter", lora_of(rng, UP, 4), base_model_name_or_path="org/base")

    def said(model: str) -> str:
        return refused("merge", model, "--method", "linear", "--out", "out")

    assert "give org/base+adapter" in said("adapter")
    assert "no adapter_config.json" in said("base+base")
    assert "absent: no such file or folder" in said("base+absent")
    assert "absent: no such file or folder" in said("absent+adapter")
    assert "MODEL+ADAPTER" in said("base+")
    (tmp_path / "adapter/adapter_model.safetensors").rename(tmp_path / "adapter/adapter_model.bin")
    assert "pickled" in said("base+adapter")


@pytest.mark.parametrize(
    ("named", "says"),
    [("../base", False), ("../other", True), ("../absent", False), ("org/elsewhere", False)],
)
def test_an_adapter_that_is_for_another_model_is_noted(tmp_path, rng, named, says):
    for name in ("base", "other"):
        checkpoints.save(tmp_path / name, base_of(rng))
    adapters.save(tmp_path / "a", lora_of(rng, UP, 4), base_model_name_or_path=named)
    request = recipe.build("linear", [f"{tmp_path}/base+{tmp_path}/a"])
    notes = prepare(request).summary["notes"]
    assert any(f"it is for {tmp_path}/other" in note for note in notes) == says


def test_paths_with_a_plus_of_their_own(tmp_path, rng):
    base = base_of(rng)
    tensors = lora_of(rng, UP, 4)
    checkpoints.save(tmp_path / "c++/base", base)
    adapters.save(tmp_path / "c++/a+b", tensors)
    whole = alone(tmp_path, str(tmp_path / "c++/base"))
    np.testing.assert_array_equal(whole[f"{UP}.weight"], base[f"{UP}.weight"])
    got = alone(tmp_path, f"{tmp_path}/c++/base+{tmp_path}/c++/a+b")
    assert not np.array_equal(got[f"{UP}.weight"], base[f"{UP}.weight"])
