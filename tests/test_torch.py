"""Torch tensors in memory, where torch is installed: the same numbers, and no copies."""

from __future__ import annotations

import numpy as np
import pytest

import mergecore
from mergecore import ModelError

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_tensors_merge_as_arrays_do(dtype):
    states = [{"w": torch.randn(7, 5).to(getattr(torch, dtype))} for _ in range(3)]
    base, *models = states
    merged = mergecore.ties(models, base)["w"]
    assert merged.dtype == base["w"].dtype
    wide = [{"w": state["w"].to(torch.float32).numpy()} for state in states]
    if dtype != "float64":
        expected = torch.from_numpy(mergecore.ties(wide[1:], wide[0])["w"])
        torch.testing.assert_close(merged, expected.to(base["w"].dtype), rtol=0, atol=0)


def test_parameters_views_and_odd_shapes():
    parameter = torch.nn.Parameter(torch.ones(3, 2))
    merged = mergecore.linear([parameter, torch.zeros(2, 3).T])
    assert not merged.requires_grad
    assert torch.equal(merged, torch.full((3, 2), 0.5))
    assert mergecore.linear([torch.tensor(1.0), torch.tensor(3.0)]).item() == 2
    assert mergecore.linear([torch.empty(0, 2)] * 2).shape == (0, 2)


def test_counters_are_copied():
    counter = torch.arange(3)
    merged = mergecore.linear([{"n": counter}, {"n": counter.clone()}])["n"]
    assert torch.equal(merged, counter)
    assert merged.data_ptr() != counter.data_ptr()


def test_the_dtype_can_be_chosen():
    tensors = [torch.ones(2), torch.zeros(2)]
    assert mergecore.linear(tensors, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert mergecore.linear(tensors, dtype="float16").dtype == torch.float16


def test_what_cannot_be_seen_in_place_is_refused():
    with pytest.raises(ModelError, match="meta"):
        mergecore.linear([torch.ones(2, device="meta")] * 2)
    with pytest.raises(ModelError, match="to_dense"):
        mergecore.linear([torch.eye(2).to_sparse()] * 2)


def test_the_engine_sees_the_tensor_s_own_memory():
    from mergecore.tensors import kind_of

    tensor = torch.zeros(4, dtype=torch.bfloat16)
    _, _, view = kind_of(tensor).view(tensor)
    view[:] = np.array([0x80, 0x3F] * 4, np.uint8)
    assert torch.equal(tensor, torch.ones(4, dtype=torch.bfloat16))
