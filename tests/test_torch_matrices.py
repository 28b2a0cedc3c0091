"""Are matrices merged on torch tensors within the engine's certificate of what it makes of them?"""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import checkpoints  # noqa: E402
import mergecore  # noqa: E402
import naive_spectral  # noqa: E402
from mergecore import cuda  # noqa: E402
from mergecore.cuda.spectral.account import BOUND  # noqa: E402
from spectra import (  # noqa: E402
    LARGE,
    SHAPES,
    assert_same_change,
    change,
    gaussian,
    low_rank,
    models,
    near_duplicates,
    power_law,
    with_spectrum,
)
from torch_merges import (  # noqa: E402
    DENSE,
    DEVICES,
    OF_TASK_VECTORS,
    complete,
    engine,
    merged,
    modifier,
    variations,
)


def solved(method, given, base, parameters, device="cpu", **options):
    whole = cuda.Whole.of_matrix(base.shape, solved=True)
    return merged(method, given, base, parameters, device, whole=whole, **options).cpu().numpy()


def assert_engine(actual, method, given, base, parameters, **more):
    """Within the engine's own certificate."""
    expected = engine(method, given, base, parameters, **more)
    assert actual.dtype == expected.dtype
    assert_same_change(actual, expected, base, BOUND)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES + LARGE, ids=str)
@pytest.mark.parametrize("method", DENSE)
def test_matrices(method, shape, device):
    rng = np.random.default_rng(shape)
    for count in (1, 2, 3, 5):
        if method == "tsv" and min(shape) < count:
            continue  # the plan gives it the mean
        for dtype in (np.float32, np.float64):
            base, given = models(rng, gaussian(rng, shape, count), dtype)
            for parameters in variations(method, count) if shape not in LARGE else []:
                # Which tensors are matrices is the plan's to say.
                told = []
                parameters |= {"matrices": "linear"}
                actual = solved(method, given, base, parameters, device, told=told)
                assert_engine(actual, method, given, base, parameters)
                assert [(row.of, row.part) for row in told] == [(method, "")]
            parameters = complete(method, count, weight=[1.3, -0.4, 0.0, 1.0, 0.7][:count])
            parameters["lambda"] = -0.6
            actual = solved(method, given, base, parameters, device)
            assert_engine(actual, method, given, base, parameters)


@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (50, 50)], ids=str)
@pytest.mark.parametrize("method", DENSE)
def test_siblings_spectra_that_decay_and_floors(method, shape):
    rng = np.random.default_rng(shape)
    decaying = [with_spectrum(rng, shape, power_law(min(shape), 1e7)) for _ in range(2)]
    zero = np.zeros(shape)
    for deltas in (near_duplicates(rng, shape, 2, 0.99), decaying, [decaying[0], zero]):
        for rank_tol in (1e-9, 1e-6, 1e-3):
            base, given = zero, deltas
            parameters = complete(method, 2, rank_tol=rank_tol)
            assert_engine(solved(method, given, base, parameters), method, given, base, parameters)
    unchanged = solved(method, [zero, zero], zero, complete(method, 2))
    np.testing.assert_array_equal(unchanged, zero)


@pytest.mark.parametrize("shape", [(129, 129), (97, 211), (211, 97)], ids=str)
@pytest.mark.parametrize("method", DENSE)
def test_adapters_of_low_rank(method, shape):
    rng = np.random.default_rng(shape)
    for count in (1, 2, 3):
        base, given = models(rng, [low_rank(rng, shape, 2) for _ in range(count)], np.float64)
        actual = solved(method, given, base, complete(method, count))
        expected = getattr(naive_spectral, method)(given, base)
        assert_same_change(actual, expected, base, BOUND)


@pytest.mark.parametrize("method", DENSE)
def test_the_floor_of_storage_is_that_of_the_dtype_stored(method):
    rng = np.random.default_rng(8)
    base = rng.normal(size=(192, 256))
    deltas = [0.01 * low_rank(rng, base.shape, 8) for _ in range(2)]
    given = [(base + delta).astype(ml_dtypes.bfloat16) for delta in deltas]
    base = base.astype(ml_dtypes.bfloat16)
    parameters = complete(method, 2, rank_tol="storage")
    actual = solved(method, given, base, parameters)
    assert_engine(actual, method, given, base, parameters)
    # Vectors have length 1, whatever is stored: those of models that are all but equal are one.
    wide = base.astype(np.float64)
    alike = [wide + shared for shared in near_duplicates(rng, base.shape, 2, 1 - 1e-15)]
    assert_engine(solved(method, alike, wide, parameters), method, alike, wide, parameters)
    # As float32 on their way to the device, they are what they were stored as.
    wide = [x.astype(np.float32) for x in (base, *given)]
    told = solved(method, wide[1:], wide[0], parameters, stored=["bfloat16"] * 2)
    np.testing.assert_array_equal(told, actual)
    untold = solved(method, wide[1:], wide[0], parameters)
    assert np.linalg.norm(untold - actual) > 0.01 * np.linalg.norm(change(actual, base))


def steps(start, count, groups=1, stride=0):
    return {"start": start, "groups": groups, "count": count, "stride": stride or count}


def parts(width, *cuts):
    return [{"label": n, "width": width, "rows": r, "columns": c} for n, r, c in cuts]


def plan(units, *, is_solved=True, reshaped=()):
    made = [{"elements": list(span), "parts": some} for span, some in units]
    return {"solved": is_solved, "reshaped": list(reshaped), "units": made}


@pytest.mark.parametrize("method", DENSE)
def test_parts_of_a_tensor_are_merged_by_themselves(method):
    rng = np.random.default_rng(9)
    parameters = complete(method, 2)
    name = "model.layers.0.mlp.experts.down_proj"
    base, given = models(rng, gaussian(rng, (3, 9, 6), 2), np.float32)
    experts = parts(6, *((str(i), steps(9 * i, 9), steps(0, 6)) for i in range(3)))
    apart = [((54 * i, 54 * (i + 1)), parts(6, ("", steps(0, 9), steps(0, 6)))) for i in range(3)]
    for whole in (plan([((0, 162), experts)]), plan(apart)):
        actual = merged(method, given, base, parameters, name=name, whole=whole).numpy()
        assert_engine(actual, method, given, base, parameters, name=name)
    # Columns in turns, as gpt-oss has them; the engine is told by what is beside them.
    start = "model.layers.0.mlp.experts."
    shapes = {"gate_up_proj": (1, 6, 10), "down_proj": (1, 5, 6), "gate_up_proj_bias": (1, 10)}
    states = [{start + k: rng.normal(size=s) for k, s in shapes.items()} for _ in range(3)]
    expected = getattr(mergecore, method)(states[1:], states[0])[start + "gate_up_proj"]
    turns = [("gate", steps(0, 6), steps(0, 1, 5, 2)), ("up", steps(0, 6), steps(1, 1, 5, 2))]
    base, *given = (state[start + "gate_up_proj"] for state in states)
    whole = plan([((0, 60), parts(10, *turns))])
    actual = merged(method, given, base, parameters, whole=whole).numpy()
    assert_same_change(actual, expected, base, BOUND)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (33, 64), (97, 97), (151, 60)], ids=str)
@pytest.mark.parametrize("method", OF_TASK_VECTORS)
def test_boost_is_the_engine_s(method, shape, device):
    rng = np.random.default_rng(shape)
    is_solved = method in DENSE and min(shape) > 1
    base, given = models(rng, gaussian(rng, shape, 2), np.float32)
    for options in ({}, {"beta": 0.0}, {"beta": 0.7}, {"beta": 1.0}, {"rank_tol": 0.03}):
        boost = modifier("boost", **options)
        parameters = complete(method, 2) | {"lambda": 0.5}
        parameters = {k: v for k, v in parameters.items() if k in complete(method, 2)}
        parameters |= {"matrices": "linear" if is_solved else "none"} if method in DENSE else {}
        whole = cuda.Whole.of_matrix(shape, solved=is_solved, reshaped=[True])
        actual = merged(method, given, base, parameters, device, modifiers=[boost], whole=whole)
        more = {"modifiers": [{"boost": options}]}
        assert_engine(actual.cpu().numpy(), method, given, base, parameters, **more)


@pytest.mark.parametrize("method", OF_TASK_VECTORS)
def test_boost_knows_what_rounding_makes_of_a_sum(method):
    rng = np.random.default_rng(11)
    base = rng.normal(size=(128, 96))
    # Singular values on either side of the floor, wherever it is.
    values = 6 * power_law(96, 1e4)
    shared, *own = (with_spectrum(rng, base.shape, values) for _ in range(3))
    given = [base + shared + 0.3 * delta for delta in own]
    base, *given = (x.astype(ml_dtypes.bfloat16) for x in (base, *given))
    parameters = complete(method, 2)
    parameters |= {"weight": [1.5, 1.2]} if "weight" in parameters else {}
    parameters |= {"rank_tol": "storage"} if "rank_tol" in parameters else {}
    boost = modifier("boost", rank_tol="storage", beta=0.05)
    is_solved = method in DENSE
    whole = cuda.Whole.of_matrix(base.shape, solved=is_solved, reshaped=[True])
    actual = merged(method, given, base, parameters, modifiers=[boost], whole=whole).numpy()
    more = {"modifiers": [{"boost": boost["parameters"]}]}
    assert_engine(actual, method, given, base, parameters, **more)


@pytest.mark.parametrize("rank", [9, 40])
def test_what_is_known_of_a_matrix_is_what_the_engine_s_manifest_says(rank, tmp_path):
    rng = np.random.default_rng(12)
    name = "model.layers.0.mlp.up_proj.weight"
    base = rng.normal(size=(60, 40)).astype(np.float32)
    given = [(base + low_rank(rng, (60, 40), rank)).astype(np.float32) for _ in range(2)]
    paths = [checkpoints.save(tmp_path / str(i), {name: x}) for i, x in enumerate([base, *given])]
    for method in DENSE:
        out = tmp_path / method
        mergecore.merge(paths[1:], method, base=paths[0], out=out, modifiers=["boost"])
        manifest = json.loads((out / "mergecore.json").read_text())
        (row,) = manifest["tensors"]
        rows = row["spectra"]
        whole = cuda.Whole.of_matrix(base.shape, solved=True, reshaped=[True])
        told, modifiers = [], [modifier("boost")]
        parameters = complete(method, 2)
        merged(*(method, given, base, parameters), whole=whole, modifiers=modifiers, told=told)
        assert len(rows) == len(told) == 2
        for row, own in zip(rows, told, strict=True):
            assert (row["of"], row["part"]) == (own.of, own.part)
            assert row["rank"] == own.account.rank
            for figure in ("stable_rank", "noise_share"):
                assert row[figure] == pytest.approx(
                    getattr(own.account, figure), rel=1e-6, abs=1e-9
                )
            assert max(own.account.orthogonality, own.account.residual) < 1e-6


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["", "model.layers.0.mlp.up_proj.weight"])
def test_a_matrix_that_is_not_finite_is_refused_as_the_engine_refuses_it(name, bad):
    base, *given = np.random.default_rng(13).normal(size=(3, 6, 5)).astype(np.float32)
    given[1][2, 3] = bad
    boost = modifier("boost")
    for method, modifiers in (("iso_c", []), ("task_arithmetic", [boost])):
        parameters = complete(method, 2)
        said = [m["name"] for m in modifiers]
        with pytest.raises(mergecore.RunError) as theirs:
            engine(method, given, base, parameters, name=name, modifiers=said)
        whole = cuda.Whole.of_matrix((6, 5), solved=not modifiers, reshaped=[True] * len(modifiers))
        with pytest.raises(mergecore.RunError) as ours:
            merged(method, given, base, parameters, name=name, modifiers=modifiers, whole=whole)
        assert str(ours.value) == str(theirs.value)


def test_a_wrong_result_is_not_certified(monkeypatch):
    """Should a device's eigenvectors be wrong, and the CPU's too, nothing is merged."""
    base, *given = np.random.default_rng(14).normal(size=(3, 20, 30)).astype(np.float32)
    eigh = torch.linalg.eigh

    def wrong(matrix):
        values, vectors = eigh(matrix)
        return values, vectors + 1e-4

    monkeypatch.setattr(torch.linalg, "eigh", wrong)
    for method in DENSE:
        with pytest.raises(mergecore.RunError, match="could not be decomposed"):
            solved(method, given, base, complete(method, 2))


def test_boost_begins_where_the_share_is_just_reached():
    delta = np.diag([2.0, 1.0, 1.0]).astype(np.float32)
    base, boost = np.zeros_like(delta), modifier("boost", beta=0.5)
    whole = cuda.Whole.of_matrix((3, 3), solved=False, reshaped=[True])
    parameters = complete("task_arithmetic", 1)
    actual = merged("task_arithmetic", [delta], base, parameters, modifiers=[boost], whole=whole)
    np.testing.assert_allclose(actual.numpy(), 2 * np.eye(3), atol=1e-6)
    more = {"modifiers": [{"boost": {"beta": 0.5}}]}
    assert_engine(actual.numpy(), "task_arithmetic", [delta], base, parameters, **more)
