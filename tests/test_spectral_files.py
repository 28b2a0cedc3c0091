"""Checkpoints merged by their spectra: what is split, what is written, and what is refused?"""

from __future__ import annotations

import json

import numpy as np
import pytest

import checkpoints
import mergecore
import naive_spectral
from mergecore import RecipeError
from spectra import (
    BF16,
    assert_equal_matrices,
    assert_same_change,
    change,
    gaussian,
    low_rank,
    models,
)

METHODS = ("tsv", "iso_c", "iso_cts")
LAYER = "model.layers.0."
CONFIG = {"hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
WHOLE = [np.s_[:]]
# Each tensor's shape, and the matrices in it; None if it is none, and gets the mean.
TENSORS = {
    "model.embed_tokens.weight": ((40, 16), None),
    f"{LAYER}self_attn.qkv_proj.weight": ((32, 16), [np.s_[:16], np.s_[16:24], np.s_[24:]]),
    f"{LAYER}self_attn.qkv_proj.bias": ((32,), None),
    f"{LAYER}self_attn.o_proj.weight": ((16, 16), WHOLE),
    f"{LAYER}mlp.gate_up_proj.weight": ((46, 16), [np.s_[:23], np.s_[23:]]),
    f"{LAYER}mlp.down_proj.weight": ((16, 23), WHOLE),
    f"{LAYER}input_layernorm.weight": ((16,), None),
    f"{LAYER}mlp.gate.weight": ((3, 16), WHOLE),
    f"{LAYER}mlp.experts.down_proj": ((3, 16, 11), [np.s_[0], np.s_[1], np.s_[2]]),
    f"{LAYER}conv.weight": ((6, 4, 2, 2), None),
    "model.norm.weight": ((16,), None),
    "lm_head.weight": ((40, 16), None),
}


def save(tmp_path, tensors=TENSORS, count=2, dtype=np.float32, config=CONFIG, seed=0):
    """`base`, `a`, `b`, ... in the folder; their tensors."""
    rng = np.random.default_rng(seed)
    states = [{} for _ in range(count + 1)]
    for name, (shape, _) in tensors.items():
        base, tunes = models(rng, gaussian(rng, shape, count), dtype)
        for state, tensor in zip(states, [base, *tunes], strict=True):
            state[name] = tensor
    for name, state in zip(("base", "a", "b", "c"), states, strict=False):
        checkpoints.save(tmp_path / name, state, **config)
    return states


def by_parts(method, states, tensors=TENSORS, **options):
    """What the naive method makes of each part of each tensor."""
    base, *tunes = states
    formula, merged = getattr(naive_spectral, method), {}
    for name, (shape, parts) in tensors.items():
        if parts is None:
            each = [tune[name] for tune in tunes]
            merged[name] = formula(each, base[name], matrices="none", **options)
            continue
        merged[name] = np.empty(shape)
        for part in parts:
            each = [tune[name][part] for tune in tunes]
            merged[name][part] = formula(each, base[name][part], **options)
    return merged


def manifest(folder):
    entries = json.loads((folder / "mergecore.json").read_text())["tensors"]
    return {entry["name"]: entry for entry in entries}


@pytest.mark.parametrize("method", METHODS)
def test_every_tensor_part_by_part(method, tmp_path):
    states = save(tmp_path)
    options = {"weights": [1.0, 0.5], "lambda_": 0.7}
    mergecore.merge([tmp_path / "a", tmp_path / "b"], method, base=tmp_path / "base",
                    out=tmp_path / "out", **options)  # fmt: skip
    merged, expected = checkpoints.load(tmp_path / "out"), by_parts(method, states, **options)
    assert merged.keys() == expected.keys()
    for name, tensor in expected.items():
        assert merged[name].dtype == np.float32
        assert_same_change(merged[name], tensor, states[0][name])
    written = manifest(tmp_path / "out")
    for name, (_, parts) in TENSORS.items():
        spectra = written[name].get("spectra") or []
        assert len(spectra) == len(parts or [])
        assert len({one["part"] for one in spectra}) == len(spectra)
        for one in spectra:
            assert set(one) >= {"part", "rank", "stable_rank", "noise_share", "orthogonality"}
            assert 0 <= one["noise_share"] <= 1
            assert one["orthogonality"] < 1e-5
            assert one["residual"] < 1e-5
    assert mergecore.verify(tmp_path / "out") == []


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_and_three_models(method, tmp_path):
    states = save(tmp_path, count=3, dtype=BF16)
    mergecore.merge([tmp_path / x for x in "abc"], method, base=tmp_path / "base",
                    out=tmp_path / "out", dtype="float32")  # fmt: skip
    merged, expected = checkpoints.load(tmp_path / "out"), by_parts(method, states)
    for name, tensor in expected.items():
        assert_same_change(merged[name], tensor, states[0][name])


@pytest.mark.parametrize("method", METHODS)
def test_gpt2_lays_its_fused_tensor_out_by_columns(method, tmp_path):
    tensors = {
        "wte.weight": ((40, 8), None),
        "h.0.attn.c_attn.weight": ((8, 24), [np.s_[:, :8], np.s_[:, 8:16], np.s_[:, 16:]]),
        "h.0.attn.c_proj.weight": ((8, 8), WHOLE),
        "h.0.mlp.c_fc.weight": ((8, 32), WHOLE),
        "ln_f.weight": ((8,), None),
    }
    config = {"model_type": "gpt2", "n_embd": 8, "n_head": 2}
    states = save(tmp_path, tensors, config=config)
    mergecore.merge([tmp_path / "a", tmp_path / "b"], method, base=tmp_path / "base",
                    out=tmp_path / "out")  # fmt: skip
    merged = checkpoints.load(tmp_path / "out")
    for name, tensor in by_parts(method, states, tensors).items():
        assert_same_change(merged[name], tensor, states[0][name])


def test_the_report_s_figures(tmp_path):
    states = save(tmp_path)
    mergecore.merge([tmp_path / "a", tmp_path / "b"], "iso_c", base=tmp_path / "base",
                    out=tmp_path / "out")  # fmt: skip
    written = manifest(tmp_path / "out")
    base, *tunes = states
    for name, (_, parts) in TENSORS.items():
        for part, one in zip(parts or [], written[name].get("spectra") or [], strict=True):
            total = sum(change(tune[name][part], base[name][part]) for tune in tunes)
            values = np.linalg.svd(total, compute_uv=False)
            assert one["rank"] == len(values)
            stable = np.sum(values**2) / values[0] ** 2
            np.testing.assert_allclose(one["stable_rank"], stable, rtol=1e-4)


def test_most_of_it_noise_is_said(tmp_path):
    """Adapters of rank 2, moving the weights by 0.2 %, that were merged and stored as bfloat16."""
    rng = np.random.default_rng(1)
    name = f"{LAYER}mlp.up_proj.weight"
    base = rng.normal(size=(160, 96)).astype(BF16)
    start = base.astype(np.float64)
    checkpoints.save(tmp_path / "base", {name: base})
    for model in "ab":
        delta = low_rank(rng, base.shape, 2)
        delta *= 0.002 * np.linalg.norm(start) / np.linalg.norm(delta)
        checkpoints.save(tmp_path / model, {name: (start + delta).astype(BF16)})
    paths = [tmp_path / "a", tmp_path / "b"]
    report = mergecore.merge(paths, "iso_c", base=tmp_path / "base", out=tmp_path / "out")
    (one,) = manifest(tmp_path / "out")[name]["spectra"]
    assert one["noise_share"] > 0.5
    assert any("noise" in warning and "rank_tol" in warning for warning in report.warnings)
    report = mergecore.merge(
        paths, "iso_c", base=tmp_path / "base", out=tmp_path / "floored", rank_tol="storage"
    )
    (one,) = manifest(tmp_path / "floored")[name]["spectra"]
    assert one["rank"] == 4


@pytest.mark.parametrize("method", METHODS)
def test_threads_and_memory_leave_no_trace(method, tmp_path):
    save(tmp_path)
    outputs = []
    for out, limits in (("one", {"threads": 1}), ("three", {"threads": 3})):
        mergecore.merge([tmp_path / "a", tmp_path / "b"], method, base=tmp_path / "base",
                        out=tmp_path / out, modifiers=["boost"], **limits)  # fmt: skip
        outputs.append(checkpoints.load(tmp_path / out))
    for name, tensor in outputs[0].items():
        assert outputs[1][name].tobytes() == tensor.tobytes(), name


@pytest.mark.parametrize("method", METHODS)
def test_files_and_arrays_are_merged_alike(method, tmp_path):
    tensors = {name: TENSORS[name] for name in TENSORS if "qkv" not in name}  # a config splits it
    base, *tunes = save(tmp_path, tensors)
    modifiers = [{"boost": {"beta": 0.3}}, {"match_norm": {"to": "task_arithmetic"}}]
    mergecore.merge([tmp_path / "a", tmp_path / "b"], method, base=tmp_path / "base",
                    out=tmp_path / "out", modifiers=modifiers)  # fmt: skip
    in_memory = getattr(mergecore, method)(tunes, base, modifiers=modifiers)
    for name, tensor in checkpoints.load(tmp_path / "out").items():
        np.testing.assert_array_equal(tensor, in_memory[name])


PROJECTIONS = ("qkv_proj.weight", "o_proj.weight", "gate_up_proj.weight", "down_proj")


@pytest.mark.parametrize("scope", ["tensor", "model"])
def test_modifiers_of_a_whole_model(scope, tmp_path):
    base, *tunes = states = save(tmp_path)
    modifiers = [
        {"boost": {"beta": 0.1}},
        {"match_norm": {"to": "task_arithmetic", "scope": scope}},
    ]
    mergecore.merge([tmp_path / "a", tmp_path / "b"], "iso_c", base=tmp_path / "base",
                    out=tmp_path / "out", lambda_=0.5, modifiers=modifiers)  # fmt: skip
    merged = checkpoints.load(tmp_path / "out")
    mean = {n: sum(change(t[n], base[n]) for t in tunes) / 2 for n in TENSORS}
    plain = {n: change(tensor, base[n]) for n, tensor in by_parts("iso_c", states).items()}
    for name, (_, parts) in TENSORS.items():
        if name.endswith(PROJECTIONS):
            for part in parts:
                plain[name][part] = naive_spectral.boost(plain[name][part], 0.1)
    expected = naive_spectral.match_norm(plain, mean, scope)
    for name, delta in expected.items():
        assert_equal_matrices(change(merged[name], base[name]), 0.5 * delta, 1e-5)


def test_the_same_merge_by_every_door(command, tmp_path):
    save(tmp_path)
    flags = ["--modifier", "boost:beta=0.1", "--modifier"]
    flags.append("match-norm:to=task-arithmetic,scope=model")
    answer = command("merge", "a", "b", "--method", "ties", "--base", "base", "--out", "flags",
                     "--density", "0.5", *flags)  # fmt: skip
    assert answer.status == 0, answer.err
    (tmp_path / "mix.yml").write_text(
        "merge_method: ties\nbase_model: base\nmodels: [{model: a}, {model: b}]\n"
        "parameters: {density: 0.5, weight: 0.5}\n"
        "modifiers: [{boost: {beta: 0.1}}, {match_norm: {to: task_arithmetic, scope: model}}]\n"
    )
    assert command("run", "mix.yml", "recipe").status == 0
    modifiers = [{"boost": {"beta": 0.1}}]
    modifiers.append({"match_norm": {"to": "task_arithmetic", "scope": "model"}})
    mergecore.merge(["a", "b"], "ties", base="base", out="python", density=0.5, modifiers=modifiers)
    first = checkpoints.load(tmp_path / "flags")
    for other in ("recipe", "python"):
        for name, tensor in checkpoints.load(tmp_path / other).items():
            np.testing.assert_array_equal(tensor, first[name])
    # The recipe that lies beside the output says it, and makes it again.
    said = json.loads((tmp_path / "flags/mergecore.json").read_text())["recipe"]["modifiers"]
    assert [next(iter(one)) for one in said] == ["boost", "match_norm"]
    assert command("run", "flags/mergecore_recipe.yml", "again").status == 0
    for name, tensor in checkpoints.load(tmp_path / "again").items():
        np.testing.assert_array_equal(tensor, first[name])


def test_extrapolation_takes_modifiers(command, tmp_path):
    base, a, _ = save(tmp_path)
    answer = command("extrapolate", "--from", "base", "--to", "a", "--alpha", "0.5",
                     "--modifier", "boost", "--out", "out")  # fmt: skip
    assert answer.status == 0, answer.err
    merged = checkpoints.load(tmp_path / "out")
    name = f"{LAYER}self_attn.o_proj.weight"
    boosted = naive_spectral.boost(change(a[name], base[name]))
    assert_equal_matrices(change(merged[name], a[name]), 0.5 * boosted, 1e-5)
    assert command("extrapolate", "--from", "base", "--to", "a", "--alpha", "0.5", "--method",
                   "iso-c", "--out", "iso").status == 0  # fmt: skip


def test_modifiers_are_listed_and_shown(command):
    listed = command("methods").out
    for name in ("tsv", "iso-c", "iso-cts", "boost", "match-norm"):
        assert name in listed.replace("_", "-")
    assert "beta" in command("methods", "boost").out
    one = json.loads(command("methods", "match-norm", "--json").out)
    assert one["name"] == "match_norm"
    assert {"to", "scope", "parameters"} == {p["name"] for p in one["parameters"]}
    assert "boost" in command("methods", "bost").err


MERGE = ("merge", "a", "b", "--base", "base", "--out", "out", "--method")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ties", "--modifier", "bost"], 'did you mean "boost"'),
        (["ties", "--modifier", "boost:bta=0.1"], 'did you mean "beta"'),
        (["ties", "--modifier", "boost:beta=2"], "beta"),
        (["ties", "--modifier", "boost:beta"], "boost:beta"),
        (["ties", "--modifier", "match-norm"], "match"),
        (["ties", "--modifier", "match-norm:to=linear"], "linear"),
        (["ties", "--modifier", "boost", "--modifier", "boost:beta=0.1"], "twice"),
        (["linear", "--modifier", "boost"], "linear"),
        (["iso-c", "--set", "normalize=true"], "normalize"),
        (["tsv", "--set", "rank_tol=storrage"], "rank_tol"),
        (["iso-cts", "--set", "common_space_fraction=1.5"], "common_space_fraction"),
    ],
)
def test_requests(refused, tmp_path, arguments, says):
    save(tmp_path)
    assert says in refused(*MERGE, *arguments)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


def test_a_boost_that_finds_no_matrix(refused, tmp_path):
    save(tmp_path, {name: TENSORS[name] for name in ("lm_head.weight", "model.norm.weight")})
    assert "boost" in refused(*MERGE, "ties", "--modifier", "boost")


def test_a_recipe_s_modifiers(refused, tmp_path):
    save(tmp_path)
    start = "merge_method: ties\nbase_model: base\nmodels: [{model: a}, {model: b}]\n"
    for modifiers, says in {
        "3": "list",
        "[{boost: {bta: 1}}]": 'did you mean "beta"',
        "[{boost: {beta: [0.1, 0.2]}}]": "beta",
        "[{match_norm: {to: [ties]}}]": "match_norm",
        "[boost, boost]": "twice",
    }.items():
        (tmp_path / "mix.yml").write_text(f"{start}modifiers: {modifiers}\n")
        assert says in refused("run", "mix.yml", "out")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_matrix_that_is_not_finite(command, tmp_path, bad):
    states = save(tmp_path)
    name = f"{LAYER}mlp.experts.down_proj"
    states[2][name][1, 2, 3] = bad
    checkpoints.save(tmp_path / "b", states[2], **CONFIG)
    for arguments in (["tsv"], ["iso-c"], ["iso-cts"], ["task-arithmetic", "--modifier", "boost"]):
        answer = command(*MERGE, *arguments, "--overwrite")
        assert answer.status == 1
        assert answer.err.count("\n") == 1
        assert name in answer.err
        assert " b" in answer.err or "/b" in answer.err
        assert not (tmp_path / "out").exists()
    # Where nothing is decomposed it is a number, and counted.
    with pytest.raises(RecipeError, match="normalize"):
        mergecore.merge(["a", "b"], "tsv", base="base", out="out", normalize=True)
    report = mergecore.merge(
        ["a", "b"], "tsv", base="base", out="out", matrices="none", overwrite=True
    )
    assert report.nan + report.inf > 0


def shares(folder, name):
    return [one["noise_share"] for one in manifest(folder)[name]["spectra"]]


def test_the_figures_are_of_what_was_learnt(tmp_path):
    """iso_cts looks at leftovers, which are small by construction; boost at what tsv has made."""
    save(tmp_path, dtype=BF16)
    paths, name = [tmp_path / "a", tmp_path / "b"], f"{LAYER}mlp.down_proj.weight"
    base = tmp_path / "base"
    for method in ("iso_c", "iso_cts"):
        report = mergecore.merge(paths, method, base=base, out=tmp_path / method)
        assert not [warning for warning in report.warnings if "noise" in warning]
    assert shares(tmp_path / "iso_cts", name) == shares(tmp_path / "iso_c", name)
    out = tmp_path / "boosted"
    report = mergecore.merge(paths, "tsv", base=base, out=out, rank_tol="storage",
                             modifiers=[{"boost": {"rank_tol": "storage"}}])  # fmt: skip
    by_method, by_boost = manifest(out)[name]["spectra"]
    assert (by_method["of"], by_boost["of"]) == ("tsv", "boost")
    assert by_boost["noise_share"] == 0.0
    assert not [warning for warning in report.warnings if "noise" in warning]
    # Of two models, the first half of either's directions.
    assert by_method["rank"] == 16


def test_a_frozen_model_has_no_figures(tmp_path):
    states = save(tmp_path)
    checkpoints.save(tmp_path / "a", states[0], **CONFIG)
    paths, base = [tmp_path / "a", tmp_path / "b"], tmp_path / "base"
    mergecore.merge(paths, "tsv", base=base, out=tmp_path / "out")
    for spectrum in manifest(tmp_path / "out")[f"{LAYER}mlp.down_proj.weight"]["spectra"]:
        assert spectrum["stable_rank"] > 1


@pytest.mark.parametrize(
    ("method", "modifiers", "passes"),
    [
        ("iso_c", [], 1),
        ("task_arithmetic", [{"match_norm": {"to": "ties"}}], 3),
        ("ties", [{"match_norm": {"to": "task_arithmetic", "scope": "model"}}], 3),
        ("iso_c", [{"match_norm": {"to": "task_arithmetic", "scope": "model"}}], 3),
        (
            "sce",
            [{"match_norm": {"to": "ties", "parameters": {"scope": "model", "density": 1}}}],
            4,
        ),
    ],
)
def test_what_is_read_is_what_was_planned(command, tmp_path, method, modifiers, passes):
    save(tmp_path)
    options = [f"--method={method}", "--base=base", "--out=out", "--json"]
    for modifier in modifiers:
        (name, values) = next(iter(modifier.items()))
        parameters = values.pop("parameters", {})
        values |= {f"parameters.{key}": value for key, value in parameters.items()}
        given = ",".join(f"{key}={value}" for key, value in values.items())
        options.append(f"--modifier={name}:{given}")
    plan = json.loads(command("merge", "a", "b", *options, "--dry-run").out)
    report = json.loads(command("merge", "a", "b", *options).out)
    assert plan["passes"] == passes
    assert report["bytes_read"] == plan["bytes_to_read"]
    if method == "iso_c":
        assert plan["matrices"] == {"tensors": 6, "matrices": 11, "largest": [16, 23]}


def test_other_fused_tensors_and_what_is_none(tmp_path):
    """A projection of fewer outputs than inputs, torch's own, Llama 4's experts, and biases."""
    tensors = {
        "l.self_attn.qkv_proj.weight": ((48, 64), [np.s_[:32], np.s_[32:40], np.s_[40:]]),
        "l.self_attn.o_proj.weight": ((64, 32), WHOLE),
        "l.attn.in_proj_weight": ((48, 16), [np.s_[:16], np.s_[16:32], np.s_[32:]]),
        "l.feed_forward.experts.gate_up_proj": (
            (2, 64, 64),
            [np.s_[i, :, start : start + 32] for i in range(2) for start in (0, 32)],
        ),
        "l.feed_forward.experts.down_proj": ((2, 32, 64), [np.s_[0], np.s_[1]]),
        "m.experts.gate_up_proj_bias": ((3, 20), None),
    }
    states = save(tmp_path, tensors)
    paths, base = [tmp_path / "a", tmp_path / "b"], tmp_path / "base"
    mergecore.merge(paths, "iso_c", base=base, out=tmp_path / "out")
    merged = checkpoints.load(tmp_path / "out")
    for name, tensor in by_parts("iso_c", states, tensors).items():
        assert_same_change(merged[name], tensor, states[0][name])
