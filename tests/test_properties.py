"""Do the formulas hold for whatever arrays, densities and weights come along?"""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

import mergecore
import naive
from test_formulas import assert_close

# Few distinct values: ties, zeros and equal models are the rule.
VALUES = st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1.5, 2.0, -3.0, 1e-3])
DENSITY = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(2**-24, 1))
WEIGHTS = st.lists(st.sampled_from([1.0, 0.5, -1.0, 0.25, 0.0]), min_size=2, max_size=2)


@st.composite
def arrays(draw):
    """A base and two models of one length, in float32."""
    length = draw(st.integers(0, 40))
    one = st.lists(VALUES, min_size=length, max_size=length)
    return [np.array(draw(one), np.float32) for _ in range(3)]


NEARLY_ONE = 1 - 2**-53  # a recipe is JSON on its way: it must not come out as 1


@settings(deadline=None)
@given(arrays(), DENSITY, WEIGHTS, st.booleans())
@example([np.zeros(17, np.float32)] + [np.ones(17, np.float32)] * 2, NEARLY_ONE, [1, 1], False)
def test_ties(states, density, weights, normalize):
    base, *models = states
    options = {"density": density, "weights": weights, "normalize": normalize}
    assert_close(mergecore.ties(models, base, **options), naive.ties(models, base, **options))


@settings(deadline=None)
@given(arrays(), DENSITY, WEIGHTS, st.sampled_from(["inverse", "l1", "none"]), st.integers(0, 99))
def test_dare_ties(states, density, weights, rescale, seed):
    base, *models = states
    options = {"density": density, "weights": weights, "rescale": rescale, "seed": seed}
    actual = mergecore.dare_ties(models, base, **options)
    assert_close(actual, naive.dare_ties(models, base, **options), *models)


@given(arrays(), DENSITY)
def test_a_model_equal_to_the_base_changes_nothing(states, density):
    base = states[0]
    for method in (mergecore.ties, mergecore.dare_linear, mergecore.dare_ties):
        np.testing.assert_array_equal(method([base, base], base, density=density), base)


@given(st.integers(0, 2**32), st.text(max_size=9), st.integers(0, 9), st.integers(0, 200), DENSITY)
def test_a_mask_s_elements_know_nothing_of_one_another(seed, name, model, count, density):
    key = {"seed": seed, "name": name, "model": model, "density": density}
    mask = mergecore.random_mask(count=count, **key)
    np.testing.assert_array_equal(mergecore.random_mask(count=count + 7, **key)[:count], mask)
    denser = mergecore.random_mask(count=count, **key | {"density": min(1.0, density + 0.1)})
    assert not (mask & ~denser).any()
