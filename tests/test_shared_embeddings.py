"""Encoder-decoders keep one embedding under several names, and not all files have them all."""

from __future__ import annotations

import numpy as np
import pytest

import checkpoints
import mergecore
from mergecore import ModelError

SHARED = "shared.weight"
NAMES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
CONFIG = {"architectures": ["T5ForConditionalGeneration"], "tie_word_embeddings": True}


@pytest.fixture
def family(tmp_path):
    """`old` stores three names of one embedding, `new` one; `odd` has a decoder of its own."""
    rng = np.random.default_rng(1)

    def state(copies):
        inner = {"encoder.block.0.layer.0.SelfAttention.q.weight": (4, 4)}
        made = {n: rng.normal(size=s).astype(np.float32) for n, s in inner.items()}
        made[SHARED] = rng.normal(size=(7, 4)).astype(np.float32)
        return {**made, **dict.fromkeys(copies, made[SHARED])}

    checkpoints.save(tmp_path / "old", state(NAMES), **CONFIG)
    checkpoints.save(tmp_path / "new", state([]), **CONFIG)
    odd = state(NAMES[:1])
    odd[NAMES[1]] = odd[SHARED] + 1
    checkpoints.save(tmp_path / "odd", odd, **CONFIG)
    return tmp_path


@pytest.mark.parametrize("models", [("old", "new"), ("new", "old")])
def test_copies_that_not_all_models_have_are_not_written(family, models):
    report = mergecore.merge([family / m for m in models], "linear", out=family / "out")
    merged = checkpoints.load(family / "out")
    assert not set(NAMES) & set(merged)
    inputs = [checkpoints.load(family / m)[SHARED] for m in models]
    np.testing.assert_allclose(merged[SHARED], (inputs[0] + inputs[1]) / 2, rtol=1e-6)
    assert sum("is a copy of shared.weight" in note for note in report.notes) == 2


def test_copies_that_all_have_stay(family):
    mergecore.merge([family / "old", family / "odd"], "linear", out=family / "out")
    assert set(NAMES) <= set(checkpoints.load(family / "out"))


def test_where_a_copy_is_none_the_shared_embedding_stands_for_it(family):
    mergecore.merge([family / "odd", family / "new"], "linear", out=family / "out")
    merged = checkpoints.load(family / "out")
    odd, new = (checkpoints.load(family / m) for m in ("odd", "new"))
    assert NAMES[0] not in merged
    np.testing.assert_allclose(merged[NAMES[1]], (odd[NAMES[1]] + new[SHARED]) / 2, rtol=1e-6)


def test_other_tensors_are_missed_as_ever(family):
    short = checkpoints.load(family / "new")
    short.pop("encoder.block.0.layer.0.SelfAttention.q.weight")
    checkpoints.save(family / "short", short, **CONFIG)
    with pytest.raises(ModelError, match="the key ignore"):
        mergecore.merge([family / "old", family / "short"], "linear", out=family / "out")
