"""Do the tests of a correlation find what was published, and what chance makes?

Losses and scores are the published tables of Cao et al. (arXiv:2603.09463); their p-values take a
task's best loss over the methods.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mergecore.diagnose import association

# Losses of Qwen2.5 on GLUE (table 2) and table 1's "mean ± deviation"; fine-tuned accuracies of 3B.
TUNED = [82.7, 88.4, 89.5, 92.6, 84.2, 90.3, 95.4, 73.2]
LOSSES = {
    "3B LA": ([-2.1, -2.4, -15.6, -8.2, -25.7, -5.6, -1.8, -48.1], 13.7, 15.1),
    "3B TA": ([-1.9, -2.5, -15.6, -8.1, -25.7, -5.2, -1.9, -48.1], 13.6, 15.2),
    "3B TIES": ([-4.3, -0.7, -6.6, -26.9, -24.9, -2.8, -3.7, -36.5], 13.3, 13.0),
    "3B DARE": ([-14.9, -60.0, -7.7, -45.4, -24.9, -10.4, -22.7, -30.8], 27.1, 16.8),
    "3B SLERP": ([-1.3, -2.4, -15.1, -7.8, -25.6, -4.8, -1.8, -46.2], 13.1, 14.7),
    "7B LA": ([-4.2, -5.1, -15.9, -7.4, -28.2, -2.0, -1.6, -75.0], 17.4, 23.3),
    "7B TA": ([-3.7, -5.1, -15.9, -7.6, -28.2, -2.8, -1.7, -71.4], 17.0, 22.2),
    "7B TIES": ([-27.7, -2.8, -37.0, -32.5, -28.2, -0.4, -1.7, -78.6], 26.1, 24.3),
    "7B DARE": ([-100.0, -70.2, -64.1, -47.0, -28.2, -47.0, -100.0, -44.6], 62.6, 24.6),
    "7B SLERP": ([-4.0, -5.0, -16.7, -7.3, -28.2, -4.4, -1.7, -73.2], 17.6, 22.6),
    "14B LA": ([-7.5, -1.9, -13.6, -7.2, -29.7, -5.4, -2.1, -85.0], 19.0, 26.3),
    "14B TA": ([-7.6, -1.9, -13.0, -7.3, -29.7, -5.0, -2.0, -86.7], 19.1, 26.9),
    "14B TIES": ([-7.4, -4.1, -9.8, -15.1, -20.2, -6.2, -1.1, -85.0], 18.6, 25.7),
    "14B DARE": ([-67.8, -37.1, -5.4, -47.3, -14.3, -1.9, -4.8, -76.7], 31.9, 27.8),
    "14B SLERP": ([-7.6, -1.9, -12.7, -7.0, -29.6, -5.8, -2.0, -85.0], 18.9, 26.3),
}
LINEAR = [81.0, 86.2, 75.5, 85.0, 62.6, 85.2, 93.7, 38.0]

# Losses by LA, TA and TIES, MDS, and the p-value that these tables give (and that was printed).
GROUPS = {
    "GLUE": (
        [
            [-2.1, -2.4, -15.6, -8.2, -25.7, -5.6, -1.8, -48.1],
            [-1.9, -2.5, -15.6, -8.1, -25.7, -5.2, -1.9, -48.1],
            [-4.3, -0.7, -6.6, -26.9, -24.9, -10.4, -22.7, -30.8],
        ],
        [1.56, 1.47, 1.78, 1.68, 2.51, 1.73, 1.72, 4.89],
        0.0033,
        0.0032,
    ),
    "a": (
        [
            [-9.7, -6.8, -0.6, 17.0, -4.9, -78.0, -4.6, -16.5],
            [-17.9, -18.7, -3.7, 12.8, -6.3, -78.6, -6.4, -11.4],
            [-10.8, -6.0, -3.7, -0.9, -5.6, -70.8, -3.1, -15.5],
        ],
        [2.85, 1.99, 2.90, 1.64, 1.68, 5.05, 1.98, 2.65],
        0.0012,
        0.0013,
    ),
    "b": (
        [
            [2.5, -9.1, -30.0, -11.7, -10.7, -75.8, -40.2, 0.7],
            [-16.0, -16.3, -57.5, -14.7, -17.6, -78.9, -44.7, -9.9],
            [-4.1, -6.8, -39.1, -9.8, -14.5, -68.2, -54.8, -0.9],
        ],
        [2.22, 2.78, 1.62, 2.19, 1.45, 8.15, 1.94, 1.43],
        0.0287,
        0.0288,
    ),
    "c": (
        [
            [2.9, -15.2, -62.8, -18.6, -13.1, -5.8, -8.3, -1.0],
            [-7.3, -40.7, -67.6, -22.3, -10.4, 26.3, -35.5, -15.7],
            [-0.1, -32.6, -57.1, -5.9, -14.7, 6.6, -4.5, -1.0],
        ],
        [1.45, 1.30, 3.75, 1.23, 1.70, 1.23, 1.24, 1.28],
        0.0057,
        0.0059,
    ),
}


@pytest.mark.parametrize("row", LOSSES)
def test_published_deviations_are_of_the_population(row):
    losses, mean, deviation = LOSSES[row]
    found = association.mean_and_deviation(losses)
    assert found[0] == pytest.approx(mean, abs=0.06)
    assert found[1] == pytest.approx(deviation, abs=0.06)


def test_the_merging_loss_is_equation_1():
    found = association.merging_loss(LINEAR, TUNED)
    np.testing.assert_allclose(found, LOSSES["3B LA"][0], atol=0.11)


@pytest.mark.parametrize("group", GROUPS)
def test_published_p_values_come_back_from_the_published_tables(group):
    pytest.importorskip("scipy", reason="the extra report is not installed")
    losses, scores, p, printed = GROUPS[group]
    best = np.max(losses, axis=0)
    found = association.pearson(scores, best)
    assert found.statistic < 0
    assert found.p == pytest.approx(p, abs=5e-5)
    assert found.p == pytest.approx(printed, abs=3e-4)


def test_ranks():
    pytest.importorskip("scipy", reason="the extra report is not installed")
    found = association.spearman([1, 2, 3, 4], [1, 10, 100, 1000])
    assert found.statistic == pytest.approx(1)


def symmetric(values):
    return values + values.T


def test_mantel_permutes_models():
    rng = np.random.default_rng(0)
    a, noise = (symmetric(rng.normal(size=(5, 5))) for _ in range(2))
    b = a + 0.5 * noise
    upper = np.triu_indices(5, 1)
    r = np.corrcoef(a[upper], b[upper])[0, 1]
    found = association.mantel(a, b, permutations=20_000)
    assert found.statistic == pytest.approx(r)
    every = []
    for order in itertools.permutations(range(5)):
        every.append(np.corrcoef(a[upper], b[np.ix_(order, order)][upper])[0, 1])
    exact = np.mean(np.abs(every) >= abs(r) - 1e-12)
    assert found.p == pytest.approx(exact, abs=0.01)


def test_chance_is_found_as_often_as_it_says():
    rng = np.random.default_rng(1)
    p = [
        association.mantel(
            symmetric(rng.normal(size=(6, 6))), symmetric(rng.normal(size=(6, 6))), 99, seed
        ).p
        for seed in range(200)
    ]
    assert 0.01 <= np.mean(np.array(p) <= 0.05) <= 0.11
