"""Do the tests find what was published, what statsmodels finds, and what counting by hand does?"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mergecore.diagnose.association import merging_loss
from mergecore.study import statistics
from mergecore.study.papers.collapse import published

stats = pytest.importorskip("scipy.stats", reason="the extra report is not installed")
pytest.importorskip("statsmodels", reason="the extra report is not installed")


def table(family, methods=published.METHODS):
    """From the accuracies: printed losses have one digit, and ties move Friedman's ranks."""
    merged, tuned = published.MERGED[family], published.TUNED[family]
    return np.array([merging_loss(merged[method], tuned) for method in methods])


WITHOUT_DARE = ("LA", "TA", "TIES", "SLERP")

# p of the methods and of the tasks.
TWO_WAY = [
    (table("qwen2.5-3b"), 0.071, 1.4e-4),
    (table("qwen2.5-7b"), 2.6e-4, 0.0051),
    (table("qwen2.5-14b"), 0.166, 7.6e-10),
    (table("qwen2.5-3b", WITHOUT_DARE), 0.993, 3.7e-11),
    (table("qwen2.5-7b", WITHOUT_DARE), 0.020, 1.5e-12),
    (table("qwen2.5-14b", WITHOUT_DARE), 0.972, 5e-22),
    *[
        (np.array(list(published.DETAILS[name].values())), *found)
        for name, found in {
            "GLUE": (0.785, 1.7e-4),
            "(a)": (0.436, 2.6e-10),
            "(b)": (0.009, 2.5e-9),
            "(c)": (0.307, 4.4e-5),
        }.items()
    ],
]


@pytest.mark.parametrize(("values", "methods", "tasks"), TWO_WAY)
def test_two_way_of_the_published_tables(values, methods, tasks):
    found = statistics.two_way(values)
    assert found.rows.p == pytest.approx(methods, rel=0.06)
    assert found.columns.p == pytest.approx(tasks, rel=0.06)


OTHERS = {
    "qwen2.5-3b": (0.344, 3.3e-4, 0.22, 0.30, 0.0010),
    "qwen2.5-7b": (0.003, 0.076, 0.076, 0.019, 0.020),
    "qwen2.5-14b": (0.853, 4.3e-10, 0.95, 0.93, 1.4e-4),
}


@pytest.mark.parametrize("family", OTHERS)
def test_the_other_tests_of_the_published_tables(family):
    values = table(family)
    found = (
        statistics.one_way(values).p,
        statistics.one_way(values.T).p,
        statistics.friedman(values).p,
        statistics.kruskal(values).p,
        statistics.kruskal(values.T).p,
    )
    assert found == pytest.approx(OTHERS[family], rel=0.06)


@pytest.mark.parametrize("seed", range(4))
def test_two_way_is_statsmodels(seed):
    import pandas
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    rng = np.random.default_rng(seed)
    values = rng.normal(size=(2 + seed, 3 + seed)) * 10.0**seed + rng.normal(size=(2 + seed, 1))
    rows = [
        {"method": f"m{i}", "task": f"t{j}", "loss": value}
        for (i, j), value in np.ndenumerate(values)
    ]
    wanted = anova_lm(ols("loss ~ C(method) + C(task)", pandas.DataFrame(rows)).fit())
    found = statistics.two_way(values)
    for effect, name in ((found.rows, "C(method)"), (found.columns, "C(task)")):
        assert effect.statistic == pytest.approx(wanted.loc[name, "F"])
        assert effect.p == pytest.approx(wanted.loc[name, "PR(>F)"])
        share = wanted.loc[name, "sum_sq"] / wanted["sum_sq"].sum()
        assert effect.eta_squared == pytest.approx(share)


def test_what_is_rounding_alone_is_no_effect():
    columns = np.array([0.1, 0.2, 0.7]) * 3
    same = np.tile(columns, (4, 1))
    found = statistics.two_way(same)
    assert found.rows.p == 1
    assert found.columns.p == 0
    assert statistics.one_way(same).p == pytest.approx(1)
    assert statistics.one_way(same.T).p == 0
    nothing = statistics.two_way(np.full((3, 4), 0.1))
    assert np.isnan([nothing.rows.p, nothing.columns.p]).all()
    assert nothing.rows.eta_squared is None
    assert np.isnan(statistics.one_way([[0.1], [0.2]]).p)


@pytest.mark.parametrize("seed", range(3))
def test_one_way_is_scipys(seed):
    rng = np.random.default_rng(seed)
    groups = [rng.integers(0, 4, size) for size in (3, 5, 4)]
    wanted, found = stats.f_oneway(*groups), statistics.one_way(groups)
    assert (found.statistic, found.p) == pytest.approx((wanted.statistic, wanted.pvalue))


def ranked(values):
    return [sum(v < w for v in values) + (sum(v == w for v in values) + 1) / 2 for w in values]


@pytest.mark.parametrize("seed", range(3))
def test_ranks_with_ties_by_hand(seed):
    values = np.random.default_rng(seed).integers(0, 3, (4, 6)).astype(float)
    k, n = values.shape
    ranks = np.array([ranked(column) for column in values.T]).T
    spread = sum(((ranks[:, j] - (k + 1) / 2) ** 2).sum() for j in range(n))
    q = (k - 1) * ((ranks.sum(axis=1) - n * (k + 1) / 2) ** 2).sum() / spread
    found = statistics.friedman(values)
    assert found.statistic == pytest.approx(q)
    assert found.p == pytest.approx(stats.chi2.sf(q, k - 1))
    every = np.array(ranked(values.ravel())).reshape(values.shape)
    middle = (values.size + 1) / 2
    h = n * ((every.mean(axis=1) - middle) ** 2).sum() / ((every - middle) ** 2).sum()
    found = statistics.kruskal(values)
    assert found.statistic == pytest.approx(h * (values.size - 1))
    assert found.p == pytest.approx(stats.chi2.sf(h * (values.size - 1), k - 1))


def test_ranks_that_tell_nothing():
    assert statistics.friedman(np.ones((3, 4))).p == 1
    assert statistics.friedman(np.tile([1.0, 2.0], (3, 1))).p == 1
    assert np.isnan(statistics.friedman(np.ones((2, 4))).p)
    assert statistics.kruskal([[1, 1], [1, 1]]).p == 1


@pytest.mark.parametrize("count", [1, 2, 9])
def test_holm_is_statsmodels(count):
    from statsmodels.stats.multitest import multipletests

    p = np.random.default_rng(count).integers(1, 9, count) / 40
    assert statistics.holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    found = statistics.holm([0.02, float("nan"), 0.5])
    assert found[::2] == pytest.approx([0.04, 0.5])
    assert np.isnan(found[1])
    assert statistics.holm([]) == []


@pytest.mark.parametrize("seed", range(3))
def test_every_order_is_counted(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 4, (2, 5)) + np.array([[0, 1.0, 0, 0, 2], [0, 0, 3, 0, 0]])
    r = abs(np.corrcoef(x, y)[0, 1])
    orders = list(itertools.permutations(range(5)))
    every = [abs(np.corrcoef(x, y[list(order)])[0, 1]) >= r - 1e-9 for order in orders]
    found = statistics.trend(x, y)
    assert found.permuted == pytest.approx(np.mean(every))
    assert found.pearson.p == pytest.approx(stats.pearsonr(x, y).pvalue)
    assert found.spearman.p == pytest.approx(stats.spearmanr(x, y).pvalue)


def test_ten_values_are_permuted_at_random():
    rng = np.random.default_rng(0)
    x = rng.normal(size=10)
    y = x + rng.normal(size=10)
    assert statistics.permuted(x, y) == pytest.approx(stats.pearsonr(x, y).pvalue, abs=0.02)
    assert statistics.permuted(x, y) == statistics.permuted(x, y)


def test_a_trend_of_what_is_not_all_known():
    found = statistics.trend([1, 2, None, 4, 5], [2, 4, 5, float("nan"), 9])
    r = np.corrcoef([1, 2, 5], [2, 4, 9])[0, 1]
    assert (found.count, found.pearson.statistic) == (3, pytest.approx(r))
    far = statistics.trend([1, 2, 3, float("inf")], [4, 3, 2, 1])
    assert far.spearman.statistic == pytest.approx(-1)
    assert np.isnan([far.pearson.p, far.permuted]).all()
    for x, y in (([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([], [])):
        assert np.isnan(statistics.trend(x, y).pearson.p)


@pytest.mark.parametrize("seed", range(3))
def test_mantel_counts_every_order(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 5, (2, 5, 5)).astype(float)
    a, b = a + a.T, b + b.T
    upper = np.triu_indices(5, 1)
    r = np.corrcoef(a[upper], b[upper])[0, 1]
    every = [
        abs(np.corrcoef(a[upper], b[np.ix_(order, order)][upper])[0, 1]) >= abs(r) - 1e-9
        for order in itertools.permutations(range(5))
    ]
    found = statistics.mantel(a, b)
    assert (found.statistic, found.p) == pytest.approx((r, np.mean(every)))


def test_mantel_of_what_cannot_be_told():
    gap = np.array([[0, 1, np.nan], [1, 0, 2], [np.nan, 2, 0]])
    whole = np.array([[0.0, 1, 2], [1, 0, 3], [2, 3, 0]])
    for a, b in ((gap, whole), (whole, gap), (np.ones((3, 3)), whole)):
        assert np.isnan(statistics.mantel(a, b).p)


def test_a_line():
    assert statistics.linear_fit([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert np.isnan(statistics.linear_fit([1, 2, 3], [2, 2, 2]))
