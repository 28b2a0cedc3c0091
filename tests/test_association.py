"""Do the tests of a correlation find what was published, and what chance makes?

Losses and scores are the published tables of Cao et al. (arXiv:2603.09463); their p-values take a
task's best loss over the methods.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mergecore.diagnose import association
from mergecore.study.papers.collapse import published

# The p-value that the detail tables give; the printed ones are within 3e-4.
P = {"GLUE": 0.0033, "(a)": 0.0012, "(b)": 0.0287, "(c)": 0.0057}


@pytest.mark.parametrize("family", published.LOSSES)
@pytest.mark.parametrize("method", published.METHODS)
def test_published_deviations_are_of_the_population(family, method):
    mean, deviation = published.MEANS[family][published.METHODS.index(method)]
    found = association.mean_and_deviation(published.LOSSES[family][method])
    assert found[0] == pytest.approx(mean, abs=0.06)
    assert found[1] == pytest.approx(deviation, abs=0.06)


def test_the_merging_loss_is_equation_1():
    merged, tuned = published.MERGED["qwen2.5-3b"]["LA"], published.TUNED["qwen2.5-3b"]
    found = association.merging_loss(merged, tuned)
    np.testing.assert_allclose(found, published.LOSSES["qwen2.5-3b"]["LA"], atol=0.11)


@pytest.mark.parametrize("group", P)
def test_published_p_values_come_back_from_the_published_tables(group):
    pytest.importorskip("scipy", reason="the extra report is not installed")
    best = np.max(list(published.DETAILS[group].values()), axis=0)
    found = association.pearson(published.SCORES[group], best)
    assert found.statistic < 0
    assert found.p == pytest.approx(P[group], abs=5e-5)
    assert found.p == pytest.approx(published.SCORES_P[group], abs=3e-4)


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
