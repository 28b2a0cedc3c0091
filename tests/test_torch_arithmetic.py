"""Is merging on torch tensors what the engine computes? Element by element to the bit."""

from __future__ import annotations

import zlib

import ml_dtypes
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import mergecore  # noqa: E402
from mergecore import cuda, registry  # noqa: E402
from mergecore.cuda.kernels import blake3, lanes, philox, select  # noqa: E402
from mergecore.cuda.kernels.fused import fused  # noqa: E402
from torch_merges import (  # noqa: E402
    DENSE,
    DEVICES,
    OF_TASK_VECTORS,
    complete,
    counts,
    engine,
    merged,
    modifier,
    streamed,
    tensor,
    tensors,
    variations,
)

# A scalar, nothing, less than a row of lanes, less than a block, some blocks and a bit.
ELEMENTS = [(), (0,), (3, 0, 2), (1,), (7,), (5, 3), (129, 33), (40_007,), (2, 65, 257)]
SEVERAL_BLOCKS = [(40_007,), (2, 65, 257)]


def awkward(rng, shape, dtype=np.float32, *, finite=True):
    """Ties, zeros of either sign, numbers with few digits, and what rounds to nothing."""
    size = int(np.prod(shape))
    x = rng.normal(size=size) * 10.0 ** rng.integers(-3, 3)
    x = np.where(rng.random(size) < 0.3, np.round(x * 4) / 4, x)
    special = [0.0, -0.0, 1e-41, -3e-42, 0.5, -0.5, 1.0]
    special += [] if finite else [np.nan, np.inf, -np.inf, 3e38, -3e38]
    for value in special:
        x[rng.random(size) < 0.04] = value
    return x.reshape(shape).astype(dtype)


def family(method, count, shape, rng, dtype=np.float32, **options):
    """Models, and a base where the method takes one."""
    several = [awkward(rng, shape, dtype, **options) for _ in range(count)]
    return several, awkward(rng, shape, dtype, **options) if method in OF_TASK_VECTORS else None


def assert_equal(actual, expected, device="cpu"):
    """The same bits, and NaN in the same places; on a GPU within one unit in the last place."""
    actual = actual.cpu().numpy()
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    kind = np.int32 if actual.dtype == np.float32 else np.int64
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
    known = ~np.isnan(expected)
    left, right = (x[known].view(kind) for x in (actual, expected))
    if device == "cpu":
        np.testing.assert_array_equal(left, right)
    else:
        assert (np.abs(left.astype(np.float64) - right) <= 1).all()


def case(*what):
    return np.random.default_rng(zlib.crc32(repr(what).encode()))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", ELEMENTS, ids=str)
@pytest.mark.parametrize("method", cuda.METHODS)
def test_element_by_element_it_is_the_engine(method, shape, device):
    for count in counts(method):
        rng = case(method, shape, count)
        for parameters in variations(method, count):
            # What looks at singular values gives other tensors the mean.
            parameters |= {"matrices": "none"} if "matrices" in parameters else {}
            given, base = family(method, count, shape, rng)
            expected = engine(method, given, base, parameters)
            assert_equal(merged(method, given, base, parameters, device), expected, device)


@pytest.mark.parametrize("shape", [(40,), (9, 1024), (40_007,)], ids=str)
@pytest.mark.parametrize("method", cuda.METHODS)
def test_nan_infinities_and_overflow(method, shape):
    for count in counts(method)[:3]:
        rng = case(method, shape, count)
        for parameters in variations(method, count):
            parameters |= {"matrices": "none"} if "matrices" in parameters else {}
            given, base = family(method, count, shape, rng, finite=False)
            expected = engine(method, given, base, parameters)
            assert_equal(merged(method, given, base, parameters), expected)


@pytest.mark.parametrize("shape", [(), (129, 33), (40_007,)], ids=str)
@pytest.mark.parametrize("method", cuda.METHODS)
def test_float64(method, shape):
    for count in counts(method)[:3]:
        rng = case(method, shape, count)
        for parameters in variations(method, count):
            parameters |= {"matrices": "none"} if "matrices" in parameters else {}
            given, base = family(method, count, shape, rng, np.float64)
            expected = engine(method, given, base, parameters)
            assert_equal(merged(method, given, base, parameters), expected)


@pytest.mark.parametrize("method", ["ties", "dare_linear", "dare_ties"])
def test_one_infinity_and_nothing_that_is_no_number(method):
    """Sums of magnitudes are infinite then, and restore nothing."""
    given, base = family(method, 2, (50, 9), np.random.default_rng(7))
    given[0][3, 5] = np.inf
    for density in (1.0, [1.0, 0.5], 0.5):
        parameters = complete(method, 2, density=density, rescale="l1")
        expected = engine(method, given, base, parameters)
        assert_equal(merged(method, given, base, parameters), expected)


@pytest.mark.parametrize("scale", [1.0, 1e-6], ids=["long", "short"])
@pytest.mark.parametrize("method", cuda.METHODS)
def test_models_that_are_alike(method, scale):
    """Angles where a formula takes another turn; steps so short that it does; and opposites."""
    rng = case(method, scale)
    shared = rng.normal(size=(90, 50))
    for apart in (1e-9, 1e-3, 0.05, 0.3, 0.45, 0.6, -2.0):
        count = counts(method)[-1]
        own = [shared + apart * rng.normal(size=shared.shape) for _ in range(count - 1)]
        deltas = [shared, *own] if apart > 0 else [shared * (-1) ** i for i in range(count)]
        base = rng.normal(size=shared.shape).astype(np.float32)
        start = base if method in OF_TASK_VECTORS else 0 * base
        given = [(start + scale * delta).astype(np.float32) for delta in deltas]
        for parameters in variations(method, count):
            parameters |= {"matrices": "none"} if "matrices" in parameters else {}
            first = base if method in OF_TASK_VECTORS else None
            expected = engine(method, given, first, parameters)
            assert_equal(merged(method, given, first, parameters), expected)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16], ids=["bf16", "f16"])
@pytest.mark.parametrize("method", cuda.METHODS)
def test_sixteen_bits_are_widened(method, dtype):
    """Most differences are then tied with many others."""
    rng = case(method)
    count = counts(method)[-1]
    for parameters in variations(method, count):
        parameters |= {"matrices": "none"} if "matrices" in parameters else {}
        given, base = family(method, count, (150, 131), rng, dtype)
        expected = engine(method, given, base, parameters)
        assert_equal(merged(method, given, base, parameters), expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("shape", SEVERAL_BLOCKS, ids=str)
@pytest.mark.parametrize("method", cuda.METHODS)
def test_chunks_leave_no_trace(method, shape, dtype, device):
    count = counts(method)[-1]
    rng = case(method, shape)
    for parameters in variations(method, count):
        given, base = family(method, count, shape, rng, dtype)
        start = None if base is None else tensor(base).to(device)
        given = tensors(given, device)
        whole = cuda.merge(method, given, start, parameters).cpu().numpy()
        for steps in (1, 2):
            found = streamed(method, given, start, parameters, steps, dtype=given[0].dtype)
            assert_equal(found, whole)


@pytest.mark.parametrize("method", ["ties", "dare_ties"])
def test_a_chunk_that_ran_out_of_memory_comes_again_in_halves(method, monkeypatch):
    """Whatever was looked at before it did has left no trace."""
    rng = np.random.default_rng(1)
    given, base = family(method, 3, (100_000,), rng, ml_dtypes.bfloat16)
    parameters = complete(method, 3, density=[0.3, 0.5, 0.7], rescale="l1")
    expected = engine(method, given, base, parameters)
    rows, start = tensors(given), tensor(base)
    stream = cuda.stream(method, parameters, cuda.Place((100_000,), torch.float32, 3))
    look, sums = select.Selection.look, lanes.sums
    calls = {"look": 0, "sums": 0}

    def sometimes(name, original):
        def out_of_memory(*arguments):
            calls[name] += 1
            if calls[name] % 4 == 2:
                raise torch.cuda.OutOfMemoryError
            return original(*arguments)

        return out_of_memory

    monkeypatch.setattr(select.Selection, "look", sometimes("look", look))
    monkeypatch.setattr(lanes, "sums", sometimes("sums", sums))
    failures = 0

    def observe(first, stop):
        nonlocal failures
        try:
            stream.observe([row[first:stop] for row in rows], start[first:stop], first)
        except torch.cuda.OutOfMemoryError:
            failures += 1
            middle = first + (stop - first) // (2 * stream.step) * stream.step
            for part in [(first, middle), (middle, stop)] if middle > first else [(first, stop)]:
                observe(*part)

    while (wanted := stream.wanted) is not None:
        for first in range(wanted.start, wanted.stop, 2 * stream.step):
            observe(first, min(first + 2 * stream.step, wanted.stop))
        stream.conclude()
    assert failures
    assert_equal(stream.merge(rows, start, 0), expected)


@pytest.mark.parametrize("method", OF_TASK_VECTORS)
def test_onto_takes_the_change_elsewhere(method):
    given, base = family(method, 3, (70, 30), np.random.default_rng(2))
    onto = awkward(np.random.default_rng(3), (70, 30))
    parameters = complete(method, 3)
    parameters |= {"lambda": -0.6} if "lambda" in parameters else {}
    parameters |= {"matrices": "none"} if "matrices" in parameters else {}
    expected = engine(method, given, base, parameters, onto=onto)
    assert_equal(merged(method, given, base, parameters, onto=tensor(onto)), expected)


@pytest.mark.parametrize("method", [name for name in cuda.METHODS if name not in OF_TASK_VECTORS])
def test_a_base_is_one_of_the_models(method):
    rng = np.random.default_rng(4)
    base, *given = (awkward(rng, (50, 7)) for _ in range(counts(method)[-1]))
    parameters = complete(method, len(given) + 1)
    expected = engine(method, given, base, parameters)
    assert_equal(merged(method, given, base, parameters), expected)


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_masks_are_of_the_tensor_s_name_the_seed_and_the_model_s_place(method):
    given, base = family(method, 3, (300, 7), np.random.default_rng(5))
    parameters = complete(method, 3, density=0.4)
    key = {"name": "model.norm.weight", "seed": 2**63 + 5}
    expected = engine(method, given, base, parameters, **key)
    assert_equal(merged(method, given, base, parameters, **key), expected)
    turned = [given[i] for i in (2, 0, 1)]
    actual = merged(method, turned, base, parameters, **key, places=[2, 0, 1])
    backwards = cuda.merge(method, tensors(turned), tensor(base), parameters, **key)
    assert not torch.equal(actual, backwards)
    np.testing.assert_allclose(actual.numpy(), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("method", cuda.METHODS)
def test_inputs_are_left_alone(method):
    given, base = family(method, counts(method)[-1], (30, 20), np.random.default_rng(6))
    rows, start = tensors(given), None if base is None else tensor(base)
    whole = cuda.Whole.of_matrix((30, 20), solved=True) if method in DENSE else None
    cuda.merge(method, rows, start, complete(method, len(rows)), whole=whole)
    for before, after in zip([*given, base], [*rows, start], strict=True):
        if before is not None:
            np.testing.assert_array_equal(after.numpy(), before)


@pytest.mark.parametrize("device", DEVICES)
def test_a_mask_is_the_engine_s_wherever_a_chunk_begins(device):
    for name, model, seed, density in (
        *(("", 0, 42, 0.5), ("модель.γ", 3, 0, 0.37), ("x" * 2500, 9, 2**64 - 1, 1e-3)),
        *(("w", 1, 7, 0.0), ("w", 1, 7, 1.0), ("w", 1, 7, 2**-24), ("w", 1, 7, 1 - 2**-53)),
    ):
        key = philox.key(seed, name, model)
        whole = mergecore.random_mask(seed, name, model, count=70_000, density=density)
        for first, count in ((0, 70_000), (1, 1), (2, 3), (3, 6), (5, 0), (65_533, 4_467)):
            part = philox.kept(key, first, count, density, device).cpu().numpy()
            np.testing.assert_array_equal(part, whole[first : first + count])


def test_the_generator_gives_the_published_numbers_however_far():
    def words(counter, key):
        """One counter at a time, as the paper prints it."""
        c, k = list(counter), list(key)
        for _ in range(10):
            p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [q >> 32 ^ c[1] ^ k[0], q % 2**32, p >> 32 ^ c[3] ^ k[1], p % 2**32]
            k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
        return c

    assert words([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    key, first = (0xFFFFFFFF, 0x80000001), (1 << 35) + 2
    found = philox.kept(key, first, 7, 0.5, "cpu").tolist()
    each = [w for at in range(3) for w in words([first // 4 + at - 2**33, 2, 0, 0], key)]
    assert found == [word < 2**31 for word in each[2:9]]


def test_blake3_is_the_published_one():
    empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert blake3.digest(b"").hex() == empty
    # Longer ones than a chunk, and trees that are not full, are the masks' of long names.
    package = pytest.importorskip("blake3", reason="the package blake3 is not installed")
    for length in (1, 63, 64, 65, 1023, 1024, 1025, 2049, 3072, 7000):
        data = bytes(i % 251 for i in range(length))
        assert blake3.digest(data) == package.blake3(data).digest()


def test_products_are_added_with_one_rounding():
    """What is nearly halfway between two numbers is where a second rounding shows."""
    one, step = np.float32(1), np.float32(2**-23)
    x, weight, total = step / 2 * (one + step), float(one - step), one + step
    twice = np.float32(np.float64(x) * weight + np.float64(total))
    found = fused(torch.tensor([x]), weight, torch.tensor([total]))
    assert found.numpy()[0] == total != twice
    x = torch.tensor([2.0**-53 * (1 + 2.0**-52)], dtype=torch.float64)
    total = torch.tensor([1 + 2.0**-52], dtype=torch.float64)
    assert fused(x, 1 - 2.0**-52, total).item() == total.item()
    assert (x * (1 - 2.0**-52) + total).item() != total.item()


def test_what_has_no_path_says_so():
    assert cuda.METHODS.keys() <= registry.methods().keys()
    assert set(cuda.MODIFIERS) <= registry.modifiers().keys()
    for method in registry.methods():
        count = registry.methods()[method].min_models
        reason = cuda.runs(method, complete(method, count))
        assert (reason is None) == (method in cuda.METHODS)
        assert reason is None or reason.startswith(f"{method} ")
    for method in ("ties", "dare_ties"):
        parameters = complete(method, 2, scope="model")
        assert cuda.runs(method, parameters) == f"{method} with scope: model runs on the CPU only"
        with pytest.raises(ValueError, match="scope: model"):
            cuda.merge(method, [torch.ones(3)] * 2, torch.ones(3), parameters)
    plain = complete("task_arithmetic", 1)
    assert cuda.runs("task_arithmetic", plain, [modifier("boost")]) is None
    matched = modifier("match_norm", to="task_arithmetic")
    assert "match_norm" in str(cuda.runs("task_arithmetic", plain, [matched]))


def test_what_does_not_fit_together_is_refused():
    parameters = complete("task_arithmetic", 2)
    with pytest.raises(ValueError, match="shapes differ"):
        cuda.merge("task_arithmetic", [torch.ones(3), torch.ones(2)], torch.ones(3), parameters)
    with pytest.raises(ValueError, match="weight has 2 values for 1 models"):
        cuda.merge("task_arithmetic", [torch.ones(3)], torch.ones(3), parameters)
    with pytest.raises(ValueError, match="base"):
        cuda.merge("task_arithmetic", [torch.ones(3)] * 2, None, parameters)
