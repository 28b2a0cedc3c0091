"""Does an extracted adapter lead back to the model, as far as its rank allows?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import checkpoints
import mergecore

SHAPES = {
    "model.embed_tokens.weight": (33, 12),
    "model.layers.0.mlp.up_proj.weight": (40, 12),
    "model.layers.0.mlp.gate-proj.weight": (3, 12),
    "model.layers.0.self_attn.q_proj.weight": (300, 280),  # by random projection
    "model.layers.0.self_attn.q_proj.bias": (300,),
    "model.norm.weight": (12,),
    "model.same.weight": (5, 5),
}


def low_rank(rng: np.random.Generator, shape: tuple[int, ...], rank: int) -> np.ndarray:
    if len(shape) == 1:
        return rng.normal(size=shape)
    return rng.normal(size=(shape[0], rank)) @ rng.normal(size=(rank, shape[1])) / 10


def pair(
    folder: Path, rank: int, dtype: Any = np.float32, shapes: Any = SHAPES, left: str = "bias"
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A base and a model whose matrices differ from it by products of the given rank."""
    rng = np.random.default_rng(5)
    base = {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
    tuned = {}
    for name, tensor in base.items():
        still = "same" in name or name.endswith(left)
        delta = 0 if still else low_rank(rng, tensor.shape, rank)
        tuned[name] = (tensor.astype(np.float64) + delta).astype(dtype)
    checkpoints.save(folder / "base", base, shards=2)
    checkpoints.save(folder / "tuned", tuned)
    return base, tuned


def test_a_change_of_low_rank_comes_back(tmp_path, command):
    _, tuned = pair(tmp_path, 3)
    arguments = ["tuned", "--base", "base", "--rank", 4, "--out", "adapter", "--json"]
    said = command("extract-lora", *arguments)
    assert said.status == 0, said.err
    report = json.loads(said.out)
    assert report["error"] < 1e-5
    assert {t["name"]: t["how"] for t in report["tensors"]}["model.norm.weight"] == "whole"
    assert "model.same.weight" not in {t["name"] for t in report["tensors"]}
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert config["rank_pattern"] == {r"model\.layers\.0\.mlp\.gate\-proj": 3}
    mergecore.merge(["base+adapter"], "linear", out="out")
    for name, tensor in checkpoints.load(tmp_path / "out").items():
        np.testing.assert_allclose(tensor, tuned[name], atol=3e-5, err_msg=name)


@pytest.mark.parametrize("rank", [1, 5, 12])
def test_the_error_is_the_least_that_the_rank_allows(tmp_path, command, rank):
    base, tuned = pair(tmp_path, 12, ml_dtypes.bfloat16)
    command("extract-lora", "tuned", "--base", "base", "--rank", rank, "--out", "adapter", "--json")
    said = command(
        "extract-lora", "tuned", "--base", "base", "--rank", rank, "--out", "b", "--json"
    )
    report = json.loads(said.out)
    first, again = (tmp_path / x / "adapter_model.safetensors" for x in ("adapter", "b"))
    assert first.read_bytes() == again.read_bytes()
    options: Any = {"dtype": "float32"}
    mergecore.merge(["base+adapter"], "linear", out="out", **options)
    out = checkpoints.load(tmp_path / "out")
    squares = 0.0
    for part in report["tensors"]:
        name = part["name"]
        goal = tuned[name].astype(np.float64)
        assert part["change"] == pytest.approx(np.linalg.norm(goal - base[name].astype(np.float64)))
        rest = np.linalg.norm(goal - out[name])
        squares += rest**2
        assert rest == pytest.approx(part["rest"], rel=1e-4, abs=1e-4)
        if part["how"] == "lora":
            values = np.linalg.svd(goal - base[name].astype(np.float64), compute_uv=False)
            assert rest <= np.linalg.norm(values[rank:]) * 1.01 + 1e-4
    total = np.sqrt(squares) / report["delta_norm"]
    assert report["error"] == pytest.approx(total, rel=1e-3, abs=1e-6)


def test_weights_stored_as_in_and_out(tmp_path, command):
    shapes = {
        "h.0.mlp.c_fc.weight": (12, 40),
        "h.0.mlp.c_fc.bias": (40,),
        "h.0.attn.c_proj.weight": (12, 12),
    }
    _, tuned = pair(tmp_path, 2, shapes=shapes)
    command("extract-lora", "tuned", "--base", "base", "--rank", 2, "--out", "adapter")
    assert json.loads((tmp_path / "adapter/adapter_config.json").read_text())["fan_in_fan_out"]
    factors = checkpoints.load(tmp_path / "adapter")
    assert factors["base_model.model.h.0.mlp.c_fc.lora_A.weight"].shape == (2, 12)
    mergecore.merge(["base+adapter"], "linear", out="out")
    for name, tensor in checkpoints.load(tmp_path / "out").items():
        np.testing.assert_allclose(tensor, tuned[name], atol=1e-5, err_msg=name)


def test_what_no_adapter_can_say_is_said(tmp_path, command, refused):
    base, tuned = pair(tmp_path, 2, left="nothing is left")
    said = command("extract-lora", "tuned", "--base", "base", "--rank", 2, "--out", "adapter")
    assert "q_proj.bias" in said.err
    command_line = ("extract-lora", "tuned", "--base", "base", "--rank", 2, "--out")
    assert "exists" in refused(*command_line, "adapter")
    assert "also an input" in refused(*command_line, "base")
    assert "does not differ" in refused(
        "extract-lora", "base", "--base", "base", "--rank", 2, "--out", "x"
    )
    tuned["model.norm.weight"] = np.full(12, np.nan, np.float32)
    checkpoints.save(tmp_path / "tuned", tuned)
    assert "model.norm.weight" in refused(*command_line, "x")
    del tuned["model.norm.weight"]
    checkpoints.save(tmp_path / "tuned", tuned)
    assert "model.norm.weight is in base" in refused(*command_line, "x")
    checkpoints.save(tmp_path / "tuned", {**base, "model.norm.weight": np.ones(3, np.float32)})
    assert "shape [3]" in refused(*command_line, "x")
    assert not (tmp_path / "x").exists()
