"""Does a recipe give what mergekit gives? The same file is run by both.

Runs where MERGECORE_MERGEKIT names a Python that has mergekit. mergekit is told to compute in
float32, as mergecore does; neither the output's rounding nor the order of its own roundings is
compared, hence one ulp. DARE's masks are random and another generator's, so only densities that
leave nothing to chance are compared.
"""

from __future__ import annotations

import numpy as np
import pytest
from architectures import ARCHITECTURES
from cases import CASES, SHARD_SIZES
from closeness import ULPS, largest_of, ulps_apart, within
from deviations import DERIVED, MERGEKIT_DROPS, own_name
from families import DTYPES, STEPPED

import checkpoints
import mergecore
import naive

MODELS = ("base", "a", "b", "far")


@pytest.mark.parametrize("name", CASES)
def test_a_recipe_gives_what_mergekit_gives(name, merged, families, tmp_path, table):
    family, content = CASES[name]
    refused = merged / f"{name}.refused"
    assert not refused.exists(), refused.read_text()
    shard_size = SHARD_SIZES.get(name)
    mergecore.run(merged / f"{name}.yml", tmp_path / "out", shard_size=shard_size)
    ours = checkpoints.load(tmp_path / "out")
    theirs = checkpoints.load(merged / f"{name}.mergekit")
    theirs = {own_name(family, tensor): array for tensor, array in theirs.items()}
    assert ours.keys() - theirs.keys() == MERGEKIT_DROPS.get(family, set())
    assert theirs.keys() - ours.keys() == DERIVED.get(family, set())
    inputs = {model: checkpoints.load(families[family] / model) for model in MODELS}
    seen = [0, 0, 0.0]
    dtype = content.get("out_dtype", DTYPES[family])
    ulps = ULPS.get(content["merge_method"], 1) if dtype == "float32" else 1
    if family in ARCHITECTURES and content["merge_method"] == "slerp":
        ulps = 3  # mergekit was seen 2.7 ulps from the formula in these, mergecore 1.8
    for tensor in ours.keys() & theirs.keys():
        actual, expected = ours[tensor], theirs[tensor]
        assert actual.dtype == expected.dtype, tensor
        assert actual.shape == expected.shape, tensor
        tie = np.zeros(actual.shape, bool)
        of_models = {model: largest_of(tensor, state) for model, state in inputs.items()}
        if family not in STEPPED:
            same = within(ulps, actual, expected, *of_models.values())
        elif content["merge_method"] in SELECTING:
            named = {"base", *(entry["model"] for entry in content["models"])}
            of_models = {model: inputs[model][tensor] for model in MODELS if model in named}
            tie = SELECTING[content["merge_method"]](content, of_models)
            same = (actual == expected) | tie
            if content["merge_method"] != "ties" or content["parameters"].get("rescale"):
                # A factor is a reduction: ours in float64, theirs in float32. It multiplies a
                # delta that then nearly cancels a weight: a few ulps of the small rest.
                same |= within(4, actual, expected, *of_models.values())
        else:
            same = within(ulps, actual, expected, *of_models.values())
        apart = np.where(tie, 0, ulps_apart(actual, expected, *of_models.values()))
        equal = int((actual == expected).sum())
        seen = [seen[0] + same.size, seen[1] + equal, max(seen[2], apart.max(initial=0))]
        assert same.all(), f"{tensor}: {np.flatnonzero(~same)[:5]} of {same.size}"
    table[name] = (content["merge_method"], dtype, *seen)


def tied(content: dict, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Elements that tie with others for the last places of some model: mergekit keeps any."""
    base = inputs["base"].astype(np.float32)
    result = np.zeros(base.shape, bool)
    for entry in content["models"]:
        magnitudes = np.abs(inputs[entry["model"]].astype(np.float32) - base)
        density = entry["parameters"].get("density", 1)
        if 0 < density < 1:
            keep = max(1, int(density * magnitudes.size))
            places = [keep]
            if content["merge_method"] != "ties":
                top = int(content["parameters"].get("gamma", 0.01) * magnitudes.size)
                top = min(top, magnitudes.size - int(density * magnitudes.size))
                places = [top, top + int(density * magnitudes.size)]
            for keep in filter(None, places):
                threshold = np.sort(magnitudes, axis=None)[-keep]
                if np.count_nonzero(magnitudes >= threshold) > keep:
                    result |= magnitudes == threshold
    return result


def alike(content: dict, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Elements whose variance is the last that SCE selects, but for mergekit's roundings."""
    base = inputs["base"].astype(np.float64)
    deltas = [x.astype(np.float64) - base for model, x in inputs.items() if model != "base"]
    variance, topk = np.var(deltas, axis=0), content["parameters"].get("select_topk", 1)
    keep = int(np.count_nonzero(variance) * topk)
    if topk == 1 or keep == 0:
        return np.zeros(base.shape, bool)
    return np.isclose(variance, np.sort(variance, axis=None)[-keep], rtol=1e-5, atol=0)


def fused(content: dict, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Elements near Arcee Fusion's threshold: divergences are float32 in mergekit, in ours not."""
    base, other = (inputs[model].astype(np.float64) for model in ("base", "far"))
    p, q = (naive.softmax(x) + 1e-8 for x in (other, base))
    importance = np.abs(other - base) * (p * np.log(p / q)).sum(axis=-1, keepdims=True)
    places = [int(q * (importance.size - 1)) for q in (0.25, 0.5, 0.75)]
    low, middle, high = np.sort(importance, axis=None)[places]
    return np.isclose(importance, middle + 1.5 * (high - low), rtol=2e-3, atol=0)


SELECTING = {
    "ties": tied,
    "breadcrumbs": tied,
    "breadcrumbs_ties": tied,
    "sce": alike,
    "arcee_fusion": fused,
}
