"""Figures and their intervals, beside formulas written out and libraries."""

from __future__ import annotations

import numpy as np
import pytest

from mergecore.evaluate import tally
from mergecore.evaluate.intervals import bootstrap, mcnemar, mean_interval, wilson


def test_wilson_is_the_published_interval():
    # The reference's figures for the study: 18 and 58 of 100.
    assert np.allclose(wilson(18, 100), (0.117, 0.267), atol=5e-4)
    assert np.allclose(wilson(58, 100), (0.482, 0.672), atol=5e-4)
    assert (wilson(0, 10)[0], wilson(10, 10)[1]) == (0, 1)
    assert wilson(0, 0) is None


def test_mcnemar_is_the_binomial_test():
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == 1
    assert mcnemar(10, 0) == pytest.approx(2 / 2**10)
    assert mcnemar(1, 9) == pytest.approx(2 * 11 / 2**10)


def test_a_bootstrap_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(200):
        low, high = bootstrap(
            rng.normal(3, 1, 60), lambda s: s.mean(axis=1), seed=seed, resamples=500
        )
        inside += low <= 3 <= high
    assert 0.89 <= inside / 200 <= 0.99


def test_the_same_values_give_the_same_interval():
    values = np.arange(30.0)
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval([1.0]) is None


def rows_of(rewards, bad):
    responses = [{"id": str(i), "output": "x", "finish_reason": "stop"} for i in range(len(bad))]
    graded = [{"id": str(i), "reward": r, "truncated": False} for i, r in enumerate(rewards)]
    verdicts = [
        {"id": str(i), "repetition": b, "code_switching": b and False, "nonsense": b and False}
        for i, b in enumerate(bad)
    ]
    return responses, graded, verdicts


def test_the_lowest_are_those_of_lowest_reward():
    rng = np.random.default_rng(1)
    rewards = rng.normal(0, 1, 300)
    bad = [bool(r < -0.6) for r in rewards]
    found = tally.tally(*rows_of(rewards, bad))
    lowest = np.argsort(rewards, kind="stable")[:100]
    hits = sum(bad[i] for i in lowest)
    assert found["degeneration_of_lowest"]["rate"] == hits / 100
    assert found["degeneration"]["rate"] == sum(bad) / 300
    assert found["reward"]["mean"] == pytest.approx(rewards.mean())
    low, high = found["degeneration_of_lowest"]["interval"]
    assert low <= hits / 100 <= high
    assert found["degeneration_of_lowest"]["method"] == "bootstrap"


def test_none_of_the_lowest_is_not_certainty():
    found = tally.tally(*rows_of(range(200), [False] * 200))["degeneration_of_lowest"]
    assert found["interval"] == wilson(0, 100)


def test_a_verdict_that_is_none_is_in_no_rate():
    responses, rewards, verdicts = rows_of([1.0, 2.0, 3.0], [True, False, None])
    found = tally.tally(responses, rewards, verdicts)
    assert found["errors"] == 1
    assert found["judged"] == 2
    assert (found["degeneration"]["hits"], found["degeneration"]["count"]) == (1, 2)
    assert found["degeneration_of_lowest"]["count"] == 2
    assert tally.tally(responses, rewards, verdicts[:2])["degeneration"] is None
    assert found["labels"] == {"repetition": 1, "code_switching": 0, "nonsense": 0}


def test_only_the_lowest_need_verdicts():
    rewards = [float(i) for i in range(150)]
    responses, graded, verdicts = rows_of(rewards, [i < 30 for i in range(150)])
    found = tally.tally(responses, graded, verdicts[:100])
    assert found["degeneration"] is None
    assert found["degeneration_of_lowest"]["hits"] == 30
    assert found["degeneration_of_lowest"]["method"] == "wilson"


def test_without_rewards_there_is_no_lowest():
    responses, _, verdicts = rows_of([0.0] * 4, [True, False, False, False])
    found = tally.tally(responses, [], verdicts)
    assert found["reward"] is None
    assert found["degeneration_of_lowest"] is None
    assert found["degeneration"]["rate"] == 0.25


def test_models_are_compared_over_what_both_answered():
    _, one, first = rows_of([1.0, 2.0, 3.0, 9.0], [True, True, False, True])
    _, other, second = rows_of([0.5, 1.0, 2.0], [False, True, True])
    found = tally.compare((one, first), (other, second))
    assert found["reward"]["mean"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert found["degeneration"] == {"shared": 3, "first_only": 1, "second_only": 1, "p": 1.0}
