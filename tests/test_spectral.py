"""Are tsv, iso_c and iso_cts what their formulas say, whatever matrices come along?"""

from __future__ import annotations

import numpy as np
import pytest

import mergecore
import naive_spectral
import published_spectral
from naive_spectral import split_rank
from spectra import (
    BF16,
    LARGE,
    SHAPES,
    assert_equal_matrices,
    assert_same_change,
    change,
    distance,
    gaussian,
    geometric,
    low_rank,
    models,
    near_duplicates,
    of_zero,
    power_law,
    with_spectrum,
)

METHODS = ("tsv", "iso_c", "iso_cts")


def assert_formula(method, base, tunes, tolerance=1e-5, **options):
    merged = getattr(mergecore, method)(tunes, base, **options)
    assert merged.dtype == base.dtype
    expected = getattr(naive_spectral, method)(tunes, base, **options)
    assert_same_change(merged, expected, base, tolerance)


@pytest.mark.parametrize("tasks", [1, 2, 3, 5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_random_matrices(method, shape, tasks):
    rng = np.random.default_rng([*shape, tasks])
    for dtype in (np.float64, np.float32):
        assert_formula(method, *models(rng, gaussian(rng, shape, tasks), dtype))


@pytest.mark.parametrize("shape", LARGE, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_large_matrices(method, shape):
    rng = np.random.default_rng(1)
    assert_formula(method, *models(rng, gaussian(rng, shape, 3), np.float32))


@pytest.mark.parametrize("shape", [(31, 20), (20, 31), (24, 24)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_weights_and_lambda(method, shape):
    rng = np.random.default_rng(2)
    base, tunes = models(rng, gaussian(rng, shape, 3))
    for weights in ([0.7, 1.3, 0.2], [1.0, -0.5, 2.0], [0.0, 1.0, 1.0], [0.3] * 3):
        assert_formula(method, base, tunes, weights=weights, lambda_=0.4)
    for lambda_ in (0.0, 1.0, -2.5):
        assert_formula(method, base, tunes, lambda_=lambda_)
    assert_formula(method, *(models(rng, gaussian(rng, shape, 3), np.float32)), weights=[3, 0.7, 1])
    one = getattr(mergecore, method)(tunes, base, weights=0.3)
    np.testing.assert_array_equal(getattr(mergecore, method)(tunes, base, weights=[0.3] * 3), one)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_is_scaled_before_it_is_decomposed(method):
    deltas = gaussian(np.random.default_rng(3), (14, 9), 2)
    merge = of_zero(getattr(mergecore, method))
    scaled = merge([2 * deltas[0], 0.5 * deltas[1]])
    assert_equal_matrices(merge(deltas, weights=[2.0, 0.5]), scaled)
    assert distance(scaled, merge(deltas)) > 0.05


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.57, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("shape", [(100, 120), (13, 9), (5, 5), (2, 3), (1, 4)], ids=str)
def test_the_common_space_s_share(shape, fraction):
    rng = np.random.default_rng(4)
    for tasks in (1, 2, 3, 5):
        family = models(rng, gaussian(rng, shape, tasks))
        assert_formula("iso_cts", *family, common_space_fraction=fraction)


@pytest.mark.parametrize("tasks", [1, 2, 3])
@pytest.mark.parametrize("method", METHODS)
def test_no_change_stays_none(method, tasks):
    rng = np.random.default_rng(5)
    base, tunes = models(rng, [np.zeros((12, 7))] * tasks, np.float32)
    np.testing.assert_array_equal(getattr(mergecore, method)(tunes, base), base)
    np.testing.assert_array_equal(getattr(mergecore, method)(tunes, base, rank_tol="storage"), base)


@pytest.mark.parametrize("shape", [(12, 7), (7, 12), (1, 5), (5, 1), (4, 4)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_one_model_that_did_not_change(method, shape):
    rng = np.random.default_rng(6)
    for dtype in (np.float64, np.float32):
        deltas = [*gaussian(rng, shape, 2), np.zeros(shape)]
        assert_formula(method, *models(rng, deltas, dtype))
        assert_formula(method, *models(rng, deltas[::-1], dtype), weights=[1.0, 0.5, 2.0])


@pytest.mark.parametrize("method", METHODS)
def test_changes_that_cancel_leave_nothing(method):
    delta = np.random.default_rng(7).normal(size=(9, 6))
    merged = of_zero(getattr(mergecore, method))([delta, -delta])
    assert np.linalg.norm(merged) <= 1e-9 * np.linalg.norm(delta)


@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (48, 48)], ids=str)
@pytest.mark.parametrize("ranks", [(4,), (4, 4), (3, 8, 1), (20, 30)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_low_ranks(method, ranks, shape):
    """What a LoRA adapter leaves: most directions are none, and get no strength."""
    rng = np.random.default_rng(8)
    deltas = [low_rank(rng, shape, rank) for rank in ranks]
    assert_formula(method, *models(rng, deltas, size=0.1))
    merged = of_zero(getattr(mergecore, method))([d.astype(np.float32) for d in deltas])
    expected = of_zero(getattr(naive_spectral, method))([d.astype(np.float32) for d in deltas])
    assert_equal_matrices(merged, expected, 1e-5)
    rank = min(sum(ranks), *shape)
    assert np.linalg.matrix_rank(merged.astype(np.float64), tol=1e-3 * np.linalg.norm(merged)) <= (
        rank
    )


@pytest.mark.parametrize("shape", [(129, 129), (211, 160), (160, 211)], ids=str)
@pytest.mark.parametrize("ranks", [(1, 1), (1, 1, 1), (2, 2, 2), (4, 4), (1, 8, 2, 1)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_adapters_on_larger_matrices(method, ranks, shape):
    """Few directions among many rows of zeros, of which faer's decomposition found none."""
    rng = np.random.default_rng([4, *ranks, *shape])
    changes = [low_rank(rng, shape, rank) for rank in ranks]
    for dtype in (np.float64, np.float32):
        assert_formula(method, *models(rng, changes, dtype), tolerance=1e-4)


@pytest.mark.parametrize("shape", [(24, 20), (20, 24), (21, 21), (2, 3)], ids=str)
@pytest.mark.parametrize("tasks", [2, 3])
def test_equal_models_are_one_to_tsv(tasks, shape):
    """Their stacked vectors have no full rank, and the polar factor of all would be anything."""
    rng = np.random.default_rng(9)
    delta = rng.normal(size=shape)
    merged = of_zero(mergecore.tsv)([delta] * tasks)
    if min(shape) < tasks:
        assert_equal_matrices(merged, delta)
        return
    u, s, v = np.linalg.svd(delta, full_matrices=False)
    k = min(shape) // tasks
    assert_equal_matrices(merged, (u[:, :k] * s[:k]) @ v[:k])
    for method in METHODS:
        assert_formula(method, *models(rng, [delta] * tasks))


@pytest.mark.parametrize("shape", [(90, 70), (70, 90), (64, 64), (6, 5)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_siblings(method, shape):
    rng = np.random.default_rng(10)
    for tasks, cosine in ((2, 0.95), (3, 0.95), (2, 0.999), (5, 0.9)):
        deltas = near_duplicates(rng, shape, tasks, cosine)
        assert_formula(method, *models(rng, deltas))
    assert_formula(method, *models(rng, near_duplicates(rng, shape, 2), np.float32))


@pytest.mark.parametrize("condition", [1e1, 1e2, 1e3, 1e4, 1e5])
@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (50, 50), (150, 97)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_spectra_that_decay(method, shape, condition):
    rng = np.random.default_rng(11)
    values = power_law(min(shape), condition)
    deltas = [with_spectrum(rng, shape, values * scale) for scale in (1, 0.3)]
    assert_formula(method, *models(rng, deltas))
    assert_formula(method, *models(rng, deltas[:1]))
    base = np.zeros(shape, np.float32)  # so that float32 holds the very change
    assert_formula(method, base, [deltas[0].astype(np.float32)])


@pytest.mark.parametrize("spectrum", [power_law, geometric])
@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (50, 50)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_a_condition_beyond_a_gram_matrix_s_reach(method, shape, spectrum):
    rng = np.random.default_rng(12)
    delta = with_spectrum(rng, shape, spectrum(min(shape), 1e7))
    base = np.zeros(shape)
    for rank_tol in (1e-9, 1e-6, 1e-3):
        assert_formula(method, base, [delta], rank_tol=rank_tol)
    other = with_spectrum(rng, shape, spectrum(min(shape), 1e7))
    assert_formula(method, base, [delta, other], rank_tol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_rank_tol_is_where_directions_end(method):
    rng = np.random.default_rng(13)
    values = np.array([1, 0.9, 0.5, 0.2, 0.05, 0.01, 0.004, 0.001])
    family = models(rng, [with_spectrum(rng, (20, 8), values) for _ in range(2)])
    one = family[0], family[1][:1]
    for rank_tol in (1e-9, 1e-4, 0.002, 0.02, 0.3):
        assert_formula(method, *one, rank_tol=rank_tol)
        assert_formula(method, *family, rank_tol=rank_tol)
    assert_formula(method, *one, rank_tol=1.0)


@pytest.mark.parametrize("shape", [(96, 64), (64, 96), (33, 33)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_models(method, shape):
    """The change is of what is stored, exactly; only the output is rounded."""
    rng = np.random.default_rng(14)
    base, tunes = models(rng, [0.3 * d for d in gaussian(rng, shape, 3)], BF16)
    merge, formula = getattr(mergecore, method), getattr(naive_spectral, method)
    merged, expected = merge(tunes, base, dtype=np.float32), formula(tunes, base)
    assert_same_change(merged, expected, base)
    stored = merge(tunes, base)
    assert stored.dtype == BF16
    step = 2.0**-8 * np.abs(expected)
    assert (np.abs(change(stored, expected)) <= step + 1e-5).all()


@pytest.mark.parametrize("method", METHODS)
def test_storage_is_a_floor(method):
    """Adapters of rank 8 that move the weights by 0.5 %, merged and stored as bfloat16.

    Half of the nuclear norm is then rounding. By the naive methods the change is off by 0.08 to
    0.16 with the floor, and without it tsv's by 0.3 to 0.6 and the others' by 4.5 to 14.
    """
    rng = np.random.default_rng(15)
    for shape, tasks in (((256, 256), 1), ((320, 192), 3), ((192, 320), 3)):
        base = rng.normal(size=shape).astype(BF16)
        start = base.astype(np.float64)
        deltas = [low_rank(rng, shape, 8) for _ in range(tasks)]
        deltas = [0.005 * np.linalg.norm(start) / np.linalg.norm(d) * d for d in deltas]
        tunes = [(start + d).astype(BF16) for d in deltas]
        exact = of_zero(getattr(naive_spectral, method))(deltas)
        merge = getattr(mergecore, method)
        floored = change(merge(tunes, base, rank_tol="storage", dtype=np.float32), base)
        assert distance(floored, exact) < 0.25
        formula = getattr(naive_spectral, method)(tunes, base, rank_tol="storage")
        assert distance(floored, change(formula, base)) < 1e-4
        if method == "iso_c":
            assert distance(change(merge(tunes, base, dtype=np.float32), base), exact) > 2


@pytest.mark.parametrize("shape", [(5,), (), (0,), (2, 3, 4), (2, 3, 2, 2), (0, 4), (4, 0)])
@pytest.mark.parametrize("method", METHODS)
def test_what_is_no_matrix_gets_the_mean(method, shape):
    rng = np.random.default_rng(16)
    base, tunes = models(rng, gaussian(rng, shape, 3), np.float32)
    assert_formula(method, base, tunes, weights=[1, 2, 0.5], lambda_=0.7)


@pytest.mark.parametrize("method", METHODS)
def test_which_arrays_are_matrices(method):
    rng = np.random.default_rng(17)
    base, tunes = models(rng, gaussian(rng, (9, 6), 2))
    merge, formula = getattr(mergecore, method), getattr(naive_spectral, method)
    as_matrix, as_mean = formula(tunes, base), formula(tunes, base, matrices="none")
    for name, words in {
        "": "linear all projections",
        "model.layers.3.self_attn.q_proj.weight": "linear all projections",
        "model.layers.3.mlp.router.weight": "linear all",
        "model.embed_tokens.weight": "all",
        "lm_head.weight": "all",
    }.items():
        for word in ("linear", "all", "projections", "none"):
            merged = merge(tunes, base, matrices=word, name=name)
            expected = as_matrix if word in words.split() else as_mean
            assert_same_change(merged, expected, base)


@pytest.mark.parametrize("method", METHODS)
def test_experts_and_fused_tensors_are_several_matrices(method):
    rng = np.random.default_rng(18)
    merge, formula = getattr(mergecore, method), getattr(naive_spectral, method)
    base, tunes = models(rng, gaussian(rng, (4, 9, 6), 2))
    merged = merge(tunes, base, name="model.layers.0.mlp.experts.down_proj")
    each = [formula([tune[i] for tune in tunes], base[i]) for i in range(4)]
    assert_same_change(merged, np.stack(each), base)
    base, tunes = models(rng, gaussian(rng, (14, 6), 2))
    merged = merge(tunes, base, name="model.layers.0.mlp.gate_up_proj.weight")
    halves = [formula([x[half] for x in tunes], base[half]) for half in (np.s_[:7], np.s_[7:])]
    assert_same_change(merged, np.concatenate(halves), base)


@pytest.mark.parametrize("method", METHODS)
def test_full_rank_needs_no_floor(method):
    """The naive methods against the authors' own steps."""
    rng = np.random.default_rng(19)
    for shape in SHAPES:
        for tasks in (1, 2, 3, 5):
            r = min(shape)
            unsaid = r < tasks or tasks * round((r - int(0.8 * r)) / tasks) > r
            if not unsaid:  # the authors' steps have no answer there
                deltas = gaussian(rng, shape, tasks)
                actual = of_zero(getattr(naive_spectral, method))(deltas)
                assert_equal_matrices(actual, getattr(published_spectral, method)(deltas))


def test_common_and_own_ranks_make_up_the_whole():
    for r in range(130):
        for tasks in (1, 2, 3, 4, 5, 7, 20):
            for fraction in (0.0, 0.2, 0.5, 0.57, 0.8, 1.0):
                common, own = split_rank(r, tasks, fraction)
                assert common + tasks * own == r
                assert min(common, own) >= 0
    # Halves go to the even number: 5 over 2 tasks are 2 each, 3 over 2 are 2 each.
    assert split_rank(25, 2, 0.8) == (21, 2)
    assert split_rank(15, 2, 0.8) == (11, 2)
    assert split_rank(3, 2, 0.0) == (1, 1)
    # A product in float64, cut off: 0.57 of 100 is 56.
    assert split_rank(100, 3, 0.57) == (55, 15)


@pytest.mark.parametrize("shape", [(80, 120), (120, 80)], ids=str)
def test_models_that_are_all_but_equal(shape):
    """What tells them apart is a thousandth of either; in float32 vectors it would be noise."""
    rng = np.random.default_rng(19)
    base = np.zeros(shape, np.float32)
    for tasks in (2, 3):
        deltas = near_duplicates(rng, shape, tasks, 0.999999)
        assert_formula("tsv", base, [delta.astype(np.float32) for delta in deltas])


@pytest.mark.parametrize("rank_tol", [1e-6, 1e-8, 1e-9])
@pytest.mark.parametrize("method", METHODS)
def test_a_low_floor_finds_no_directions_in_rounding(method, rank_tol):
    rng = np.random.default_rng(20)
    base, delta = np.zeros((80, 120), np.float32), rng.normal(size=(80, 120)).astype(np.float32)
    assert_formula(method, base, [delta, delta], weights=[1.0, 2.0], rank_tol=rank_tol)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(48, 30), (30, 48)], ids=str)
def test_float32_spectra_down_to_its_rounding(method, shape):
    """Of models that change other rows, so that float32 holds their sum."""
    rng = np.random.default_rng(21)
    base = np.zeros((2 * shape[0], shape[1]), np.float32)
    tunes = [base.copy(), base.copy()]
    for tune, rows in zip(tunes, (np.s_[: shape[0]], np.s_[shape[0] :]), strict=True):
        tune[rows] = with_spectrum(rng, shape, geometric(min(shape), 3e7))
    assert_formula(method, base, tunes)


@pytest.mark.parametrize("method", METHODS)
def test_a_change_of_denormals_only(method):
    """A model of which somebody's kernel has set the smallest weights to zero."""
    base = np.random.default_rng(22).normal(size=(24, 36)).astype(np.float32)
    base[3, 5], base[9, 7], base[3, 7] = 1e-41, 3e-42, 2e-42
    tune = np.where(np.abs(base) < 1e-38, np.float32(0), base)
    merged = getattr(mergecore, method)([tune], base)
    assert np.abs(change(merged, base)).max() < 1e-40


@pytest.mark.parametrize("method", METHODS)
def test_a_change_beyond_float32_is_said(method):
    huge = np.full((8, 9), 3e38, np.float32)
    with pytest.raises(mergecore.RunError, match="too large for float32: give --dtype float64"):
        getattr(mergecore, method)([huge], -huge)


def test_a_weight_of_a_hundred_times_the_others_size_is_no_floor():
    """Some models have one; rounding it adds one direction of noise, and not to all of them."""
    rng = np.random.default_rng(23)
    base = rng.normal(size=(256, 256)).astype(BF16)
    tune = (base.astype(np.float64) + 0.05 * rng.normal(size=base.shape)).astype(BF16)
    plain = change(mergecore.iso_c([tune], base, rank_tol="storage", dtype=np.float32), base)
    base[7, 9] = tune[7, 9] = 301.0
    spiked = change(mergecore.iso_c([tune], base, rank_tol="storage", dtype=np.float32), base)
    assert distance(spiked, plain) < 0.1
