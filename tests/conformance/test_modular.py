"""Are models of several parts merged part by part, and is their config true? Needs no mergekit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from families import write_family

import checkpoints
import mergecore
from mergecore import recipe as mergecore_recipe
from mergecore.errors import ModelError
from mergecore.model_config import corrected_config

FOLDER = Path(__file__).with_name("recipes") / "modular"
RECIPES = sorted([*FOLDER.glob("*.yml"), *FOLDER.with_name("vision").glob("*.yml")])


@pytest.fixture(scope="module")
def modular(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("modular")
    write_family(folder, "modular", 5)
    return folder


@pytest.fixture(scope="module")
def vision(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vision")
    write_family(folder, "vision", 6)
    return folder


@pytest.fixture
def here(request, modular, vision, monkeypatch, tmp_path) -> Path:
    """The current folder has the family in it that the recipe is for."""
    recipe = getattr(request.node, "callspec", None)
    recipe = recipe.params.get("recipe") if recipe else None
    family = vision if recipe and recipe.parent.name == "vision" else modular
    for model in ("base", "a", "b", "far"):
        (tmp_path / model).symlink_to(family / model)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_recipe_as_run_makes_the_same_again(recipe, here):
    mergecore.run(recipe, "out")
    mergecore.run("out/mergecore_recipe.yml", "again")
    one, other = checkpoints.load(here / "out"), checkpoints.load(here / "again")
    assert one.keys() == other.keys()
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)
    assert config_of(here / "out") == config_of(here / "again")
    assert mergecore.verify("out") == []


def test_models_in_every_module_are_models(here):
    whole = {"merge_method": "linear", "models": ["a", "b"]}
    mergecore.run(whole, "whole")
    models = {"models": whole["models"]}
    parts = dict.fromkeys(("encoder", "decoder", "shared"), models)
    mergecore.run({"merge_method": "linear", "modules": parts}, "parts")
    mergecore.run({"merge_method": "linear", "modules": {"default": models}}, "one")
    for other in ("parts", "one"):
        merged = checkpoints.load(here / other)
        for name, tensor in checkpoints.load(here / "whole").items():
            assert merged[name].tobytes() == tensor.tobytes()
        assert config_of(here / other) == config_of(here / "whole")


def test_the_config_counts_the_layers_of_each_part(here):
    mergecore.run(FOLDER / "modules-slices.yml", "out")
    config = config_of(here / "out")
    assert (config["num_layers"], config["num_decoder_layers"]) == (3, 5)
    mergecore.run(FOLDER / "modules-passthrough.yml", "short")
    config = config_of(here / "short")
    assert (config["num_layers"], config["num_decoder_layers"]) == (3, 3)


@pytest.mark.parametrize("recipe", [FOLDER.with_name("vision") / "vision-slices.yml"])
def test_the_config_of_each_section_is_true_of_its_part(recipe, here):
    mergecore.run(recipe, "out")
    config = config_of(here / "out")
    assert config["text_config"]["num_hidden_layers"] == 5
    assert config["text_config"]["layer_types"] == [
        *["sliding_attention"] * 3,
        *["full_attention", "full_attention"],
    ]
    assert config["vision_config"]["num_hidden_layers"] == 2


def test_references_in_modules_are_found_beside_the_recipe(here, modular, monkeypatch):
    text = yaml.safe_load((FOLDER / "modules-base-joins.yml").read_text())
    (here / "mix.yml").write_text(json.dumps(text))
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    mergecore.run("../mix.yml", "out")
    card = (here / "elsewhere/out/README.md").read_text()
    assert all(f"{modular}/{model}" in card for model in ("a", "b", "base"))
    changed = mergecore_recipe.with_references(text, str.upper)
    assert mergecore_recipe.models_of(changed) == ["A", "B", "BASE"]


def test_show_lists_each_tensor_with_its_module_s_models(command, here):
    answer = command("show", FOLDER / "modules-precedence.yml", "--tensors", "--json")
    assert answer.status == 0, answer.err
    steps = {step["name"]: step for step in json.loads(answer.out)["steps"]}
    models = {name: [source["model"] for source in step["sources"]] for name, step in steps.items()}
    assert models["shared.weight"] == models["lm_head.weight"] == ["base", "far"]
    assert models["encoder.final_layer_norm.weight"] == ["base", "a", "b"]
    assert models["decoder.block.3.layer.2.layer_norm.weight"] == ["base", "b"]
    assert steps["decoder.final_layer_norm.weight"]["parameters"]["lambda"] == 0.5
    assert "varies" in command("show", FOLDER / "modules-precedence.yml").out


@pytest.mark.parametrize(
    ("modules", "says"),
    [
        ({"encoder": {"models": ["a"]}, "shared": {"models": ["a"]}}, "add a module decoder"),
        ({"default": {"models": ["a"]}, "decodr": {"models": ["a"]}}, 'did you mean "decoder"'),
        ({"default": {"models": ["a"], "slice": []}}, 'did you mean "slices"'),
        ({"encoder": "a"}, "must be a mapping"),
        ([{"models": ["a"]}], "mapping of parts"),
    ],
)
def test_what_cannot_be_is_refused_by_name(refused, here, modules, says):
    request = {"merge_method": "linear", "modules": modules}
    (here / "mix.yml").write_text(json.dumps(request))
    assert says in refused("run", "mix.yml", "out")
    assert not (here / "out").exists()


def corrected(config: dict, part: str | None, layers: list[int]) -> dict:
    stack = {"name": "x.layers", "part": part, "origins": [["a", layer] for layer in layers]}
    return corrected_config(config, {"stacks": [stack]})


@pytest.mark.parametrize(
    ("part", "config", "expected"),
    [
        (
            "text_decoder",
            {"text_config": {"num_hidden_layers": 3, "layer_types": ["x", "y", "z"]}},
            {"text_config": {"num_hidden_layers": 2, "layer_types": ["x", "z"]}},
        ),
        ("text_decoder", {"num_hidden_layers": 3}, {"num_hidden_layers": 2}),
        (
            "text_decoder",
            {"num_hidden_layers": 3, "text_config": {"num_hidden_layers": 3}},
            {"num_hidden_layers": 2, "text_config": {"num_hidden_layers": 2}},
        ),
        (
            "vision_tower",
            {"num_hidden_layers": 3, "vision_config": {"num_hidden_layers": 4}},
            {"num_hidden_layers": 3, "vision_config": {"num_hidden_layers": 2}},
        ),
        (
            "vision_tower",
            {"vision_config": {"depth": 3, "fullatt_block_indexes": [1, 2]}},
            {"vision_config": {"depth": 2, "fullatt_block_indexes": [1]}},
        ),
        (
            "encoder",  # Whisper's, where both say the same
            {"encoder_layers": 4, "decoder_layers": 4, "num_hidden_layers": 4},
            {"encoder_layers": 2, "decoder_layers": 4, "num_hidden_layers": 2},
        ),
        ("encoder", {"num_layers": 4}, {"num_layers": 2, "num_decoder_layers": 4}),
        ("decoder", {"num_layers": 4}, {"num_layers": 4, "num_decoder_layers": 2}),
        ("decoder", {"decoder": {"n_layer": 3}}, {"decoder": {"n_layer": 2}}),
    ],
)
def test_each_part_s_layers_are_counted_where_its_config_says_so(part, config, expected):
    assert corrected(config, part, [0, 2]) == expected


@pytest.mark.parametrize(
    ("part", "config", "says"),
    [
        ("vision_tower", {"num_hidden_layers": 3}, "how many layers vision_tower has"),
        (None, {"num_hidden_layers": 3}, "how many layers x.layers has"),
        (
            "vision_tower",
            {"vision_config": {"depth": 3, "deepstack_visual_indexes": [1]}},
            "deepstack_visual_indexes",
        ),
    ],
)
def test_a_config_that_cannot_be_made_true_is_refused(part, config, says):
    with pytest.raises(ModelError, match=says):
        corrected(config, part, [0, 2])
