"""Is what hidden states say of a group of models what the formulas make of them?"""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

import mergecore
from mergecore import ModelNotFoundError, RecipeError, pocket
from mergecore.diagnose import bounds
from mergecore.diagnose.mergeability import Mergeability, difficulty, pairwise, similarity
from mergecore.diagnose.selection import select


def squares_of(points):
    return ((points[:, None] - points) ** 2).sum(axis=2)


def naive_ball(points):
    """Of all balls on whose surface some of the points lie, the smallest that holds all."""
    best = math.inf
    for size in range(1, len(points) + 1):
        for chosen in itertools.combinations(points, size):
            first, *others = chosen
            sides = np.array([other - first for other in others]).reshape(-1, points.shape[1])
            # The center lies in their span, equally far from all.
            inner, rest = sides @ sides.T, (sides**2).sum(axis=1) / 2
            center = first + np.linalg.lstsq(inner, rest, rcond=None)[0] @ sides
            radius = ((points - center) ** 2).sum(axis=1).max()
            best = min(best, radius)
    return best


@pytest.mark.parametrize("dimension", [1, 2, 5, 40])
@pytest.mark.parametrize("count", [2, 3, 5, 7])
def test_the_smallest_ball(count, dimension):
    rng = np.random.default_rng([count, dimension])
    for spread in (1.0, 1e-4):
        points = spread * rng.normal(size=(count, dimension)) + 3
        squares = squares_of(points)
        radius, weights = bounds.enclosing_ball(squares)
        assert radius == pytest.approx(naive_ball(points), rel=1e-6)
        assert weights.sum() == pytest.approx(1)
        assert weights.min() >= 0
        reach = ((points - weights @ points) ** 2).sum(axis=1).max()
        assert reach == pytest.approx(radius, rel=1e-5)
        assert radius <= bounds.simplex(squares.max(), count) * (1 + 1e-9)
        assert radius >= squares.max() / 4 * (1 - 1e-9)
        centroid = ((points - points.mean(axis=0)) ** 2).sum(axis=1).mean()
        assert bounds.to_centroid(squares) == pytest.approx(centroid)


def test_points_that_coincide_and_a_regular_simplex():
    assert bounds.enclosing_ball(np.zeros((3, 3)))[0] == 0
    squares = squares_of(np.eye(8))
    radius, weights = bounds.enclosing_ball(squares)
    assert radius == pytest.approx(bounds.simplex(2.0, 8)) == 7 / 8
    np.testing.assert_allclose(weights, 1 / 8)
    assert bounds.jung(2.0, 7) == pytest.approx(bounds.simplex(2.0, 8))


@pytest.mark.parametrize("count", [2, 4, 8])
def test_the_curve_of_rate_and_distortion(count):
    rng = np.random.default_rng(count)
    squares = squares_of(rng.normal(size=(count, 6)))
    distortion, rate = bounds.rate_distortion(squares)
    assert rate[0] == pytest.approx(math.log2(count))
    assert rate[-1] == 0
    assert distortion[-1] == pytest.approx(bounds.to_centroid(squares))
    assert (np.diff(distortion) >= 0).all()
    assert (np.diff(rate) <= 0).all()
    # Convex, but for what the iterations leave; and never above the chord, which time-sharing is.
    chord = rate[0] * (1 - distortion / distortion[-1])
    assert (rate <= chord + 1e-6).all()


def test_two_equal_models_are_one_bit_less():
    points = np.array([[0.0, 0.0], [0.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    distortion, rate = bounds.rate_distortion(squares_of(points))
    assert rate[0] == pytest.approx(math.log2(3))
    assert distortion[0] == 0


def test_the_curve_of_two_points_is_the_published_one():
    """±1 with equal odds and squared error: h((1 − √(1 − D)) / 2) is reached by soft decisions.

    Reproductions are conditional means, so that with flips of probability p they are ±(1 − 2p),
    D = 4p(1 − p), and the rate is 1 − h(p).
    """
    distortion, rate = bounds.rate_distortion(squares_of(np.array([[-1.0], [1.0]])))
    p = (1 - np.sqrt(1 - np.minimum(distortion, 1))) / 2
    inner = (p > 0) & (p < 1)
    h = np.where(inner, -p * np.log2(np.maximum(p, 1e-300)), 0)
    h += np.where(inner, -(1 - p) * np.log2(1 - p), 0)
    np.testing.assert_allclose(rate, 1 - h, atol=2e-3)


def test_similarity_and_difficulty_are_equations_2_and_3():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(4, 10, 6))
    states[3] = 5 * states[0]  # lengths do not count
    distances, squares = pairwise(states)
    unit = states / np.linalg.norm(states, axis=2, keepdims=True)
    for i, j in itertools.product(range(4), range(4)):
        apart = np.linalg.norm(unit[i] - unit[j], axis=1)
        assert distances[i, j] == pytest.approx(apart.mean(), abs=1e-12)
        assert squares[i, j] == pytest.approx((apart**2).mean(), abs=1e-12)
    assert distances[0, 3] < 1e-12
    similar = similarity(distances)
    assert similar.min() == 0
    np.testing.assert_allclose(similar, 1 - distances / distances.max())
    for i, score in enumerate(difficulty(similar)):
        others = [similar[i, j] for j in range(4) if j != i]
        assert score == pytest.approx(1 / np.mean(others))


def test_models_that_are_all_the_same_or_all_as_far():
    assert (difficulty(similarity(np.zeros((3, 3)))) == 1).all()
    far = 1 - np.eye(3)
    assert np.isinf(difficulty(similarity(far))).all()
    found = Mergeability(["a", "b", "c"], -1, 8, 5, far, far)
    assert json.dumps(found.as_json())
    assert found.as_json()["difficulty"] == [None] * 3


def test_a_budget_is_judged_twice():
    squares = squares_of(np.eye(3))
    judged = Mergeability(list("abc"), -1, 500, 5, np.sqrt(squares), squares, budget=0.7).mergeable
    # Jung's factor for 500 dimensions is nearly 1/2: 1.0; the triangle's exact radius is 2/3.
    assert judged == {"corollary 1": False, "the exact radius": True}


@pytest.mark.parametrize("count", [4, 7])
def test_the_best_group_is_the_best_of_all(count):
    rng = np.random.default_rng(count)
    for _ in range(5):
        distances = np.sqrt(squares_of(rng.normal(size=(count, 3))))
        similar = similarity(distances)
        for keep in range(2, count + 1):
            scores = {
                group: difficulty(similar[np.ix_(group, group)]).max()
                for group in itertools.combinations(range(count), keep)
            }
            found = select(distances, keep)
            assert found.exact
            assert found.best.worst == pytest.approx(min(scores.values()))
            first = tuple(range(keep))
            assert found.given.worst == pytest.approx(scores[first])
            stay = [i for i in first if i != found.dropped]
            swaps = {tuple(sorted([*stay, i])) for i in range(keep, count)}
            if swaps and min(scores[s] for s in swaps) < scores[first]:
                assert found.replaced.worst == pytest.approx(min(scores[s] for s in swaps))
            else:
                assert found.replacement is None


def test_many_candidates_are_sought_by_swaps():
    rng = np.random.default_rng(5)
    points = rng.normal(size=(30, 4))
    points[[3, 8, 12, 17, 19, 22, 25, 29]] *= 0.05
    found = select(np.sqrt(squares_of(points)), 8)
    assert not found.exact
    assert set(found.best.members) == {3, 8, 12, 17, 19, 22, 25, 29}


def test_an_outlier_is_replaced():
    points = np.array([[0.0], [0.1], [5.0], [0.2], [0.05]])
    found = select(np.sqrt(squares_of(points)), 3)
    assert (found.dropped, found.replacement) == (2, 4)
    assert 2 not in found.best.members
    with pytest.raises(RecipeError, match="from 2 to 5"):
        select(np.sqrt(squares_of(points)), 6)


TEXTS = ["reverse: a b c =", "add: 12+30", "x", "The cat and the dog. Is it so? It is, it is."]


@pytest.fixture
def probe(tmp_path):
    pytest.importorskip("transformers", reason="the extra generate is not installed")
    rows = [{"id": i, "text": text, "task": "any"} for i, text in enumerate(TEXTS)]
    path = tmp_path / "probes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


EXPERTS = ("reverse", "sort", "add")


def naive_states(name, layer):
    """Text by text, without padding."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = str(pocket.path(name))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    states = []
    for text in TEXTS:
        with torch.inference_mode():
            answer = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
        states.append(answer.hidden_states[layer][0].double().mean(dim=0).numpy())
    return np.stack(states)


@pytest.mark.parametrize("layer", [-1, 2])
def test_hidden_states_are_those_of_a_naive_loop(probe, layer):
    paths = [pocket.path(name) for name in EXPERTS]
    found = mergecore.mergeability(paths, probe, layer=layer, dtype="float32", batch_size=3)
    distances, squares = pairwise(np.stack([naive_states(name, layer) for name in EXPERTS]))
    np.testing.assert_allclose(found.distances, distances, atol=1e-5)
    np.testing.assert_allclose(found.squares, squares, atol=1e-5)
    assert (found.texts, found.layer) == (4, layer)


def test_a_model_is_no_distance_from_itself(probe):
    base = pocket.path("base")
    found = mergecore.mergeability([base, base], probe, dtype="float32")
    assert found.diameter == found.radius == 0
    assert (found.difficulty == 1).all()


def test_of_an_encoder_decoder_the_decoder_s(tmp_path, probe):
    import torch
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(str(pocket.path("base")))
    folders = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        config = T5Config(
            vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
            decoder_start_token_id=0, pad_token_id=0,
        )  # fmt: skip
        folders.append(tmp_path / f"t5-{seed}")
        T5ForConditionalGeneration(config).save_pretrained(folders[-1])
        tokenizer.save_pretrained(folders[-1])
    found = mergecore.mergeability(folders, probe, dtype="float32", batch_size=1)
    together = mergecore.mergeability(folders, probe, dtype="float32", batch_size=4)
    assert found.diameter > 0.01
    np.testing.assert_allclose(together.squares, found.squares, atol=1e-5)


def test_models_that_read_other_tokens_are_told(tmp_path, probe):
    """The same words in another order in the vocabulary, as of another tokenizer."""
    import shutil

    other = tmp_path / "other"
    shutil.copytree(pocket.path("sort"), other)
    content = json.loads((other / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["▁a"], vocabulary["▁b"] = vocabulary["▁b"], vocabulary["▁a"]
    (other / "tokenizer.json").write_text(json.dumps(content))
    found = mergecore.mergeability([pocket.path("sort"), other], probe, dtype="float32")
    assert any("different tokens" in note for note in found.notes)
    assert found.diameter > 0
    same = mergecore.mergeability([pocket.path("sort"), pocket.path("add")], probe)
    assert not same.notes


def test_what_cannot_be_compared_is_said_in_one_line(tmp_path, probe, refused):
    experts = [pocket.path(name) for name in EXPERTS]
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"id": "far", "text": "a b c " * 500, "task": "x"}) + "\n")
    assert "the text 'far' has" in refused("mergeability", *experts, "--probe", long)
    empty = tmp_path / "empty.jsonl"
    empty.write_text(json.dumps({"id": "x", "text": " ", "task": "x"}) + "\n")
    assert "row 1: its text is no text" in refused("mergeability", *experts, "--probe", empty)
    refusal = refused("mergeability", *experts, "--probe", probe, "--budget", "nan")
    assert "budget is nan" in refusal
    assert "two or more" in refused("mergeability", experts[0], "--probe", probe)
    assert "layer 99" in refused("mergeability", *experts, "--probe", probe, "--layer", 99)
    assert "--keep is 4" in refused("select", *experts, "--probe", probe, "--keep", 4)
    twice = [*experts, experts[0]]
    assert "is given twice" in refused("select", *twice, "--probe", probe, "--keep", 2)
    bogus = refused("mergeability", *experts, "--probe", probe, "--device", "bogus")
    assert "device 'bogus'" in bogus
    assert "No such file" in refused("select", *experts, "--probe", "none", "--keep", 2)
    assert "a: no such" in refused("mergeability", "a+b", experts[0], "--probe", probe)
    with pytest.raises(ModelNotFoundError, match="no such file or folder"):
        mergecore.mergeability([tmp_path / "x", tmp_path / "y"], probe)


def test_the_commands_print_tables_and_one_object(command, probe, tmp_path):
    experts = [pocket.path(name) for name in EXPERTS]
    answer = command("mergeability", *experts, "--probe", probe, "--budget", 0.5)
    assert answer.status == 0, answer.err
    for word in ("MDS", "similarity", "Jung's bound", "exact radius²", "R(D)", "by corollary 1"):
        assert word in answer.out
    told = json.loads(command("mergeability", *experts, "--probe", probe, "--json").out)
    assert len(told["difficulty"]) == 3
    assert command("mergeability", *experts, "--probe", probe, "--quiet").out == ""
    chosen = json.loads(command("select", *experts, "--probe", probe, "--keep", 2, "--json").out)
    assert len(chosen["best"]) == 2
    assert "MDS among all" in command("select", *experts, "--probe", probe, "--keep", 2).out
    pytest.importorskip("vl_convert", reason="the extra report is not installed")
    page = tmp_path / "page.html"
    assert command("mergeability", *experts, "--probe", probe, "--report", page).status == 0
    assert "vegaEmbed" in page.read_text()


def test_an_adapter_on_a_model_is_read_as_the_two_merged(tmp_path, probe, command):
    base, adapter, merged = pocket.path("base"), tmp_path / "adapter", tmp_path / "merged"
    line = ("extract-lora", pocket.path("reverse"), "--base", base, "--rank", 4, "--out", adapter)
    assert command(*line).status == 0
    mergecore.run({"merge_method": "passthrough", "models": [f"{base}+{adapter}"]}, merged)
    other = pocket.path("sort")
    one = mergecore.mergeability([f"{base}+{adapter}", other], probe, dtype="float32")
    same = mergecore.mergeability([merged, other], probe, dtype="float32")
    assert (one.distances == same.distances).all()
    assert one.diameter > 0
