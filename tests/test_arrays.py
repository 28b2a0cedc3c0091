"""Merging in memory: what goes in, what comes out, and in which kind and dtype?"""

from __future__ import annotations

import inspect

import ml_dtypes
import numpy as np
import pytest

import mergecore
from mergecore import ModelError, RecipeError

RNG = np.random.default_rng(1)
BASE, A, B = (RNG.normal(size=(6, 5)).astype(np.float32) for _ in range(3))


def test_a_dict_comes_back_as_a_dict_and_an_array_as_an_array():
    bare = mergecore.task_arithmetic([A, B], BASE)
    state = mergecore.task_arithmetic([{"w": A}, {"w": B}], {"w": BASE})
    assert isinstance(bare, np.ndarray)
    np.testing.assert_array_equal(state["w"], bare)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_the_dtype_is_the_base_s(dtype):
    merged = mergecore.ties([A, B], BASE.astype(dtype))
    assert merged.dtype == dtype
    assert merged.shape == BASE.shape


def test_without_a_base_the_dtype_is_the_first_model_s():
    assert mergecore.linear([A.astype(np.float16), B]).dtype == np.float16


@pytest.mark.parametrize("dtype", ["bfloat16", ml_dtypes.bfloat16, np.dtype(ml_dtypes.bfloat16)])
def test_the_dtype_can_be_chosen(dtype):
    merged = mergecore.linear([A, B], dtype=dtype)
    np.testing.assert_array_equal(merged, mergecore.linear([A, B]).astype(ml_dtypes.bfloat16))


@pytest.mark.parametrize("view", [lambda x: x[::-1], lambda x: x.T.copy().T, lambda x: x[:, ::2]])
def test_any_memory_layout_will_do(view):
    expected = mergecore.linear([view(A).copy(), view(B).copy()])
    np.testing.assert_array_equal(mergecore.linear([view(A), view(B)]), expected)


def test_byte_order_does_not_matter():
    swapped = A.astype(A.dtype.newbyteorder())
    np.testing.assert_array_equal(mergecore.linear([swapped, B]), mergecore.linear([A, B]))


@pytest.mark.parametrize("shape", [(), (0,), (0, 4), (1,), (3, 0, 2)])
def test_no_shape_is_too_small(shape):
    ones = np.ones(shape, np.float32)
    merged = mergecore.linear([ones, ones * 3])
    np.testing.assert_array_equal(merged, np.full(shape, 2, np.float32))


def test_inputs_are_left_alone():
    before = A.copy()
    A.setflags(write=False)
    mergecore.ties([A, B], BASE)
    A.setflags(write=True)
    np.testing.assert_array_equal(A, before)


def test_counters_are_copied_if_equal_and_refused_if_not():
    counter = np.arange(3)
    merged = mergecore.linear([{"w": A, "n": counter}, {"w": B, "n": counter.copy()}])
    np.testing.assert_array_equal(merged["n"], counter)
    assert not np.shares_memory(merged["n"], counter)
    with pytest.raises(ModelError, match="n: int64"):
        mergecore.linear([{"n": counter}, {"n": counter + 1}])
    with pytest.raises(ModelError, match="n: model 1 does not have it"):
        mergecore.linear([{"w": A, "n": counter}, {"w": B}])


def test_derived_buffers_come_through():
    angles = np.arange(3, dtype=np.float32)
    merged = mergecore.linear([{"w": A, "rotary_emb.inv_freq": angles} for _ in range(2)])
    np.testing.assert_array_equal(merged["rotary_emb.inv_freq"], angles)


def test_eight_bit_floats_are_refused():
    with pytest.raises(ModelError, match="float8_e4m3fn weights cannot be merged"):
        mergecore.linear([A.astype(ml_dtypes.float8_e4m3fn)] * 2)


def test_names_and_shapes_must_fit():
    with pytest.raises(ModelError, match="tensor v is in model 1 and not in model 0"):
        mergecore.linear([{"w": A}, {"w": B, "v": B}])
    with pytest.raises(ModelError):
        mergecore.linear([A, B[:3]])


def test_what_is_no_array_is_a_type_error():
    with pytest.raises(TypeError, match="not list"):
        mergecore.linear([[1.0], [2.0]])
    with pytest.raises(TypeError, match="list of arrays"):
        mergecore.linear({"w": A})
    with pytest.raises(TypeError, match="together"):
        mergecore.linear([A, {"": B}])
    with pytest.raises(TypeError, match="densty"):
        mergecore.ties([A, B], BASE, densty=0.5)


def test_weights_are_one_for_all_or_one_a_model():
    each = mergecore.task_arithmetic([A, B], BASE, weights=[0.25, 0.25])
    np.testing.assert_array_equal(mergecore.task_arithmetic([A, B], BASE, weights=0.25), each)
    with pytest.raises(RecipeError, match="3 values for 2 models"):
        mergecore.ties([A, B], BASE, weights=[1, 2, 3])
    with pytest.raises(RecipeError, match="weight"):
        mergecore.ties([A, B], BASE, weights=[float("nan"), 1])
    with pytest.raises(RecipeError, match="density"):
        mergecore.ties([A, B], BASE, density=1.5)


def test_a_base_joins_where_none_is_needed():
    joined = mergecore.linear([A, B], BASE)
    np.testing.assert_array_equal(joined, mergecore.linear([A, B, BASE], dtype=BASE.dtype))
    mergecore.linear([A, B], BASE, weights=[1, 2, 3])
    with pytest.raises(RecipeError, match="3 models, the base among them"):
        mergecore.linear([A, B], BASE, weights=[1, 2])


def test_onto_takes_the_change_elsewhere():
    on_a = mergecore.task_arithmetic([A], BASE, onto=A, lambda_=0.5)
    np.testing.assert_allclose(on_a, A + 0.5 * (A - BASE), rtol=1e-6, atol=1e-6)


def test_masks_can_be_foretold():
    mask = mergecore.random_mask(seed=7, name="w", model=1, count=1000, density=0.3)
    assert mask.dtype == np.bool_
    assert 200 < mask.sum() < 400
    longer = mergecore.random_mask(seed=7, name="w", model=1, count=2000, density=0.3)
    np.testing.assert_array_equal(longer[:1000], mask)
    for other in ({"seed": 8}, {"name": "v"}, {"model": 0}):
        key = {"seed": 7, "name": "w", "model": 1, **other}
        assert (mergecore.random_mask(**key, count=1000, density=0.3) != mask).any()
    with pytest.raises(RecipeError, match="density"):
        mergecore.random_mask(count=3, density=-0.1)


def test_functions_say_what_they_take():
    signature = inspect.signature(mergecore.ties)
    assert list(signature.parameters)[:2] == ["models", "base"]
    assert signature.parameters["density"].default == 0.2
    assert signature.parameters["seed"].default == 42
    assert "lambda_" in signature.parameters
    assert "weights" in mergecore.ties.__doc__
    assert mergecore.ties.__name__ == "ties"


@pytest.mark.parametrize("what", ["seed", "model", "count"])
@pytest.mark.parametrize("number", [-1, 2**64])
def test_a_mask_of_impossible_numbers_is_refused_by_name(what, number):
    with pytest.raises(RecipeError, match=what):
        mergecore.random_mask(**{"seed": 0, "count": 1, "density": 0.5, what: number})
