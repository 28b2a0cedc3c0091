"""Is what `compare` says of models what their weights are?"""

from __future__ import annotations

import json
import re

import ml_dtypes
import numpy as np
import pytest

import checkpoints
import mergecore
from mergecore import ModelError, RecipeError
from mergecore.diagnose.figures import Figures

BF16 = ml_dtypes.bfloat16
ROUNDING = {"bfloat16": 2.0**-9.2, "float16": 2.0**-12.2, "float32": 2.0**-25.2}
SHAPES = {
    "model.embed_tokens.weight": (37, 16),
    "model.layers.0.self_attn.q_proj.weight": (16, 16),
    "model.layers.0.mlp.up_proj.weight": (150, 1100),
    "model.layers.1.self_attn.q_proj.weight": (16, 16),
    "model.layers.1.mlp.up_proj.weight": (150, 1100),
    "model.norm.weight": (16,),
    "model.scale": (),
    "model.none": (0, 4),
}


def make(count, *, dtype=BF16, wild=False, seed=0, size=0.05):
    """A base and fine-tunes: many weights that have not moved, equal moves, NaN and infinities."""
    rng = np.random.default_rng(seed)
    states = [{} for _ in range(count + 1)]
    for name, shape in SHAPES.items():
        base = rng.normal(size=shape).astype(np.float32)
        shared = size * rng.normal(size=shape)
        for number, state in enumerate(states):
            moved = np.where(rng.random(shape) < 0.6, shared + size * rng.normal(size=shape), 0)
            moved = np.where(rng.random(shape) < 0.1, size, moved)
            # A stretch that nobody has trained.
            moved = np.where(
                np.arange(np.size(base)).reshape(shape) < 0.3 * np.size(base), 0, moved
            )
            state[name] = (base + (moved if number else 0)).astype(dtype)
            if wild and np.ndim(base):
                places = rng.random(shape)
                state[name] = np.where(places < 0.002, np.nan, state[name]).astype(dtype)
                state[name] = np.where(places > 0.998, -np.inf, state[name]).astype(dtype)
    return states


def save(folder, states, **config):
    for name, state in zip(("base", "a", "b", "c", "d", "e"), states, strict=False):
        checkpoints.save(folder / name, state, **config)
    return [folder / name for name in ("a", "b", "c", "d", "e")[: len(states) - 1]]


def naive(states, name):
    """The figures of one tensor, as their formulas read; keys of `Figures.as_json`, and more."""
    base, *tunes = (np.atleast_1d(state[name].astype(np.float32)).ravel() for state in states)
    fine = np.all([np.isfinite(x) for x in (base, *tunes)], axis=0)
    start = base[fine].astype(np.float64)
    deltas = [(tune[fine] - base[fine]).astype(np.float64) for tune in tunes]
    count = len(tunes)
    square = np.zeros((count, count))
    apart, conflicts, conflicting = square.copy(), square.copy(), square.copy()
    for i, x in enumerate(deltas):
        for j, y in enumerate(deltas):
            against = np.sign(x) * np.sign(y) == -1
            square[i, j] = x @ y
            apart[i, j] = np.abs(x - y).sum()
            conflicts[i, j] = against.sum()
            conflicting[i, j] = np.abs(x - y)[against].sum()
    dtypes = [str(state[name].dtype) for state in states[1:]]
    whole = np.where(fine, base, 0).astype(np.float64)
    noise = []
    for tune, dtype in zip(tunes, dtypes, strict=True):
        moved = np.where(fine, tune - np.where(fine, base, 0), 0) != 0
        # Stretches of 512 elements within blocks of 16,384.
        touched = sum(
            (whole[at : at + 512] ** 2).sum()
            for at in range(0, len(whole), 512)
            if moved[at : at + 512].any()
        )
        noise.append(ROUNDING[dtype] ** 2 * touched)
    return Figures(
        elements=int(fine.sum()),
        left_out=int((~fine).sum()),
        base_square=float(start @ start),
        gram=square,
        l1=np.array([np.abs(x).sum() for x in deltas]),
        zeros=np.array([(x == 0).sum() for x in deltas], float),
        noise_square=np.array(noise),
        nan=np.array([np.isnan(x).sum() for x in tunes], float),
        inf=np.array([np.isinf(x).sum() for x in tunes], float),
        apart=apart,
        conflicts=conflicts,
        conflicting=conflicting,
    )


def assert_figures(got, want):
    for name in Figures.__dataclass_fields__:
        one, other = getattr(got, name), getattr(want, name)
        exact = name in ("elements", "left_out", "zeros", "nan", "inf", "conflicts")
        np.testing.assert_allclose(one, other, rtol=0 if exact else 2e-6, atol=0, err_msg=name)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("wild", [False, True], ids=["finite", "wild"])
@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("dtype", [BF16, np.float16, np.float32], ids=str)
def test_every_figure_is_its_formula(tmp_path, dtype, count, wild):
    states = make(count, dtype=dtype, wild=wild)
    found = mergecore.compare(save(tmp_path, states), tmp_path / "base")
    each = {name: naive(states, name) for name in SHAPES}
    assert {tensor.name for tensor in found.tensors} == set(SHAPES)
    for tensor in found.tensors:
        assert_figures(tensor.figures, each[tensor.name])
    assert_figures(found.overall, Figures.total(each.values()))
    layers = {f"model.layers.{number}." for _, number in found.layers}
    assert layers == {"model.layers.0.", "model.layers.1."}
    for (stack, number), figures in found.layers.items():
        own = [f for name, f in each.items() if name.startswith(f"{stack}.{number}.")]
        assert_figures(figures, Figures.total(own))
    up = Figures.total(f for name, f in each.items() if "up_proj" in name)
    assert_figures(found.kinds["mlp.up_proj"], up)


def test_what_follows_from_the_sums():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 400))
    y[:100] = x[:100]
    x[50:150] = 0
    base = np.zeros(400, np.float32)
    states = [{"w": v.astype(np.float32)} for v in (base + 1, 1 + x, 1 + y)]
    f = naive(states, "w")
    x, y = (states[i]["w"].astype(np.float64) - 1 for i in (1, 2))
    np.testing.assert_allclose(f.norms, [np.linalg.norm(x), np.linalg.norm(y)])
    np.testing.assert_allclose(f.relative, f.norms / 20)
    np.testing.assert_allclose(f.cosine[0, 1], x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    np.testing.assert_allclose(f.distances[0, 1], np.linalg.norm(x - y))
    total = np.abs(x).sum() + np.abs(y).sum()
    against = x * y < 0
    np.testing.assert_allclose(f.magnitude_change[0, 1], np.abs(x - y).sum() / total)
    np.testing.assert_allclose(f.sign_change[0, 1], against.mean())
    conflict = np.abs(x - y)[against].sum() / total
    np.testing.assert_allclose(f.conflicting_magnitude_change[0, 1], conflict)
    assert f.length([0.3, -0.7]) == pytest.approx(np.linalg.norm(0.3 * x - 0.7 * y))
    assert f.cosine[0, 0] == 1.0


def test_the_same_figures_for_any_threads(tmp_path):
    paths = save(tmp_path, make(3, wild=True))
    found = [
        json.dumps(mergecore.compare(paths, tmp_path / "base", threads=threads).as_json())
        for threads in (1, 2, 5)
    ]
    assert found[0] == found[1] == found[2]


def test_a_model_that_has_not_changed_has_no_angle(tmp_path):
    states = make(2)
    states[1] = states[0]
    found = mergecore.compare(save(tmp_path, states), tmp_path / "base")
    assert found.overall.norms[0] == 0
    assert np.isnan(found.overall.cosine[0, 1])
    assert found.kinship[0].verdict == "equal"
    assert found.overall.noise_share[0] != found.overall.noise_share[0]
    assert found.as_json()["overall"]["cosine"][0][1] is None


def test_descent(tmp_path):
    states = make(2)
    rng = np.random.default_rng(9)
    # Trained from other random numbers.
    states[2] = {name: rng.normal(size=t.shape).astype(BF16) for name, t in states[0].items()}
    found = mergecore.compare(save(tmp_path, states), tmp_path / "base")
    assert [kin.verdict for kin in found.kinship] == ["child", "unrelated"]
    assert found.kinship[1].relative == pytest.approx(np.sqrt(2), rel=0.02)
    assert found.kinship[0].least <= found.kinship[0].median <= found.kinship[0].most


def test_twins_are_told(tmp_path):
    states = make(2)
    states[2] = {name: (t.astype(np.float32) * 1.01).astype(BF16) for name, t in states[1].items()}
    notes = mergecore.compare(save(tmp_path, states), tmp_path / "base").notes
    assert any("nearer to each other" in note for note in notes)
    states[2] = states[1]
    save(tmp_path, states)
    notes = mergecore.compare([tmp_path / "a", tmp_path / "b"], tmp_path / "base").notes
    assert any("are the same model" in note for note in notes)


def test_a_merge_lies_where_its_weights_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path, make(2, dtype=np.float32))
    mergecore.merge(["a", "b"], "task_arithmetic", base="base", weights=[0.7, 0.2], out="merged")
    found = mergecore.compare(["merged"])
    assert found.base == "base"
    assert found.models == ["merged", "a", "b"]
    (place,) = found.placements
    assert place.parents == ["a", "b"]
    np.testing.assert_allclose(place.coefficients, [0.7, 0.2], rtol=1e-4)
    assert place.outside < 1e-3
    mergecore.merge(["a", "b"], "ties", base="base", density=0.2, out="trimmed")
    (place,) = mergecore.compare(["a", "trimmed", "b"], "base").placements
    assert place.merge == "trimmed"
    assert place.outside > 0.1
    mergecore.extrapolate("base", "a", alpha=0.5, out="further")
    (place,) = mergecore.compare(["further"]).placements
    np.testing.assert_allclose(place.coefficients, [1.5], rtol=1e-4)


CONFIG = {"rope_theta": 10000.0, "sliding_window": 4096, "vocab_size": 37, "eos_token_id": 2}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"rope_theta": 1e6}, "rope_theta"),
        ({"rope_parameters": {"rope_theta": 1e6}, "rope_theta": None}, "rope_theta"),
        ({"sliding_window": None}, "sliding_window"),
        ({"vocab_size": 40}, "vocab_size"),
        ({"eos_token_id": [2, 7]}, "eos_token_id"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
        ({"tie_word_embeddings": True}, None),
        ({"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}, None),
    ],
)
def test_configs_that_contradict_each_other(tmp_path, changes, what):
    states = make(1)
    checkpoints.save(tmp_path / "base", states[0], **CONFIG)
    checkpoints.save(tmp_path / "a", states[1], **{**CONFIG, **changes})
    found = mergecore.compare([tmp_path / "a"], tmp_path / "base")
    assert [conflict.what for conflict in found.conflicts] == ([] if what is None else [what])
    for conflict in found.conflicts:
        assert str(tmp_path / "a") in conflict.in_words()


def test_templates_and_tokens_that_differ(tmp_path):
    states = make(2)
    for path in save(tmp_path, states):
        text = "{{ messages }}" + path.name
        (path / "chat_template.jinja").write_text(text)
        vocabulary = {"model": {"vocab": {"x": 0, path.name: 1}}}
        (path / "tokenizer.json").write_text(json.dumps(vocabulary))
    found = mergecore.compare([tmp_path / "a", tmp_path / "b"], tmp_path / "base")
    assert [conflict.what for conflict in found.conflicts] == ["tokens", "chat template"]


def test_models_that_do_not_fit(tmp_path):
    states = make(2)
    del states[2]["model.norm.weight"]
    paths = save(tmp_path, states)
    with pytest.raises(ModelError, match=r"model\.norm\.weight is in .* and not in .*/b"):
        mergecore.compare(paths, tmp_path / "base")
    found = mergecore.compare(paths, tmp_path / "base", ignore=["model.norm.weight"])
    assert len(found.tensors) == len(SHAPES) - 1
    states[2]["model.norm.weight"] = np.zeros(17, BF16)
    save(tmp_path, states)
    with pytest.raises(ModelError, match=r"has shape \[16\].*\[17\]"):
        mergecore.compare(paths, tmp_path / "base")
    with pytest.raises(RecipeError, match="no models"):
        mergecore.compare([], tmp_path / "base")


def test_the_command_prints_tables_and_one_object(command, tmp_path):
    save(tmp_path, make(3, wild=True), rope_theta=1e4)
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    (tmp_path / "b" / "config.json").write_text(json.dumps({**config, "rope_theta": 1e6}))
    answer = command("compare", "a", "b", "c", "--base", "base", "--tensors")
    assert answer.status == 0
    for word in ("‖δ‖", "cosine", "signs differ", "mlp.up_proj", "█", "child", "model.norm"):
        assert word in answer.out
    assert "rope_theta differs" in answer.err
    told = json.loads(command("compare", "a", "b", "c", "--base", "base", "--json").out)
    assert len(told["tensors"]) == len(SHAPES)
    assert "cosine" not in told["tensors"][0]
    whole = command("compare", "a", "b", "c", "--base", "base", "--json", "--tensors").out
    assert len(json.loads(whole)["tensors"][0]["cosine"]) == 3
    assert len(told["overall"]["cosine"]) == 3
    assert command("compare", "a", "b", "--base", "base", "--quiet").out == ""
    assert "no such file or folder" in command("compare", "nowhere", "--base", "base").err


def test_the_report_is_a_page_of_its_own(command, tmp_path):
    vl_convert = pytest.importorskip("vl_convert", reason="the extra report is not installed")
    save(tmp_path, make(3))
    hostile = tmp_path / "<img src=x onerror=alert(1)>"
    checkpoints.save(hostile, make(1, seed=3)[1])
    answer = command("compare", "a", hostile.name, "--base", "base", "--report", "page.html")
    assert answer.status == 0, answer.err
    text = (tmp_path / "page.html").read_text()
    text = text.replace(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"), "")
    assert "<img src=x" not in text
    assert "vegaEmbed" in text
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", text)
    refusal = command("compare", "a", "--base", "base", "--report", "nowhere/page.html")
    assert refusal.status == 2
    assert "no such folder" in refusal.err


def strict(text):
    """JSON without the words that only Python reads."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_what_has_no_value_is_null(command, tmp_path):
    """A base of zeros, a model of nothing but NaN, numbers whose squares overflow."""
    states = make(2, dtype=np.float32)
    for state in states:
        state["model.norm.weight"] = np.zeros(16, np.float32)
    states[1]["model.norm.weight"] = np.ones(16, np.float32)
    save(tmp_path, states)
    told = strict(command("compare", "a", "b", "--base", "base", "--json").out)
    norm = next(t for t in told["tensors"] if t["name"] == "model.norm.weight")
    assert norm["relative"] == [None, None]
    assert "–" in command("compare", "a", "b", "--base", "base").out
    states[1] = {name: np.full_like(t, np.nan) for name, t in states[1].items()}
    save(tmp_path, states)
    answer = command("compare", "a", "b", "--base", "base")
    assert "most weights are NaN or infinite" in answer.err
    assert "is the base" not in answer.err
    told = strict(command("compare", "a", "b", "--base", "base", "--json").out)
    assert [kin["verdict"] for kin in told["kinship"]] == ["unknown", "unknown"]
    for number, value in enumerate((0.0, 1e200, -2e200)):
        name = ("base", "a", "b")[number]
        checkpoints.save(tmp_path / name, {"w": np.full((2, 2), value)})
    assert strict(command("compare", "a", "b", "--base", "base", "--json").out)


def test_rounding_is_told_from_what_weights_do_not_explain(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(4)
    base = rng.normal(size=(200, 300)).astype(BF16)
    for name in ("base", "a", "b"):
        change = 0 if name == "base" else 0.003 * rng.normal(size=base.shape)
        checkpoints.save(tmp_path / name, {"w.weight": (base + change).astype(BF16)})
    mergecore.merge(["a", "b"], "task_arithmetic", base="base", out="merged")
    found = mergecore.compare(["merged"])
    (place,) = found.placements
    assert place.outside > 0.3
    assert place.rounding == pytest.approx(place.outside, rel=0.35)
    assert found.inputs == [1, 2]
    told = found.as_json()["merged"]["sum"]["distance"]
    assert told == pytest.approx(found.distance([0.0, 1.0, 1.0]))


def test_a_manifest_that_is_damaged_or_tells_of_what_is_gone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path, make(2))
    damaged = ["[", "{}", '{"inputs": [], "recipe": null}', '{"inputs": 5}']
    damaged.append('{"inputs": [{"model": "a", "path": 7}], "recipe": {"base_model": 5}}')
    for text in damaged:
        (tmp_path / "a" / "mergecore.json").write_text(text)
        assert not mergecore.compare(["a"], "base").placements
    (tmp_path / "a" / "mergecore.json").unlink()
    mergecore.merge(["a", "b"], "ties", base="base", out="merged")
    (tmp_path / "b").rename(tmp_path / "elsewhere")
    found = mergecore.compare(["merged", "a"], "base")
    assert not found.placements
    assert any("is no longer there" in note for note in found.notes)


def test_onto_is_a_parent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path, make(2, dtype=np.float32))
    mergecore.merge(["a"], "task_arithmetic", base="base", onto="b", out="m", weights=0.5)
    (place,) = mergecore.compare(["m"]).placements
    np.testing.assert_allclose(place.coefficients, [0.5, 1.0], rtol=1e-4)
    assert place.outside < 1e-3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"rope_theta": 10000}, {"rope_theta": 10000.0}),
        (
            {"rope_scaling": {"factor": 8, "type": "x"}},
            {"rope_scaling": {"factor": 8.0, "type": "x"}},
        ),
        ({"rope_theta": 1e4}, {"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}),
        ({"architectures": ["X"]}, {}),
    ],
)
def test_configs_that_only_look_different(tmp_path, one, other):
    states = make(1)
    checkpoints.save(tmp_path / "base", states[0], **one)
    checkpoints.save(tmp_path / "a", states[1], **other)
    assert mergecore.compare([tmp_path / "a"], tmp_path / "base").conflicts == []


def test_files_that_cannot_be_read_contradict_nobody(tmp_path):
    states = make(1)
    for path in [*save(tmp_path, states), tmp_path / "base"]:
        (path / "tokenizer.json").write_text('{"model": "x", "added_tokens": [{}]}')
        (path / "generation_config.json").write_text('{"eos_token_id": [1, null]}')
    assert mergecore.compare([tmp_path / "a"], tmp_path / "base").conflicts == []


def test_errors_speak_of_this_command(refused, tmp_path):
    states = make(1)
    states[1]["model.embed_tokens.weight"] = np.zeros((40, 16), BF16)
    save(tmp_path, states)
    message = refused("compare", "a", "--base", "base")
    assert "--ignore '*embed_tokens*'" in message
    assert "tokenizer" not in message
    message = refused("compare", "a")
    assert "compare needs a base" in message
    assert "recipe" not in message


def test_long_names_leave_the_numbers_whole(command, tmp_path, monkeypatch):
    from mergecore.cli import terminal

    names = [f"MergeBench/Llama-3.2-3B-Instruct_{x}" for x in ("instruction", "multilingual")]
    short = terminal.short_names(names)
    assert all(len(name) <= 28 for name in short)
    assert len(set(short)) == 2
    assert terminal.short_names(["x/a", "y/a"]) == ["x/a", "y/a"]
    assert terminal.short_names(["x/a", "y/b/"]) == ["a", "b"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_near_the_end_of_their_type_are_in_the_sums_or_counted(tmp_path, dtype):
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    base, one, other = rng.normal(size=(3, 5000)).astype(dtype)
    one[[0, 32, 64]] = 2.5e38  # sums beyond float32
    other[0] = -2.5e38
    if dtype == "float64":
        one[7] = np.finfo(dtype).max  # its square is beyond float64
    one[5] = np.nan
    for name, values in (("base", base), ("one", one), ("other", other)):
        (tmp_path / name).mkdir()
        save_file({"w": values}, tmp_path / name / "model.safetensors")
    found = mergecore.compare([tmp_path / "one", tmp_path / "other"], base=tmp_path / "base")
    kept = np.ones(5000, bool)
    kept[[5, 7] if dtype == "float64" else [5]] = False
    a, b = ((m.astype(np.float64) - base)[kept] for m in (one, other))
    np.testing.assert_allclose(found.overall.norms, [np.linalg.norm(a), np.linalg.norm(b)], 1e-6)
    np.testing.assert_allclose(found.overall.zero_share, [0, 0], atol=1e-12)
    apart, sizes = np.abs(a - b), np.abs(a).sum() + np.abs(b).sum()
    told = found.overall.conflicting_magnitude_change[0, 1]
    np.testing.assert_allclose(told, apart[a * b < 0].sum() / sizes, 1e-6)
