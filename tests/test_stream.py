"""Merges that are written nowhere: one tensor after the other, or into a model that is there."""

from __future__ import annotations

import gc
import sys
import threading

import numpy as np
import pytest

import checkpoints
import mergecore
from mergecore import ModelError, RecipeError, RunError, pocket

BASE, A, B = (str(pocket.path(name)) for name in ("base", "reverse", "sort"))


def recipe(method="dare_ties", models=(A, B), base=BASE, **parameters):
    return {
        "merge_method": method,
        "base_model": base,
        "models": [{"model": str(model)} for model in models],
        "parameters": parameters,
    }


@pytest.mark.parametrize("more", [{}, {"dtype": "float32"}, {"tokenizer_source": "union"}])
def test_what_comes_is_what_a_run_would_write(tmp_path, more):
    request = {**recipe(density=0.5), **more}
    report = mergecore.run(request, tmp_path / "out")
    stream = mergecore.stream(request)
    assert stream.report is None
    assert stream.digest is None
    found = {name: np.array(tensor) for name, tensor in stream}
    whole = checkpoints.load(tmp_path / "out")
    assert set(found) == set(whole) == set(stream.tensors)
    assert len(stream) == len(whole)
    for name, tensor in whole.items():
        assert stream.tensors[name] == (tensor.dtype.name, tensor.shape)
        assert found[name].dtype == tensor.dtype
        assert found[name].tobytes() == tensor.tobytes(), name
    ours, theirs = vars(stream.report), vars(report)
    taken = {"seconds", "peak_rss_bytes"}
    assert {key for key in ours if ours[key] != theirs[key]} - taken <= {
        "out", "bytes_written", "files",
    }  # fmt: skip
    assert (ours["out"], ours["bytes_written"], ours["files"]) == ("", 0, [])


def test_a_tensor_lives_as_long_as_somebody_holds_it():
    held = dict(mergecore.stream(recipe("task_arithmetic"), ahead=0))
    gc.collect()
    again = dict(mergecore.stream(recipe("task_arithmetic"), ahead=0))
    assert all(held[name].tobytes() == again[name].tobytes() for name in held)
    for tensor in held.values():
        tensor += tensor  # writable, and nobody else's
    assert again["model.norm.weight"].tobytes() != held["model.norm.weight"].tobytes()


def test_a_loop_that_is_left_ends_the_merge(tmp_path):
    checkpoints.save(tmp_path / "a", {f"t{i}": np.ones((64, 1024), "f4") for i in range(200)})
    before = threading.active_count()
    for _name, _tensor in mergecore.stream(recipe("linear", [tmp_path / "a"], None), ahead=0):
        break
    gc.collect()
    assert threading.active_count() == before


def test_what_goes_wrong_on_the_way_is_told(tmp_path):
    tensors = {f"t{i}": np.ones((64, 1024), "f4") for i in range(64)}
    for name in ("a", "b"):
        checkpoints.save(tmp_path / name, tensors)
    stream = mergecore.stream(recipe("linear", [tmp_path / "a", tmp_path / "b"], None), ahead=0)
    tensors = iter(stream)
    next(tensors)
    with (tmp_path / "b" / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(RunError, match=r"b.*model\.safetensors"):
        list(tensors)
    assert stream.report is None


def test_what_cannot_be_is_refused_before_anything_is_merged(tmp_path, monkeypatch):
    with pytest.raises(RecipeError, match='"np" or "pt"'):
        mergecore.stream(recipe(), framework="jax")
    file = tmp_path / "two.yml"
    file.write_text(f"name: one\nmerge_method: linear\nmodels: [{{model: {A}}}]\n---\n")
    with file.open("a") as more:
        more.write(f"merge_method: linear\nmodels: [{{model: one}}, {{model: {B}}}]\n")
    with pytest.raises(RecipeError, match="2 documents"):
        mergecore.stream(file)
    stream = mergecore.stream(recipe())
    list(stream)
    with pytest.raises(RunError, match="read once"):
        list(stream)
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ModelError, match="ml_dtypes"):
        mergecore.stream(recipe())


class TestLoad:
    """Into models of transformers, and dicts."""

    torch = pytest.importorskip("torch", reason="the extra torch is not installed")
    transformers = pytest.importorskip("transformers", reason="the extra torch is not installed")

    def model(self, folder=BASE, **more):
        return self.transformers.AutoModelForCausalLM.from_pretrained(folder, **more)

    def test_a_filled_model_is_one_loaded_from_the_merge(self, tmp_path):
        request = recipe("ties", density=0.4)
        written = mergecore.run(request, tmp_path / "out")
        model = self.model()
        report = mergecore.load(request, into=model)
        assert report.delta_norm == written.delta_norm
        loaded = self.model(tmp_path / "out").state_dict()
        assert loaded.keys() == model.state_dict().keys()
        for name, tensor in model.state_dict().items():
            assert self.torch.equal(tensor, loaded[name]), name

    def test_its_own_dtype_stays(self, tmp_path):
        mergecore.run(recipe(), tmp_path / "out")
        model = self.model(dtype="float32")
        mergecore.load(recipe(), into=model)
        for name, tensor in self.model(tmp_path / "out", dtype="float32").state_dict().items():
            assert model.state_dict()[name].dtype == self.torch.float32
            assert self.torch.equal(model.state_dict()[name], tensor)

    def test_a_dict_and_a_model_without_a_head(self):
        state = {name: tensor.clone() for name, tensor in self.model().state_dict().items()}
        state.pop("lm_head.weight", None)
        mergecore.load(recipe(), into=state)
        whole = dict(mergecore.stream(recipe(), framework="pt"))
        assert all(self.torch.equal(state[name], whole[name]) for name in whole)
        body = self.transformers.AutoModel.from_pretrained(BASE)
        mergecore.load(recipe(), into=body)
        for name, tensor in body.state_dict().items():
            assert self.torch.equal(tensor, whole[f"model.{name}"]), name

    def test_a_model_that_does_not_fit_is_not_touched(self):
        model = self.model()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        del before["lm_head.weight"]  # tied in the model, and the clone is not
        norm, rows = "model.norm.weight", "model.embed_tokens.weight"
        lacking = {name: tensor for name, tensor in before.items() if name != norm}
        more = {**before, "adapter.weight": self.torch.ones(3)}
        other = {**before, rows: self.torch.ones(3, 96)}
        for state, words in (
            (lacking, f"tensor {norm}: the model has none"),
            (more, "tensor adapter.weight: the merge has none"),
            (other, rf"tensor {rows}: is merged as \[512, 96\].*\[3, 96\]"),
        ):
            kept = {name: tensor.clone() for name, tensor in state.items()}
            with pytest.raises(ModelError, match=words):
                mergecore.load(recipe(), into=state)
            assert all(self.torch.equal(kept[name], state[name]) for name in state)

    def test_a_model_without_memory_is_refused(self):
        config = self.transformers.AutoConfig.from_pretrained(BASE)
        with self.torch.device("meta"):
            model = self.transformers.AutoModelForCausalLM.from_config(config)
        with pytest.raises(ModelError, match="on meta"):
            mergecore.load(recipe(), into=model)

    def test_what_is_tied_in_the_model_must_be_merged_alike(self, tmp_path):
        first = {"embed.weight": np.ones((4, 2), "f4"), "lm_head.weight": np.ones((4, 2), "f4")}
        checkpoints.save(tmp_path / "a", first, tie_word_embeddings=False)
        last = {**first, "lm_head.weight": np.full((4, 2), 3, "f4")}
        checkpoints.save(tmp_path / "b", last, tie_word_embeddings=False)
        one = self.torch.zeros(4, 2)
        tied = {"embed.weight": one, "lm_head.weight": one}
        request = recipe("linear", [tmp_path / "a", tmp_path / "b"], None)
        with pytest.raises(ModelError, match="tied in the model"):
            mergecore.load(request, into=tied)
        untied = {name: self.torch.zeros(4, 2) for name in tied}
        mergecore.load(request, into=untied)
        assert untied["lm_head.weight"].unique().tolist() == [2.0]
        mergecore.load(recipe("linear", [tmp_path / "a"], None), into=tied)
        assert one.unique().tolist() == [1.0]

    def test_an_encoder_decoder(self, tmp_path):
        config = self.transformers.T5Config(
            vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2
        )
        for name in ("a", "b"):
            self.transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path / name)
        request = recipe("slerp", [tmp_path / "a", tmp_path / "b"], None, t=0.5)
        mergecore.run(request, tmp_path / "out")
        model = self.transformers.T5ForConditionalGeneration(config)
        mergecore.load(request, into=model)
        kind = self.transformers.T5ForConditionalGeneration
        for name, tensor in kind.from_pretrained(tmp_path / "out").state_dict().items():
            assert self.torch.equal(model.state_dict()[name], tensor), name
