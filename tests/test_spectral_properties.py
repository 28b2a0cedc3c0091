"""What must hold of the spectral methods and of boost, whatever the matrices?"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import mergecore
import naive_spectral
from spectra import (
    assert_equal_matrices,
    assert_same_change,
    distance,
    gaussian,
    low_rank,
    of_zero,
    orthogonal,
)

METHODS = ("tsv", "iso_c", "iso_cts")
METHOD = st.sampled_from(METHODS)
SHAPE = st.tuples(st.integers(1, 12), st.integers(1, 12))
SEED = st.integers(0, 2**32)
TASKS = st.integers(1, 4)
CLOSE = 1e-5  # a square matrix drawn at random may be nearly singular
BETA = st.one_of(st.sampled_from([0.0, 0.2, 1.0]), st.floats(0, 1))
# Few distinct values, so that ranks lack, columns are equal and singular values are too. A whole
# number of halves, at most four a row: no singular value but zero comes near the floor.
VALUES = st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1.5, 2.0, -3.0])


def merge(method):
    return of_zero(getattr(mergecore, method))


def boosted(delta, **options):
    modifiers = [{"boost": {"matrices": "all", **options}}]
    return mergecore.task_arithmetic([delta], np.zeros_like(delta), modifiers=modifiers)


@st.composite
def coarse(draw):
    """A base and two models, in float32, whose changes are exact."""
    short, long = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    size = short * long
    one = st.lists(VALUES, min_size=size, max_size=size)
    states = [np.array(draw(one), np.float32).reshape(short, long) for _ in range(3)]
    return [x.T.copy() for x in states] if draw(st.booleans()) else states


@settings(deadline=None)
@given(coarse(), st.sampled_from([[1.0, 1.0], [0.5, 2.0], [1.0, -1.0], [0.0, 1.0]]))
@example([np.eye(4, dtype=np.float32)] * 3, [1.0, 1.0])
@example([np.zeros((3, 3), np.float32)] + [np.ones((3, 3), np.float32)] * 2, [1.0, 1.0])
def test_iso_c(states, weights):
    base, *tunes = states
    merged = mergecore.iso_c(tunes, base, weights=weights)
    expected = naive_spectral.iso_c(tunes, base, weights=weights)
    # Of float32 the sum's own rounding is left, beside a base that may be larger.
    np.testing.assert_allclose(merged, expected, rtol=0, atol=2e-5)


@settings(deadline=None)
@given(METHOD, SHAPE, TASKS, SEED, st.integers(0, 3))
def test_every_method(method, shape, tasks, seed, flat):
    """Some models unchanged, some of rank one, some equal."""
    rng = np.random.default_rng(seed)
    deltas = gaussian(rng, shape, tasks)
    if flat == 1:
        deltas[-1] = np.zeros(shape)
    elif flat == 2:
        deltas = [low_rank(rng, shape, 1) for _ in deltas]
    elif flat == 3:
        deltas = deltas[:1] * tasks
    actual = merge(method)(deltas)
    assert_same_change(actual, of_zero(getattr(naive_spectral, method))(deltas), 0 * actual)


@settings(deadline=None)
@given(METHOD, SHAPE, TASKS, SEED)
def test_the_models_order_does_not_matter(method, shape, tasks, seed):
    rng = np.random.default_rng(seed)
    deltas, weights = gaussian(rng, shape, tasks), rng.uniform(0.2, 2, tasks)
    order = rng.permutation(tasks)
    shuffled = merge(method)([deltas[i] for i in order], weights=[weights[i] for i in order])
    assert_equal_matrices(shuffled, merge(method)(deltas, weights=list(weights)), CLOSE)


@settings(deadline=None)
@given(METHOD, SHAPE, TASKS, SEED)
def test_signs_go_through(method, shape, tasks, seed):
    """Whichever signs a decomposition gives its vectors: of −δ the merge is the negative."""
    deltas = gaussian(np.random.default_rng(seed), shape, tasks)
    merged = merge(method)(deltas)
    assert_equal_matrices(merge(method)([-d for d in deltas]), -merged, CLOSE)
    assert_equal_matrices(merge(method)(deltas, weights=[-1.0] * tasks), -merged, CLOSE)


@settings(deadline=None)
@given(METHOD, SHAPE, TASKS, SEED, st.floats(1e-3, 1e3))
def test_a_scale_goes_through(method, shape, tasks, seed, scale):
    deltas = gaussian(np.random.default_rng(seed), shape, tasks)
    assert_equal_matrices(
        merge(method)([scale * d for d in deltas]), scale * merge(method)(deltas), CLOSE
    )


@settings(deadline=None)
@given(METHOD, SHAPE, TASKS, SEED)
def test_rotations_go_through(method, shape, tasks, seed):
    """f(QAZ) = Q f(A) Z."""
    rng = np.random.default_rng(seed)
    deltas, (m, n) = gaussian(rng, shape, tasks), shape
    q, z = orthogonal(rng, m, m), orthogonal(rng, n, n)
    turned = merge(method)([q @ d @ z for d in deltas])
    if not (method == "tsv" and min(shape) < tasks):
        assert_equal_matrices(turned, q @ merge(method)(deltas) @ z, CLOSE)


@settings(deadline=None)
@given(st.sampled_from(["tsv", "iso_c"]), SHAPE, TASKS, SEED)
def test_transposes_go_through(method, shape, tasks, seed):
    """Not through iso_cts, which leaves the common space out on one side only."""
    deltas = gaussian(np.random.default_rng(seed), shape, tasks)
    transposed = merge(method)([d.T.copy() for d in deltas])
    assert_equal_matrices(transposed, merge(method)(deltas).T, CLOSE)


def test_iso_cts_leaves_the_rows_common_space_out():
    deltas = gaussian(np.random.default_rng(0), (12, 12), 3)
    transposed = merge("iso_cts")([d.T.copy() for d in deltas])
    assert distance(transposed, merge("iso_cts")(deltas).T) > 1e-2


@settings(deadline=None)
@given(SHAPE, TASKS, SEED)
def test_iso_c_s_singular_values_are_their_mean(shape, tasks, seed):
    deltas = gaussian(np.random.default_rng(seed), shape, tasks)
    mean = np.linalg.svd(sum(deltas), compute_uv=False).mean()
    merged = merge("iso_c")(deltas)
    np.testing.assert_allclose(np.linalg.svd(merged, compute_uv=False), mean, rtol=CLOSE)
    assert np.linalg.norm(merged) <= np.linalg.norm(sum(deltas)) * (1 + CLOSE)


@settings(deadline=None)
@given(SHAPE, SEED, st.integers(1, 3))
def test_iso_c_gives_directions_that_are_none_no_strength(shape, seed, rank):
    delta = low_rank(np.random.default_rng(seed), shape, rank)
    rank = min(rank, *shape)
    values = np.linalg.svd(merge("iso_c")([delta]), compute_uv=False)
    mean = np.linalg.svd(delta, compute_uv=False).sum() / min(shape)
    np.testing.assert_allclose(values[:rank], mean, rtol=CLOSE)
    np.testing.assert_allclose(values[rank:], 0, atol=CLOSE * mean)


@settings(deadline=None)
@given(SHAPE, SEED, st.floats(0.1, 3))
def test_one_task_alone(shape, seed, weight):
    """TSV returns it; Iso-CTS of one task is Iso-C."""
    delta = np.random.default_rng(seed).normal(size=shape)
    assert_equal_matrices(merge("tsv")([delta], weights=[weight]), weight * delta, CLOSE)
    assert_equal_matrices(merge("iso_cts")([delta]), merge("iso_c")([delta]), CLOSE)


@settings(deadline=None)
@given(SHAPE, TASKS, SEED)
def test_a_space_that_is_all_common_is_iso_c(shape, tasks, seed):
    deltas = gaussian(np.random.default_rng(seed), shape, tasks)
    merged = merge("iso_cts")(deltas, common_space_fraction=1.0)
    assert_equal_matrices(merged, merge("iso_c")(deltas), CLOSE)


@settings(deadline=None)
@given(METHOD, SHAPE, TASKS, SEED, st.floats(-2, 2))
def test_lambda_scales_the_change(method, shape, tasks, seed, lambda_):
    deltas = gaussian(np.random.default_rng(seed), shape, tasks)
    scaled = merge(method)(deltas, lambda_=lambda_)
    np.testing.assert_allclose(scaled, lambda_ * merge(method)(deltas), rtol=1e-9, atol=1e-12)


@settings(deadline=None)
@given(SHAPE, SEED, BETA)
def test_boost(shape, seed, beta):
    delta = np.random.default_rng(seed).normal(size=shape)
    assert_equal_matrices(boosted(delta, beta=beta), naive_spectral.boost(delta, beta), CLOSE)


@settings(deadline=None)
@given(SHAPE, SEED)
def test_boost_from_end_to_end(shape, seed):
    """β = 1 changes nothing; β = 0 raises all to the first; the norm falls as β grows."""
    delta = np.random.default_rng(seed).normal(size=shape)
    u, s, v = np.linalg.svd(delta, full_matrices=False)
    assert_equal_matrices(boosted(delta, beta=1.0), delta, CLOSE)
    assert_equal_matrices(boosted(delta, beta=0.0), s[0] * u @ v, CLOSE)
    norms = [np.linalg.norm(boosted(delta, beta=b)) for b in np.linspace(0, 1, 9)]
    assert all(b <= a * (1 + CLOSE) for a, b in pairwise(norms))


@settings(deadline=None)
@given(SHAPE, SEED, st.floats(0, 0.999))
def test_boost_is_a_polar_factor_and_a_few_triplets(shape, seed, beta):
    """σ* polar(A) + U (S − σ*) V over the triplets up to σ*."""
    delta = np.random.default_rng(seed).normal(size=shape)
    u, s, v = np.linalg.svd(delta, full_matrices=False)
    j = int(np.argmax(np.cumsum(s) >= beta * s.sum()))
    few = (u[:, : j + 1] * (s[: j + 1] - s[j])) @ v[: j + 1]
    assert_equal_matrices(boosted(delta, beta=beta), s[j] * u @ v + few, CLOSE)


@settings(deadline=None)
@given(SHAPE, SEED, BETA)
def test_boost_leaves_directions_that_are_none_alone(shape, seed, beta):
    delta = low_rank(np.random.default_rng(seed), shape, 2)
    merged = boosted(delta, beta=beta)
    assert_equal_matrices(merged, naive_spectral.boost(delta, beta), CLOSE)
    values = np.linalg.svd(merged, compute_uv=False)
    np.testing.assert_allclose(values[2:], 0, atol=CLOSE * values[0])


@pytest.mark.parametrize(("beta", "least"), [(0.399, 4.0), (0.401, 3.0), (0.701, 2.0), (0.901, 1)])
def test_boost_counts_from_the_first_whose_sum_reaches_its_share(beta, least):
    merged = boosted(np.diag([1.0, 3.0, 4.0, 2.0]), beta=beta)
    values = np.linalg.svd(merged, compute_uv=False)
    np.testing.assert_allclose(values, np.maximum([4, 3, 2, 1], least), rtol=1e-9)
