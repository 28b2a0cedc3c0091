"""Which base is found when none is given, and what is said when none can be?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import checkpoints
from mergecore import RecipeError
from mergecore.models.lineage import common_base, named_base


def card(folder: Path, text: str) -> None:
    (folder / "README.md").write_text(f"---\n{text}\n---\n# A model\n")


@pytest.fixture
def model(tmp_path) -> Path:
    (tmp_path / "base").mkdir()
    folder = tmp_path / "model"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    "text", ["base_model: ../base", "base_model:\n- ../base", "license: mit\nbase_model: '../base'"]
)
def test_a_card_names_it_by_a_path_from_the_model(model, text):
    card(model, text)
    assert named_base(model) == (str(model.parent / "base"), "README.md", True)


def test_an_answer_is_told_as_the_user_speaks(model, monkeypatch):
    card(model, "base_model: ../base")
    monkeypatch.chdir(model.parent)
    assert named_base(Path("model"), "model").reference == "base"


def test_an_absolute_path_and_a_hub_id(model):
    card(model, f"base_model: {model.parent / 'base'}")
    assert named_base(model).reference == str(model.parent / "base")
    card(model, "base_model: some-org/some-model")
    assert named_base(model).reference == "some-org/some-model"


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("adapter_config.json", "base_model_name_or_path"),
        ("config.json", "base_model"),
        ("config.json", "_name_or_path"),
    ],
)
def test_configs_name_it_too(model, file, key):
    (model / file).write_text(json.dumps({key: "../base"}))
    assert named_base(model) == (str(model.parent / "base"), file, True)


@pytest.mark.parametrize("name", [".", "../model", "/nowhere/at/all", "an-org/uncached", "", None])
def test_name_or_path_counts_only_if_it_is_another_model_that_is_there(model, name):
    (model / "config.json").write_text(json.dumps({"_name_or_path": name}))
    assert named_base(model) is None


def test_the_card_is_asked_first(model):
    card(model, "base_model: org/from-card")
    (model / "config.json").write_text(json.dumps({"base_model": "org/from-config"}))
    assert named_base(model).reference == "org/from-card"


@pytest.mark.parametrize(
    "readme",
    [
        "no front matter\nbase_model: ../base",
        "---\nbase_model: [../base, ../other]\n---\n",
        "---\nbase_model: {a: b}\n---\n",
        "---\n: [broken\n---\n",
        "---\nnever closed: 1\n",
        "---\n- a list\n---\n",
        "",
    ],
)
def test_a_card_that_names_no_single_base_says_nothing(model, readme):
    (model / "README.md").write_text(readme)
    (model / "config.json").write_text("{broken")
    assert named_base(model) is None


def test_two_models_that_differ_are_quoted(tmp_path):
    for name, base in (("a", "org/x"), ("b", "org/y")):
        (tmp_path / name).mkdir()
        card(tmp_path / name, f"base_model: {base}")
    with pytest.raises(RecipeError) as error:
        common_base({"a": tmp_path / "a", "b": tmp_path / "b"}, "ties")
    for part in ("a names org/x (README.md)", "b names org/y", "--base"):
        assert part in str(error.value)


def test_one_that_is_silent_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    card(tmp_path / "a", "base_model: org/x")
    (tmp_path / "b").mkdir()
    with pytest.raises(RecipeError, match="b names none"):
        common_base({"a": tmp_path / "a", "b": tmp_path / "b"}, "ties")


def test_a_base_that_is_gone_is_named(model):
    card(model, "base_model: ../gone")
    with pytest.raises(RecipeError, match=r"model names \.\./gone \(README.md; it is not there\)"):
        common_base({"model": model}, "ties")


def test_the_same_base_by_different_names_is_one(tmp_path):
    (tmp_path / "base").mkdir()
    answers = ("../base", str(tmp_path / "base"), "../link")
    (tmp_path / "link").symlink_to(tmp_path / "base")
    for i, answer in enumerate(answers):
        (tmp_path / str(i)).mkdir()
        card(tmp_path / str(i), f"base_model: {answer}")
    found = common_base({str(i): tmp_path / str(i) for i in range(3)}, "ties")
    assert Path(found.reference).resolve() == tmp_path / "base"


def test_a_merge_finds_its_base_and_says_so(command, family, tmp_path):
    answer = command("merge", "a", "b", "--method", "dare-ties")
    assert answer.status == 0
    assert "note: the base is base" in answer.out
    given = command("merge", "a", "b", "--method", "dare-ties", "--base", "base", "--out", "given")
    assert given.status == 0
    found, told = (checkpoints.load(tmp_path / name) for name in ("a-b-dare-ties", "given"))
    assert all((found[name].tobytes() == told[name].tobytes()) for name in found)


def test_no_base_is_looked_for_where_none_is_needed(command, family, tmp_path):
    for method in ("linear", "slerp"):
        answer = command("merge", "a", "b", "--method", method, "--json")
        assert json.loads(answer.out)["base"] is None


def test_a_merge_of_merges_knows_its_base(command, family):
    for method in ("ties", "task-arithmetic"):
        assert command("merge", "a", "b", "--method", method).status == 0
    answer = command("merge", "a-b-ties", "a-b-task-arithmetic", "--method", "ties", "--out", "x")
    assert answer.status == 0, answer.err
