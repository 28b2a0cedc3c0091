"""What do boost and match_norm make of a merged change, in which order, and what is refused?"""

from __future__ import annotations

import numpy as np
import pytest

import checkpoints
import mergecore
import naive
import naive_spectral
from mergecore import MergecoreError, RecipeError
from spectra import (
    BF16,
    assert_equal_matrices,
    change,
    distance,
    gaussian,
    low_rank,
    models,
    of_zero,
    power_law,
    with_spectrum,
)

UP = "model.layers.0.mlp.up_proj.weight"
SHAPES = {
    "model.embed_tokens.weight": (30, 8),
    UP: (17, 8),
    "model.layers.0.self_attn.q_proj.weight": (8, 8),
    "model.layers.0.mlp.router.weight": (5, 8),
    "model.layers.0.input_layernorm.weight": (8,),
    "model.norm.weight": (8,),
}
PROJECTIONS = ("up_proj", "q_proj")


def states(count=2, seed=0):
    """Dicts of a base and of models, in float64."""
    rng = np.random.default_rng(seed)
    made = {name: models(rng, gaussian(rng, shape, count)) for name, shape in SHAPES.items()}
    tunes = [{name: tunes[i] for name, (_, tunes) in made.items()} for i in range(count)]
    return {name: base for name, (base, _) in made.items()}, tunes


def changes(merged, base):
    return {name: change(merged[name], base[name]) for name in base}


def assert_all_equal(actual, expected, tolerance=1e-9):
    assert actual.keys() == expected.keys()
    for name, matrix in expected.items():
        assert_equal_matrices(actual[name], matrix, tolerance)


def boost(delta, dtype=np.float64, **options):
    """Through the package, of one change of a base that is zero."""
    merged = mergecore.task_arithmetic(
        [delta.astype(dtype)], np.zeros(delta.shape, dtype), modifiers=[{"boost": options}]
    )
    assert merged.dtype == dtype
    return merged


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (33, 64), (64, 33), (97, 97), (151, 60)])
def test_boost_of_one_array(shape, dtype):
    delta = np.random.default_rng(1).normal(size=shape).astype(dtype)
    assert_equal_matrices(boost(delta, dtype), naive_spectral.boost(delta), 1e-5)
    for beta in (0.0, 0.01, 0.5, 0.9, 1.0):
        expected = naive_spectral.boost(delta, beta)
        assert_equal_matrices(boost(delta, dtype, beta=beta), expected, 1e-5)


@pytest.mark.parametrize("condition", [1e1, 1e3, 1e5, 1e7])
@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (50, 50)], ids=str)
def test_boost_of_spectra_that_decay(shape, condition):
    rng = np.random.default_rng(2)
    delta = with_spectrum(rng, shape, power_law(min(shape), condition))
    for beta in (0.01, 0.2, 0.8):
        for rank_tol in (1e-9, 1.1e-3):
            expected = naive_spectral.boost(delta, beta, rank_tol)
            assert_equal_matrices(boost(delta, beta=beta, rank_tol=rank_tol), expected, 1e-5)


def test_boost_of_nothing_and_of_low_rank():
    assert not boost(np.zeros((6, 4))).any()
    delta = low_rank(np.random.default_rng(3), (40, 30), 5)
    assert_equal_matrices(boost(delta), naive_spectral.boost(delta), 1e-5)
    assert np.linalg.matrix_rank(boost(delta), tol=1e-3) == 5


def test_boost_leaves_what_is_below_the_storage_floor():
    rng = np.random.default_rng(4)
    base = rng.normal(size=(256, 192)).astype(BF16)
    delta = low_rank(rng, base.shape, 8)
    delta *= 0.005 * np.linalg.norm(base.astype(np.float64)) / np.linalg.norm(delta)
    tune = (base.astype(np.float64) + delta).astype(BF16)
    noise = naive_spectral.task_vectors([tune], base, None)[1][0]
    options = {"beta": 0.05, "rank_tol": "storage"}
    merged = mergecore.task_arithmetic(
        [tune], base, weights=1.0, dtype=np.float32, modifiers=[{"boost": options}]
    )
    expected = naive_spectral.boost(change(tune, base), **options, noise=noise)
    assert_equal_matrices(change(merged, base), expected, 1e-4)
    whole = naive_spectral.boost(change(tune, base), 0.05)
    assert distance(change(merged, base), whole) > 0.5


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "tsv", "iso_c", "dare_ties"])
def test_boost_takes_projections_and_comes_before_lambda(method):
    base, tunes = states()
    merge = getattr(mergecore, method)
    plain = changes(merge(tunes, base), base)
    merged = changes(merge(tunes, base, lambda_=0.5, modifiers=["boost"]), base)
    expected = {
        name: 0.5 * (naive_spectral.boost(d) if any(p in name for p in PROJECTIONS) else d)
        for name, d in plain.items()
    }
    assert_all_equal(merged, expected, 1e-6)


@pytest.mark.parametrize(
    ("matrices", "boosted"),
    [("projections", "up_proj q_proj"), ("linear", "up_proj q_proj router"),
     ("all", "up_proj q_proj router embed_tokens")],
)  # fmt: skip
def test_which_matrices_are_boosted(matrices, boosted):
    base, tunes = states()
    modifiers = [{"boost": {"matrices": matrices, "beta": 0.1}}]
    plain = changes(mergecore.task_arithmetic(tunes, base), base)
    merged = changes(mergecore.task_arithmetic(tunes, base, modifiers=modifiers), base)
    for name, delta in plain.items():
        chosen = any(word in name for word in boosted.split())
        assert_equal_matrices(merged[name], naive_spectral.boost(delta, 0.1) if chosen else delta)


def test_parts_are_boosted_each_by_itself():
    rng = np.random.default_rng(5)
    name = "model.layers.0.mlp.gate_up_proj.weight"
    base, (tune,) = models(rng, gaussian(rng, (14, 6), 1))
    merged = mergecore.task_arithmetic([{name: tune}], {name: base}, modifiers=["boost"])
    halves = [naive_spectral.boost(change(tune, base)[h]) for h in (np.s_[:7], np.s_[7:])]
    assert_equal_matrices(change(merged[name], base), np.concatenate(halves))


@pytest.mark.parametrize("scope", ["tensor", "model"])
@pytest.mark.parametrize("method", ["tsv", "iso_c", "iso_cts", "ties", "dare_linear"])
def test_match_norm(method, scope):
    base, tunes = states(3)
    merge = getattr(mergecore, method)
    plain = changes(merge(tunes, base), base)
    target = changes(mergecore.task_arithmetic(tunes, base), base)
    modifiers = [{"match_norm": {"to": "task_arithmetic", "scope": scope}}]
    merged = changes(merge(tunes, base, modifiers=modifiers), base)
    assert_all_equal(merged, naive_spectral.match_norm(plain, target, scope), 1e-6)
    if scope == "tensor":
        for name, delta in merged.items():
            np.testing.assert_allclose(
                np.linalg.norm(delta), np.linalg.norm(target[name]), rtol=1e-6
            )
    whole = [naive_spectral.norm(list(x.values())) for x in (merged, target)]
    np.testing.assert_allclose(*whole, rtol=1e-6)
    tripled = changes(merge(tunes, base, lambda_=3.0, modifiers=modifiers), base)
    assert_all_equal(tripled, {name: 3 * d for name, d in merged.items()}, 1e-6)


def test_match_norm_in_float32():
    rng = np.random.default_rng(6)
    base, tunes = models(rng, gaussian(rng, (60, 40), 3), np.float32, size=0.01)
    merged = mergecore.tsv(tunes, base, modifiers=[{"match_norm": {"to": "task-arithmetic"}}])
    target = change(naive.task_arithmetic(tunes, base), base)
    np.testing.assert_allclose(
        np.linalg.norm(change(merged, base)), np.linalg.norm(target), rtol=1e-6
    )


def test_match_norm_s_target_has_parameters_of_its_own():
    base, tunes = states(3)
    for parameters in ({"lambda": 0.25}, {"weight": 1.0}, {"normalize": True, "weight": 2.0}):
        keywords = {{"lambda": "lambda_", "weight": "weights"}.get(k, k): v
                    for k, v in parameters.items()}  # fmt: skip
        modifiers = [{"match_norm": {"to": "task_arithmetic", "parameters": parameters}}]
        merged = changes(mergecore.tsv(tunes, base, modifiers=modifiers), base)
        target = changes(mergecore.task_arithmetic(tunes, base, **keywords), base)
        for name, delta in merged.items():
            wanted = np.linalg.norm(target[name])
            np.testing.assert_allclose(np.linalg.norm(delta), wanted, rtol=1e-6)
    modifiers = [{"match_norm": {"to": "ties", "parameters": {"density": 0.3}}}]
    merged = changes(mergecore.task_arithmetic(tunes, base, modifiers=modifiers), base)
    target = changes(mergecore.ties(tunes, base, density=0.3), base)
    for name, delta in merged.items():
        np.testing.assert_allclose(np.linalg.norm(delta), np.linalg.norm(target[name]), rtol=1e-6)


def test_no_change_has_no_norm_to_match():
    base, tunes = states()
    modifiers = [{"match_norm": {"to": "task_arithmetic"}}]
    same = mergecore.tsv([base, base], base, modifiers=modifiers)
    for name, tensor in base.items():
        np.testing.assert_array_equal(same[name], tensor)
    # What neither changes, and what only the target does: a sum of nothing stays nothing.
    tunes = [tune | {UP: base[UP]} for tune in tunes]
    merged = mergecore.tsv(tunes, base, modifiers=modifiers)
    np.testing.assert_array_equal(merged[UP], base[UP])
    zero, one = np.zeros((5, 4)), np.ones((5, 4))
    modifiers = [{"match_norm": {"to": "ties", "parameters": {"density": 1.0}}}]
    assert mergecore.ties([one, -one], zero, density=1.0).any()
    assert not mergecore.iso_c([one, -one], zero, modifiers=modifiers).any()
    # A target of no norm leaves no change.
    modifiers = [{"match_norm": {"to": "task_arithmetic", "parameters": {"lambda": 0.0}}}]
    np.testing.assert_array_equal(mergecore.tsv([one, 2 * one], zero, modifiers=modifiers), zero)


def test_modifiers_act_in_their_order():
    base, tunes = states()
    boost_, match = {"boost": {"beta": 0.1}}, {"match_norm": {"to": "task_arithmetic"}}
    target = changes(mergecore.task_arithmetic(tunes, base), base)
    matched = changes(mergecore.ties(tunes, base, modifiers=[boost_, match]), base)
    boosted = changes(mergecore.ties(tunes, base, modifiers=[match, boost_]), base)
    wanted = np.linalg.norm(target[UP])
    np.testing.assert_allclose(np.linalg.norm(matched[UP]), wanted, rtol=1e-6)
    assert np.linalg.norm(boosted[UP]) > 1.05 * wanted
    plain = changes(mergecore.ties(tunes, base), base)
    expected = naive_spectral.boost(naive_spectral.match_norm(plain, target)[UP], 0.1)
    assert_equal_matrices(boosted[UP], expected, 1e-6)


def test_modifiers_work_on_the_change_not_on_what_it_is_added_to():
    rng = np.random.default_rng(7)
    base, tunes = models(rng, gaussian(rng, (12, 9), 2))
    onto = rng.normal(size=base.shape)
    merged = mergecore.task_arithmetic(tunes, base, onto=onto, modifiers=["boost"])
    delta = change(mergecore.task_arithmetic(tunes, base), base)
    assert_equal_matrices(change(merged, onto), naive_spectral.boost(delta))


def test_names_may_be_bare_and_hyphened():
    base, tunes = states()
    one, *others = (
        mergecore.task_arithmetic(tunes, base, modifiers=[given])
        for given in ("boost", {"boost": {}}, {"boost": {"beta": 0.2, "rank_tol": 1e-6}})
    )
    for other in others:
        for name, tensor in one.items():
            np.testing.assert_array_equal(other[name], tensor)
    hyphen = mergecore.tsv(tunes, base, modifiers=[{"match-norm": {"to": "task-arithmetic"}}])
    score = mergecore.tsv(tunes, base, modifiers=[{"match_norm": {"to": "task_arithmetic"}}])
    for name, tensor in score.items():
        np.testing.assert_array_equal(hyphen[name], tensor)


TO = {"to": "task_arithmetic"}
REFUSED = [
    (["bost"], 'did you mean "boost"'),
    ([{"match_nrm": TO}], 'did you mean "match_norm"'),
    ([{"boost": {"bta": 0.2}}], 'did you mean "beta"'),
    ([{"boost": {"beta": 1.5}}], "beta"),
    ([{"boost": {"beta": -0.1}}], "beta"),
    ([{"boost": {"beta": float("nan")}}], "beta"),
    ([{"boost": {"beta": "much"}}], "beta"),
    ([{"boost": {"rank_tol": 0.0}}], "rank_tol"),
    ([{"boost": {"rank_tol": 2}}], "rank_tol"),
    ([{"boost": {"rank_tol": "storrage"}}], "rank_tol"),
    ([{"boost": {"matrices": "lineer"}}], "linear"),
    ([{"boost": {"matrices": "none"}}], "boost"),
    (["match_norm"], "match_norm"),
    ([{"match_norm": {"scope": "model"}}], "match_norm"),
    ([{"match_norm": TO | {"scope": "world"}}], "scope"),
    ([{"match_norm": {"to": "linear"}}], "linear"),
    ([{"match_norm": {"to": "slerp"}}], "slerp"),
    ([{"match_norm": {"to": "task_aritmetic"}}], "task_arithmetic"),
    ([{"match_norm": TO | {"parameters": {"densty": 0.5}}}], "densty"),
    ([{"match_norm": TO | {"parameters": {"lambda": "x"}}}], "lambda"),
    ([{"match_norm": {"to": "ties", "parameters": {"density": 2}}}], "density"),
    (["boost", {"boost": {"beta": 0.1}}], "twice"),
    ([{"boost": {}, "match_norm": TO}], "modifier"),
]


@pytest.mark.parametrize(("modifiers", "says"), REFUSED, ids=str)
def test_refused_modifiers(modifiers, says):
    base, tunes = states()
    with pytest.raises(RecipeError) as refusal:
        mergecore.task_arithmetic(tunes, base, modifiers=modifiers)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("modifiers", [3, [3], [["boost"]], [{}]], ids=str)
def test_modifiers_are_a_list_of_names(modifiers):
    base, tunes = states()
    with pytest.raises((RecipeError, TypeError)):
        mergecore.task_arithmetic(tunes, base, modifiers=modifiers)


def test_modifiers_need_a_change_of_a_base(tmp_path):
    base, tunes = states()
    with pytest.raises((RecipeError, TypeError), match="modifiers"):
        mergecore.linear(tunes, modifiers=["boost"])
    folders = [checkpoints.save(tmp_path / str(i), s) for i, s in enumerate([base, *tunes])]
    for method in ("linear", "karcher", "multislerp"):
        with pytest.raises(RecipeError, match="base"):
            mergecore.merge(folders[1:], method, out=tmp_path / "out", modifiers=["boost"])
    assert not (tmp_path / "out").exists()
    merged = mergecore.multislerp(tunes, base, modifiers=["boost"])
    delta = change(mergecore.multislerp(tunes, base)[UP], base[UP])
    assert_equal_matrices(change(merged[UP], base[UP]), naive_spectral.boost(delta), 1e-6)


@pytest.mark.parametrize("names", [("model.norm.weight",), ("model.embed_tokens.weight",)])
def test_a_boost_that_finds_no_matrix(names):
    base, tunes = ({n: s[n] for n in names} for s in (states()[0], states()[1][0]))
    with pytest.raises(RecipeError, match="boost"):
        mergecore.task_arithmetic([tunes], base, modifiers=["boost"])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_matrix_that_is_not_finite_is_named_with_its_model(bad):
    base, tunes = states()
    tunes[1][UP][3, 2] = bad
    for merge, options in (
        (mergecore.tsv, {}),
        (mergecore.iso_c, {}),
        (mergecore.iso_cts, {}),
        (mergecore.task_arithmetic, {"modifiers": ["boost"]}),
    ):
        with pytest.raises(MergecoreError) as refusal:
            merge(tunes, base, **options)
        said = str(refusal.value)
        assert UP in said
        assert "1" in said.replace(UP, "")
        assert "\n" not in said


@pytest.mark.parametrize("method", ["tsv", "iso_c", "iso_cts"])
def test_the_methods_own_refusals(method):
    base, (a, b) = models(np.random.default_rng(8), [np.ones((4, 3))] * 2)
    merge = getattr(mergecore, method)
    with pytest.raises(TypeError, match="normalize"):
        merge([a, b], base, normalize=True)
    with pytest.raises(TypeError, match="base"):
        merge([a, b])
    for options in (
        *({"rank_tol": value} for value in (0.0, 1e-10, 1.1, -1.0, "storrage", float("nan"))),
        *({"matrices": word} for word in ("lineer", "")),
        *({"weights": value} for value in ([1.0], float("nan"), [1, 2, 3])),
    ):
        with pytest.raises(RecipeError) as refusal:
            merge([a, b], base, **options)
        assert next(iter(options)).removesuffix("s") in str(refusal.value)
    if method == "iso_cts":
        for fraction in (-0.1, 1.1):
            with pytest.raises(RecipeError, match="common_space_fraction"):
                merge([a, b], base, common_space_fraction=fraction)
    else:
        with pytest.raises(TypeError, match="common_space_fraction"):
            merge([a, b], base, common_space_fraction=0.8)


def test_boost_of_a_zero_base_is_a_boost_of_the_model():
    """The doors agree: a base of zeros, and a task vector as it is."""
    delta = np.random.default_rng(9).normal(size=(8, 6))
    merged = of_zero(mergecore.task_arithmetic)([delta], modifiers=["boost"])
    np.testing.assert_array_equal(merged, boost(delta))


@pytest.mark.parametrize("method", ["ties", "task_arithmetic", "nuslerp"])
def test_weights_that_cancel_do_not_move_the_storage_floor(method):
    rng = np.random.default_rng(30)
    base = rng.normal(size=(120, 100)).astype(BF16)
    start = base.astype(np.float64)
    tunes = [(start + 0.01 * rng.normal(size=base.shape)).astype(BF16) for _ in range(2)]
    options = {"density": 1.0} if method == "ties" else {}
    options |= {"normalize": True} if method == "task_arithmetic" else {}
    merges = [
        getattr(mergecore, method)(
            tunes,
            base=base,
            weights=weight,
            dtype=np.float32,
            modifiers=[{"boost": {"rank_tol": "storage"}}],
            **options,
        )
        for weight in (0.5, 1.0, 50.0)
    ]
    for other in merges[1:]:
        assert_equal_matrices(change(other, base), change(merges[0], base), 1e-5)


def test_match_norm_takes_weights_of_the_other_method():
    base, tunes = states()
    weights = [0.9, 0.1]
    modifier = {"match_norm": {"to": "task-arithmetic", "parameters": {"weight": weights}}}
    merged = mergecore.ties(tunes, base, weights=weights, modifiers=[modifier])
    other = mergecore.task_arithmetic(tunes, base, weights=weights)
    for name in base:
        lengths = [np.linalg.norm(change(of[name], base[name])) for of in (merged, other)]
        assert lengths[0] == pytest.approx(lengths[1], rel=1e-5)
    modifier["match_norm"]["parameters"]["weight"] = [1.0, 1.0, 1.0]
    with pytest.raises(RecipeError, match="weight has 3 values for 2 models"):
        mergecore.ties(tunes, base, modifiers=[modifier])
