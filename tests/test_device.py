"""Does a merge whose formulas torch works out end as the engine's own does?"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")

import checkpoints  # noqa: E402
import mergecore  # noqa: E402
from mergecore import RecipeError, RunError, cuda, registry  # noqa: E402
from mergecore.cuda import device as devices  # noqa: E402

HERE = {"linear", "slerp", "task_arithmetic", "ties", "dare_linear", "dare_ties",
        "model_stock", "tsv", "iso_c", "iso_cts"}  # fmt: skip
"""What the issue asks for; all others are the CPU's, and say so."""
DENSE = {"tsv", "iso_c", "iso_cts"}


def shapes(rng):
    """Tensors of a model: matrices, more blocks than one, vectors, one number, nothing."""
    sizes = {
        "model.embed_tokens.weight": (70, 33),
        "model.layers.0.self_attn.q_proj.weight": (48, 33),
        "model.layers.0.mlp.up_proj.weight": (90, 33),
        "model.layers.0.mlp.long": (40_001,),
        "model.layers.0.input_layernorm.weight": (33,),
        "model.empty": (0, 4),
        "model.scale": (),
    }
    return {name: rng.normal(size=size) for name, size in sizes.items()}


@pytest.fixture
def models(tmp_path):
    """`base`, `a`, `b` and `c`, in bfloat16, one tensor in float64; with ties and zeros."""
    rng = np.random.default_rng(7)
    base = shapes(rng)
    for name in ("base", "a", "b", "c"):
        state = {}
        for key, array in base.items():
            change = np.round(rng.normal(size=array.shape) * 8) / 64 if name != "base" else 0
            kind = np.float64 if key == "model.layers.0.mlp.long" else checkpoints.DTYPES["BF16"]
            state[key] = np.asarray(array + change).astype(kind)
        state["counter"] = np.arange(3)
        checkpoints.save(tmp_path / name, state, model_type="llama")
    return tmp_path


def request(method, folder, **more):
    spec = registry.find(method)
    least, most = spec.min_models, spec.max_models
    count = min(3, most or 3)
    names = ["a", "b", "c"][: max(count, least)]
    asked = {"merge_method": method, "models": [{"model": str(folder / n)} for n in names], **more}
    if spec.base in ("required", "first"):
        asked["base_model"] = str(folder / "base")
    if spec.base == "first" and len(names) == most:
        asked["models"].pop()
    if any(parameter.name == "t" for parameter in spec.parameters):
        asked["parameters"] = {"t": 0.3}
    return asked


def same_or_certified(folder, one, other, exact=True):
    left, right = (checkpoints.load(folder / name) for name in (one, other))
    assert left.keys() == right.keys()
    for name in left:
        if exact:
            assert left[name].tobytes() == right[name].tobytes(), name
            continue
        x, y = left[name].astype(np.float64), right[name].astype(np.float64)
        assert np.linalg.norm(x - y) <= 1e-5 * max(np.linalg.norm(x), 1), name


def test_the_methods_that_have_a_path_are_those():
    assert set(cuda.METHODS) == HERE
    assert set(cuda.MODIFIERS) == {"boost"}


@pytest.mark.parametrize("method", registry.methods())
def test_every_method_ends_as_it_does_on_the_cpu(models, method):
    """In float32, where nothing is rounded away; what has no path here says so."""
    asked = request(method, models, dtype="float32")
    report = mergecore.run(asked, models / "cpu")
    other = mergecore.run(asked, models / "torch", device="cpu-torch")
    same_or_certified(models, "cpu", "torch", exact=method not in DENSE)
    said = " ".join(other.notes)
    if method in HERE:
        assert "cpu-torch works out 7 of 7 tensors" in said
        assert "not on" not in said
        assert "made on the CPU" not in said
    else:
        assert f"not on cpu-torch: {method} runs on the CPU only" in said
        assert "works out" not in said
    assert other.bytes_read == report.bytes_read
    if report.delta_norm is not None:
        assert other.delta_norm == pytest.approx(report.delta_norm, rel=1e-6)
    assert mergecore.verify(models / "torch") == []


@pytest.mark.parametrize("method", ["ties", "task_arithmetic", "tsv"])
def test_modifiers(models, method):
    asked = request(method, models, dtype="float32", modifiers=["boost"])
    mergecore.run(asked, models / "cpu")
    told = mergecore.run(asked, models / "torch", device="cpu-torch")
    same_or_certified(models, "cpu", "torch", exact=False)
    assert "works out" in " ".join(told.notes)
    matched = {**asked, "modifiers": [{"match_norm": {"to": "linear"}}]}
    matched["modifiers"][0]["match_norm"]["to"] = "task_arithmetic"
    told = mergecore.run(matched, models / "matched", device="cpu-torch")
    assert "not on cpu-torch: match_norm runs on the CPU only" in told.notes


def test_what_differs_from_tensor_to_tensor_is_told(models):
    parameters = {"scope": "tensor", "density": [{"filter": "mlp", "value": 0.9}, {"value": 0.3}]}
    asked = request("ties", models, parameters=parameters, onto=str(models / "c"))
    mergecore.run(asked, models / "cpu")
    mergecore.run(asked, models / "torch", device="cpu-torch")
    same_or_certified(models, "cpu", "torch")
    whole = request("ties", models, parameters={"scope": "model"})
    told = mergecore.run(whole, models / "whole", device="cpu-torch")
    assert any("scope: model runs on the CPU only" in note for note in told.notes)


@pytest.mark.parametrize("method", sorted(HERE))
@pytest.mark.parametrize("fails", [1, 2, 5, 9, 10**9])
def test_a_device_whose_memory_is_too_small_costs_no_merge(models, method, fails, monkeypatch):
    """From so many answers on it has none, or for two of three; the bytes are the same."""
    asked = request(method, models)
    mergecore.run(asked, models / "cpu")
    own, count = devices.Bench._fitting, 0

    def fitting(self, work):
        nonlocal count
        count += 1
        lacks = count >= fails or (fails > 10**6 and count % 3)
        return own(self, devices._lack if lacks else work)

    monkeypatch.setattr(devices.Bench, "_fitting", fitting)
    told = mergecore.run(asked, models / "torch", device="cpu-torch")
    same_or_certified(models, "cpu", "torch", exact=method not in DENSE or fails == 1)
    if fails == 1:
        # One has no elements, and needs no memory.
        assert "cpu-torch: its memory was too small: 6 of the tensors made on the CPU" in told.notes


def test_memory_is_what_is_allowed(models, monkeypatch):
    """Pieces are as small as it takes; matrices that do not fit are the CPU's."""
    given = []
    own = devices.Bench.give

    def give(self, source):
        given.append(len(self._lane._last))
        return own(self, source)

    monkeypatch.setattr(devices.Bench, "give", give)
    asked = request("ties", models)
    mergecore.run(asked, models / "cpu")
    made = mergecore.stream(asked, device="cpu-torch")
    device = devices.Device("cpu-torch", 1 << 20)
    made._prepared = replace(made._prepared, device=device)
    found = {name: np.array(tensor) for name, tensor in made}
    whole = checkpoints.load(models / "cpu")
    assert all(found[name].tobytes() == whole[name].tobytes() for name in whole)
    assert max(given) <= 16_384 * 8  # the least piece, of float64
    asked = request("tsv", models)
    made = mergecore.stream(asked, device="cpu-torch")
    made._prepared = replace(made._prepared, device=devices.Device("cpu-torch", 1000))
    list(made)
    assert any("memory was too small: 2 of" in note for note in made.report.notes)


def test_matrices_with_nan_are_refused_by_name(models):
    state = checkpoints.load(models / "b")
    state["model.layers.0.mlp.up_proj.weight"][3, 4] = np.nan
    checkpoints.save(models / "b", state, model_type="llama")
    said = []
    for device in ("cpu", "cpu-torch"):
        with pytest.raises(RunError) as refused:
            mergecore.run(request("tsv", models), models / device, device=device)
        said.append(str(refused.value))
    assert said[0] == said[1]
    report = mergecore.run(request("linear", models), models / "linear", device="cpu-torch")
    assert report.inputs_nan == 1
    assert any("holds 1 NaN" in warning for warning in report.warnings)


def test_recipes_and_commands_name_a_device(models, command, refused):
    import yaml

    asked = request("dare_ties", models)
    mergecore.run(asked, models / "cpu")
    file = models / "r.yml"
    file.write_text(
        yaml.safe_dump({**asked, "device": "cpu-torch", "parameters": {"density": 0.5}})
    )
    answer = command("run", file, "out")
    assert answer.status == 0
    assert "cpu-torch works out 7 of 7 tensors" in answer.out
    same_or_certified(models, "cpu", "out")
    assert "cpu-torch" not in command("run", file, "out", "--overwrite", "--device", "cpu").out
    assert "works out 7 of 7" in command("run", file, "plan", "--dry-run").out
    assert "it is cpu, cpu-torch, cuda or cuda:N" in refused(
        "merge", "a", "b", "--method", "linear", "--device", "tpu"
    )
    if not torch.cuda.is_available():
        assert "torch sees no GPU" in refused(
            "merge", "a", "b", "--method", "linear", "--device", "cuda"
        )
    with pytest.raises(RecipeError, match="device 3: it is cpu"):
        mergecore.run({**asked, "device": 3}, models / "odd")


def test_what_fails_on_a_device_is_made_on_the_cpu_and_said_once(models, monkeypatch):
    asked = request("dare_ties", models)
    mergecore.run(asked, models / "cpu")
    prepared = mergecore.stream(asked, device="cpu-torch")._prepared

    def broken(*_):
        raise RuntimeError("CUDA error: an illegal instruction was encountered")

    with monkeypatch.context() as patched:
        patched.setattr(cuda.Stream, "delta", broken)
        told = prepared.run(models / "torch")
    same_or_certified(models, "cpu", "torch")
    assert any("it failed (CUDA error: an illegal" in note for note in told["notes"])
    assert not any("it failed" in note for note in prepared.run(models / "again")["notes"])


def test_a_stream_that_is_left_ends_with_a_device_too(models):
    """The engine's thread waits for Python then, and Python must not wait for it."""
    asked = request("linear", models)
    for taken in (1, 2, 1, 2, 1):
        tensors = iter(mergecore.stream(asked, device="cpu-torch", ahead=0))
        for _ in range(taken):
            next(tensors)
        del tensors
    left = iter(mergecore.stream(asked, device="cpu-torch", ahead=0))
    next(left)
    script = (
        "import sys, json, mergecore\n"
        "tensors = iter(mergecore.stream(json.loads(sys.argv[1]), device='cpu-torch', ahead=0))\n"
        "next(tensors)\n"  # and the interpreter ends
    )
    command = [sys.executable, "-c", script, json.dumps(asked)]
    subprocess.run(command, check=True, timeout=120)


def test_ctrl_c_is_heard_within_a_tensor(models, monkeypatch):
    """Between pieces of a product; the engine is told that it was, and keeps what is done."""
    asked = request("tsv", models)
    own = devices.interruption.check

    def pressed():
        monkeypatch.setattr(devices.interruption, "check", own)
        raise KeyboardInterrupt

    monkeypatch.setattr(devices.interruption, "check", pressed)
    with pytest.raises(KeyboardInterrupt):
        mergecore.run(asked, models / "torch", device="cpu-torch")
    assert not (models / "torch").exists()
    mergecore.run(asked, models / "torch", device="cpu-torch")
    assert mergecore.verify(models / "torch") == []


def test_many_merges_in_one_reading_say_that_the_cpu_makes_them(models):
    asked = [{**request("linear", models), "device": "cpu-torch"}, request("slerp", models)]
    reports = mergecore.merge_many(asked, out=[models / "one", models / "two"])
    assert any("not on cpu-torch: many merges" in note for note in reports[0].notes)
    assert not any("cpu-torch" in note for note in reports[1].notes)


def test_a_file_of_documents_keeps_its_device_whatever_stands_before_it(models):
    import yaml

    documents = [
        {"name": "half", **request("linear", models), "device": "cpu-torch"},
        {"merge_method": "linear", "models": [{"model": "half"}, {"model": str(models / "c")}],
         "device": "cpu-torch"},
    ]  # fmt: skip
    file = models / "two.yml"
    file.write_text("---\n".join(map(yaml.safe_dump, documents)))
    asked = [request("slerp", models), file]
    reports = mergecore.merge_many(asked, out=[models / "one", models / "two"])
    assert any("cpu-torch works out 7 of 7" in note for note in reports[1].notes)


def test_a_stream_has_a_device_too(models):
    asked = request("dare_linear", models)
    found = {n: np.array(t) for n, t in mergecore.stream(asked, device="cpu-torch")}
    expected = {n: np.array(t) for n, t in mergecore.stream(asked)}
    assert all(found[name].tobytes() == expected[name].tobytes() for name in expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
@pytest.mark.parametrize("method", sorted(HERE))
def test_a_gpu_is_within_a_unit_in_the_last_place(models, method):
    asked = request(method, models, dtype="float32")
    mergecore.run(asked, models / "cpu")
    mergecore.run(asked, models / "gpu", device="cuda")
    if method in DENSE:
        return same_or_certified(models, "cpu", "gpu", exact=False)
    left, right = (checkpoints.load(models / name) for name in ("cpu", "gpu"))
    for name, array in left.items():
        np.testing.assert_array_max_ulp(array, right[name], maxulp=1)
    return None
