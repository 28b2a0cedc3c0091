"""Is every method its formula? In memory and from disk, against obvious NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import checkpoints
import mergecore
import naive

FLOATS = [name for name in checkpoints.family()[0] if name != "odd.counter"]

CASES = [
    ("linear", {}),
    ("linear", {"weights": [0.75, 2.0], "normalize": False}),
    ("task_arithmetic", {}),
    ("task_arithmetic", {"weights": [1.0, 0.5], "lambda_": 0.25}),
    ("task_arithmetic", {"weights": [3.0, 0.5], "normalize": True}),
    ("task_arithmetic", {"weights": [1.0, -1.0], "normalize": True}),
    ("ties", {}),
    ("ties", {"density": [0.5, 0.1], "weights": [1.0, 2.0], "lambda_": 1.5}),
    ("ties", {"density": 1.0, "normalize": False}),
    ("ties", {"density": 0.0}),
    ("ties", {"density": 0.7, "weights": [1.0, -1.0]}),
    ("dare_linear", {}),
    ("dare_linear", {"density": 0.25, "rescale": "l1", "weights": 1.0}),
    ("dare_linear", {"density": 0.9, "rescale": "none", "normalize": True}),
    ("dare_ties", {}),
    ("dare_ties", {"density": 0.25, "rescale": "l1", "seed": 7}),
    ("dare_ties", {"density": 0.6, "rescale": "none", "normalize": True, "lambda_": 0.5}),
    ("dare_ties", {"density": 1.0}),
    ("nuslerp", {}),
    ("nuslerp", {"weights": [3.0, 1.0], "nuslerp_flatten": False}),
    ("nuslerp", {"weights": [0.3, 0.7], "nuslerp_flatten": False, "nuslerp_row_wise": True}),
    ("multislerp", {}),
    ("multislerp", {"weights": [1.0, 0.5], "normalize_weights": False, "eps": 1e-4}),
    ("model_stock", {}),
    ("model_stock", {"filter_wise": True}),
    ("model_stock", {"filter_wise": True, "clamp": False}),
    ("karcher", {}),
    ("karcher", {"max_iter": 1, "tol": 1e-3}),
    ("della", {}),
    ("della", {"density": 0.8, "epsilon": 0.1, "rescale": "l1", "lambda_": 0.5}),
    ("della", {"density": 1.0}),
    ("della_linear", {}),
    ("della_linear", {"density": 0.3, "epsilon": 0.0, "rescale": "none", "normalize": True}),
    ("della_linear", {"density": 0.0}),
    ("breadcrumbs", {}),
    ("breadcrumbs", {"density": 0.9, "gamma": 0.3, "rescale": "l1", "weights": [1.0, 0.5]}),
    ("breadcrumbs_ties", {"density": 0.5, "rescale": "inverse", "normalize": True}),
    ("sce", {}),
    ("sce", {"select_topk": 0.3, "lambda_": 0.5}),
    ("ram", {}),
    ("ram", {"epsilon": 0.01, "lambda_": 0.5}),
    ("ramplus_tl", {}),
    ("ramplus_tl", {"epsilon": 0.02, "r": 0.5, "alpha": 2.0}),
    ("nearswap", {}),
    ("nearswap", {"t": 0.01, "lambda_": 0.5}),
    ("arcee_fusion", {}),
    ("passthrough", {}),
    ("passthrough", {"scale": 0.75}),
]
WITHOUT_BASE = ("linear", "karcher", "passthrough")


def as_many(method, models):
    """The models, as many as the method takes."""
    return models[: mergecore.methods()[method].max_models]


def formula(method, options, base, models, name=""):
    """What the naive method gives for one tensor, in the dtype of the arithmetic."""
    options = dict(options)
    options = options | {"name": name} if method.startswith(("dare", "della")) else options
    if isinstance(options.get("weights"), float):
        options["weights"] = [options["weights"]] * len(models)
    arguments = (models,) if method in WITHOUT_BASE else (models, base)
    return getattr(naive, method)(*arguments, **options)


def assert_close(actual, expected, *inputs):
    """Equal but for the order of roundings: a few ulps at the largest magnitude in sight."""
    assert actual.shape == expected.shape
    if actual.size == 0:
        return
    rounded = expected.astype(actual.dtype).astype(np.float64)
    scale = max(float(np.abs(x.astype(np.float64)).max()) for x in (expected, *inputs))
    unit = np.finfo(actual.dtype).eps * scale
    few = 1 if actual.dtype == np.float16 else 8
    np.testing.assert_allclose(actual.astype(np.float64), rounded, rtol=0, atol=few * unit)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize(("method", "options"), CASES)
def test_in_memory(method, options, dtype):
    base, *models = checkpoints.family(seed=3, dtype=dtype)
    for name in FLOATS:
        tensors = [model[name] for model in as_many(method, models)]
        first = {} if method in WITHOUT_BASE else {"base": base[name]}
        merged = getattr(mergecore, method)(tensors, **first, **options, name=name)
        assert_close(merged, formula(method, options, base[name], tensors, name), *tensors)


@pytest.mark.parametrize(("method", "options"), CASES)
def test_on_disk(method, options, tmp_path):
    states = checkpoints.family(seed=4)
    base, *models = states
    paths = [
        checkpoints.save(tmp_path / str(i), state, shards=i + 1) for i, state in enumerate(states)
    ]
    given = {} if method in WITHOUT_BASE else {"base": paths[0]}
    mergecore.merge(as_many(method, paths[1:]), method, out=tmp_path / "out", **given, **options)
    merged = checkpoints.load(tmp_path / "out")
    assert set(merged) == set(base)
    np.testing.assert_array_equal(merged["odd.counter"], base["odd.counter"])
    for name in FLOATS:
        assert merged[name].dtype == base[name].dtype
        tensors = [model[name] for model in as_many(method, models)]
        assert_close(merged[name], formula(method, options, base[name], tensors, name), *tensors)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_slerp(t):
    rng = np.random.default_rng(5)
    a, b = (rng.normal(size=(9, 7)).astype(np.float32) for _ in range(2))
    assert_close(mergecore.slerp([a, b], t=t), naive.slerp(a, b, t), a, b)
    near = (a + 1e-4 * b).astype(np.float32)
    assert_close(mergecore.slerp([a, near], t=t), naive.slerp(a, near, t), a, near)
    np.testing.assert_array_equal(mergecore.slerp([b], base=a, t=t), mergecore.slerp([a, b], t=t))
    zero = np.zeros_like(a)
    assert_close(mergecore.slerp([a, zero], t=t), naive.slerp(a, zero, t), a)


@pytest.mark.parametrize("method", ["nuslerp", "multislerp"])
def test_a_base_may_be_left_out(method):
    rng = np.random.default_rng(7)
    a, b = (rng.normal(size=(9, 7)).astype(np.float32) for _ in range(2))
    merge, formula = getattr(mergecore, method), getattr(naive, method)
    for pair in ([a, b], [a, a], [a, np.zeros_like(a)], [a, -a]):
        options = {"weights": [0.25, 0.75]}
        assert_close(merge(pair, **options), formula(pair, **options), a, b)


def test_directions_that_cancel_have_an_answer():
    a = np.random.default_rng(8).normal(size=(9, 7)).astype(np.float32)
    # No mean direction: the weighted sum; no shortest arc: the first direction, at the mean length.
    assert_close(mergecore.multislerp([a, -2 * a]), -0.5 * a, a)
    assert_close(mergecore.multislerp([a, -a, np.zeros_like(a)]), 0 * a, a)
    assert_close(mergecore.karcher([a, -2 * a]), 1.5 * a, a)
    assert_close(mergecore.nuslerp([a, -a], weights=[0.3, 0.7]), -0.4 * a, a)


def test_model_stock_goes_beyond_the_base_only_if_asked():
    base, a = np.random.default_rng(9).normal(size=(2, 9, 7)).astype(np.float32)
    b = 2 * base - a  # opposite changes that do not quite cancel
    b += 0.5 * (a - base)
    np.testing.assert_array_equal(mergecore.model_stock([a, b, b], base), base)
    beyond = mergecore.model_stock([a, b, b], base, clamp=False)
    assert_close(beyond, naive.model_stock([a, b, b], base, clamp=False), a, b)
    assert not np.array_equal(beyond, base)


@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
def test_ties_over_the_whole_model(density):
    base, *models = checkpoints.family(seed=6, models=3)
    floats = [{k: s[k].astype(np.float32) for k in FLOATS} for s in (base, *models)]
    merged = mergecore.ties(floats[1:], floats[0], density=density, scope="model")
    expected = naive.ties_whole_model(floats[1:], floats[0], density=density)
    for name in FLOATS:
        assert_close(merged[name], expected[name], *(state[name] for state in floats))


@pytest.mark.parametrize(("flag", "word"), [(True, "l1"), (False, "none")])
def test_rescale_takes_mergekit_s_words(flag, word):
    base, a, b = (state["model.embed_tokens.weight"] for state in checkpoints.family())
    flagged = mergecore.dare_linear([a, b], base, rescale=flag)
    np.testing.assert_array_equal(flagged, mergecore.dare_linear([a, b], base, rescale=word))


def test_nan_and_infinity_are_numbers_and_are_counted(tmp_path):
    states = checkpoints.family(seed=8)
    states[1]["model.norm.weight"][0] = np.nan
    states[2]["model.embed_tokens.weight"][0, 0] = np.inf
    paths = [checkpoints.save(tmp_path / str(i), state) for i, state in enumerate(states)]
    report = mergecore.merge(paths[1:], "linear", out=tmp_path / "out")
    merged = checkpoints.load(tmp_path / "out")
    assert np.isnan(merged["model.norm.weight"][0])
    assert np.isinf(merged["model.embed_tokens.weight"][0, 0])
    assert (report.nan, report.inf, report.inputs_nan, report.inputs_inf) == (1, 1, 1, 1)
    assert any("NaN" in warning for warning in report.warnings)
