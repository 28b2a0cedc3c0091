"""Do the recipes mean the same written down, resolved, or in another way? Needs no mergekit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from families import write_family

import checkpoints
import mergecore

RECIPES = sorted(Path(__file__).with_name("recipes").glob("deep/*.yml"))


@pytest.fixture(scope="module")
def deep(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("deep")
    write_family(folder, "deep", 4)
    return folder


@pytest.fixture
def here(deep, monkeypatch, tmp_path) -> Path:
    """The current folder has the family in it."""
    for model in ("base", "a", "b", "far"):
        (tmp_path / model).symlink_to(deep / model)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def same(one: Path, other: Path) -> bool:
    a, b = checkpoints.load(one), checkpoints.load(other)
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_recipe_as_run_makes_the_same_again(recipe, here):
    mergecore.run(recipe, "out")
    mergecore.run("out/mergecore_recipe.yml", "again")
    assert same(here / "out", here / "again")
    assert mergecore.verify("out") == []


def test_models_are_one_slice_of_all_layers(here):
    for name in ("slerp-classic", "slerp-slices"):
        mergecore.run(Path(__file__).with_name("recipes") / f"deep/{name}.yml", name)
    assert same(here / "slerp-classic", here / "slerp-slices")


@pytest.mark.parametrize("filter_", ["layrs.3", "*layrs*", "re:layrs"])
def test_a_filter_that_matches_nothing_is_said(here, filter_):
    weight = [{"filter": filter_, "value": 1}, {"filter": "mlp", "value": 1}, {"value": 0}]
    models = [{"model": "a", "parameters": {"weight": weight}}, {"model": "b"}]
    request = {"merge_method": "task_arithmetic", "base_model": "base", "models": models}
    report = mergecore.run(request | {"parameters": {"weight": 0}}, "out")
    assert report.warnings == [f'the filter "{filter_}" of weight matches no tensor']


def test_a_filter_may_be_a_glob_or_a_regular_expression(here):
    def merged(filter_: str, out: str) -> Path:
        weight = [{"filter": filter_, "value": 1}, {"value": 0}]
        models = [{"model": "a", "parameters": {"weight": weight}}, {"model": "b"}]
        request = {"merge_method": "task_arithmetic", "base_model": "base", "models": models}
        mergecore.run(request | {"parameters": {"weight": 0}}, out)
        return here / out

    substring = merged("layers.3.mlp", "substring")
    assert same(substring, merged("*layers.3.mlp*", "glob"))
    assert same(substring, merged(r"re:layers\.3\.mlp\.", "pattern"))
    changed = checkpoints.load(substring)
    base = checkpoints.load(here / "base")
    differing = {name for name in base if not np.array_equal(base[name], changed[name])}
    assert differing == {name for name in base if ".layers.3.mlp." in name}


def test_what_is_said_of_each_layer_follows_it(here):
    config = json.loads((here / "a/config.json").read_text())
    (here / "typed").mkdir()
    for file in (here / "a").iterdir():
        (here / "typed" / file.name).write_bytes(file.read_bytes())
    config["layer_types"] = ["full", "sliding", "full", "sliding", "sliding"]
    (here / "typed/config.json").write_text(json.dumps(config))
    slices = [
        {"sources": [{"model": "typed", "layer_range": [first, end]}]}
        for first, end in ((0, 2), (1, 4), (4, 5))
    ]
    mergecore.run({"merge_method": "linear", "slices": slices}, "out")
    config = json.loads((here / "out/config.json").read_text())
    assert config["layer_types"] == ["full", "sliding", "sliding", "full", "sliding", "sliding"]
    assert config["num_hidden_layers"] == 6


def test_every_tensor_s_sources_and_parameters_are_shown(command, here):
    recipe = Path(__file__).with_name("recipes") / "deep/slices-ties.yml"
    answer = command("show", recipe, "--tensors", "--json")
    steps = {step["name"]: step for step in json.loads(answer.out)["steps"]}
    step = steps["model.layers.2.mlp.up_proj.weight"]
    layer = "model.layers.0.mlp.up_proj.weight"
    assert [source["model"] for source in step["sources"]] == ["base", "b", "a"]
    assert {source["tensor"] for source in step["sources"]} == {layer}
    assert step["parameters"]["density"] == [0.7, 0.7]
    assert step["parameters"]["weight"] == [1, 0.2]
    assert layer in command("show", recipe, "--tensors").out


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"models": []}, "models and slices"),
        ({"slices": []}, "slices"),
        ({"slices": [{"sources": [{"model": "a"}]}]}, "layer_range"),
        ({"slices": [{"sources": [{"model": "a", "layer_range": [3, 3]}]}]}, "[3,3]"),
        ({"slices": [{"sources": [{"model": "a", "layer_range": [3, 6]}]}]}, "has 5 layers"),
        ({"slices": [{"source": []}]}, '"sources"'),
        (
            {
                "slices": [
                    {
                        "sources": [
                            {"model": "a", "layer_range": [0, 2]},
                            {"model": "b", "layer_range": [0, 3]},
                        ]
                    }
                ]
            },
            "equally many",
        ),
        ({"parameters": {"weight": [1, [2]]}}, "gradient"),
        ({"parameters": {"weight": []}}, "empty"),
        ({"parameters": {"weight": [1, "x"]}}, "weight"),
        ({"parameters": {"weight": [{"filter": "q", "vlaue": 1}]}}, '"value"'),
        ({"parameters": {"weight": [{"filter": "re:(", "value": 1}]}}, "regular expression"),
        ({"parameters": {"weight": [{"filter": "q", "value": 1}, 2]}}, "{value: 2}"),
    ],
)
def test_what_cannot_be_is_refused_by_name(refused, here, change, says):
    whole = [{"sources": [{"model": "a", "layer_range": [0, 5]}]}]
    request = {"merge_method": "linear", "slices": whole} | change
    (here / "mix.yml").write_text(json.dumps(request))
    assert says in refused("run", "mix.yml", "out")
    assert not (here / "out").exists()
