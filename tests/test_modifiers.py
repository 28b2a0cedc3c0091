"""What does one say of modifiers, on the command line and in Python, and who is told of them?"""

from __future__ import annotations

import inspect
import json
import re
import shlex
from pathlib import Path

import click
import numpy as np
import pytest

import checkpoints
import mergecore
from mergecore import RecipeError, docstrings, registry
from mergecore.cli import key_value

RNG = np.random.default_rng(3)
BASE, A, B = (RNG.normal(size=(9, 6)).astype(np.float32) for _ in range(3))
MERGE = ("merge", "a", "b", "--method", "task-arithmetic")
DOCS = (Path(__file__).parent.parent / "docs/spectral.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("boost", "boost"),
        ("match-norm", "match_norm"),
        (" boost ", "boost"),
        ("boost:beta=0.2", {"boost": {"beta": 0.2}}),
        ("boost:beta=0.2,rank-tol=storage", {"boost": {"beta": 0.2, "rank_tol": "storage"}}),
        ("boost: beta = 1 , matrices=all", {"boost": {"beta": 1, "matrices": "all"}}),
        ("boost:matrices=none", {"boost": {"matrices": "none"}}),
        (
            "match-norm:to=dare-ties,parameters.density=0.5,parameters.normalize=true",
            {"match_norm": {"to": "dare-ties", "parameters": {"density": 0.5, "normalize": True}}},
        ),
        (
            "match_norm:to=ties,parameters.weight=[0.7, 0.3],scope=model",
            {"match_norm": {"to": "ties", "parameters": {"weight": [0.7, 0.3]}, "scope": "model"}},
        ),
        (
            'match_norm:parameters={density: 0.5, scope: "model"},to=ties',
            {"match_norm": {"parameters": {"density": 0.5, "scope": "model"}, "to": "ties"}},
        ),
        ("m:a='x,y',b=1:2=3", {"m": {"a": "x,y", "b": "1:2=3"}}),
    ],
)
def test_the_command_line_says_what_a_recipe_says(text, means):
    assert key_value.modifier(text) == means


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "''"),
        ("beta=0.2", "boost:beta=0.2"),
        (":beta=0.2", "boost:beta=0.2"),
        ("boost;beta=0.2", "boost:beta=0.2"),
        ("boost:", "'boost:': a KEY=VALUE is empty; write it like boost:KEY=VALUE"),
        ("boost:beta", "'beta' is not KEY=VALUE"),
        ("boost:beta:0.2", "'beta:0.2' is not KEY=VALUE"),
        ("boost:beta=", "'beta=' is not KEY=VALUE"),
        ("boost:=0.2", "'=0.2' is not KEY=VALUE"),
        ("boost:beta=0.2,", "a KEY=VALUE is empty"),
        ("boost:beta=0.2,,rank_tol=1", "a KEY=VALUE is empty"),
        ("match_norm:parameters..density=1", "'parameters..density=1' is not KEY=VALUE"),
        ("boost:beta=0.1,beta=0.2", "beta is given twice"),
        ("boost:rank-tol=0.1,rank_tol=0.2", "rank_tol is given twice"),
        ("match_norm:parameters=1,parameters.density=1", "parameters.density is given twice"),
        ("boost:beta=[1", "no YAML"),
        ("boost:beta='1", "no YAML"),
        ("boost:beta=2020-99-99", "no YAML"),
    ],
)
def test_what_is_malformed_is_refused_by_name(refused, family, text, says):
    with pytest.raises(click.BadParameter) as error:
        key_value.modifier(text)
    assert says in error.value.message
    message = refused(*MERGE, "--modifier", text)
    assert "--modifier" in message
    assert says in message


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--modifier", "bost"], 'did you mean "boost"'),
        (["--modifier", "boost:bta=0.1"], 'did you mean "beta"'),
        (["--modifier", "boost:beta=2"], "beta"),
        (["--modifier", "boost:rank_tol=disk"], "rank_tol"),
        (["--modifier", "boost", "--modifier", "boost:beta=0.1"], "boost"),
        (["--modifier", "match-norm"], "to"),
        (["--modifier", "match-norm:to=linear"], "linear"),
        (["--modifier", "match-norm:to=ties,parameters.desity=0.1"], "density"),
        (["--method", "linear", "--modifier", "boost"], "base"),
        (["--method", "boost"], "--modifier boost"),
        (["--modifier", "boost:matrices=none"], "boost"),
    ],
)
def test_what_the_engine_does_not_know_is_refused(refused, family, tmp_path, arguments, says):
    assert says in refused(*MERGE, *arguments, "--out", "out")
    assert not (tmp_path / "out").exists()


def test_their_order_is_the_command_line_s(command, family):
    two = (
        "--modifier",
        "boost:beta=0.3",
        "--modifier",
        "match-norm:to=ties,parameters.density=0.5",
    )
    for order, names in (
        (two, ["boost", "match_norm"]),
        ((*two[2:], *two[:2]), ["match_norm", "boost"]),
    ):
        plan = json.loads(command(*MERGE, *order, "--dry-run", "--json").out)
        assert [modifier["name"] for modifier in plan["modifiers"]] == names
        assert [next(iter(modifier)) for modifier in plan["recipe"]["modifiers"]] == names
        told = {modifier["name"]: modifier["parameters"] for modifier in plan["modifiers"]}
        assert told["boost"]["beta"] == 0.3
        assert told["match_norm"]["to"] == "ties"
        assert told["match_norm"]["parameters"]["density"] in (0.5, [0.5, 0.5])
    assert json.loads(command(*MERGE, "--dry-run", "--json").out)["modifiers"] == []


def test_summaries_name_them_beside_the_method(command, family, tmp_path):
    (tmp_path / "mix.yml").write_text(
        "merge_method: ties\nbase_model: base\nmodels: [{model: a}, {model: b}]\n"
        "modifiers: [boost, {match-norm: {to: task_arithmetic, scope: model}}]\n"
    )
    for answer in (
        command("show", "mix.yml"),
        command("run", "mix.yml", "--dry-run"),
        command("run", "mix.yml", "out"),
    ):
        (line,) = (line for line in answer.out.splitlines() if line.startswith("method "))
        assert "ties + boost (beta 0.2, " in line
        assert " + match_norm (scope model, to task_arithmetic)" in line
    plain = command(*MERGE, "--dry-run").out.splitlines()
    assert next(line.split() for line in plain if line.startswith("method ")) == [
        "method",
        "task_arithmetic",
    ]


def test_a_document_that_waits_tells_them_too(command, family, tmp_path):
    (tmp_path / "mix.yml").write_text(
        "name: one\nmerge_method: linear\nmodels: [a, b]\n---\n"
        "merge_method: ties\nbase_model: base\nmodels: [one, b]\n"
        "modifiers: [{match-norm: {to: ties}}]\n"
    )
    said = json.loads(command("show", "mix.yml", "--json").out)["documents"]
    assert [document["modifiers"] for document in said] == [
        [],
        [{"name": "match_norm", "parameters": {"to": "ties"}}],
    ]
    assert "ties + match_norm (to ties)" in command("show", "mix.yml").out


def test_the_output_tells_them_and_makes_itself_again(command, family, tmp_path):
    modified = (*MERGE, "--modifier", "boost:beta=0.3", "--modifier", "match-norm:to=ties")
    report = json.loads(command(*modified, "--out", "out", "--json").out)
    assert [modifier["name"] for modifier in report["modifiers"]] == ["boost", "match_norm"]
    card = (tmp_path / "out/README.md").read_text()
    assert "with the method `task_arithmetic`, then `boost`, `match_norm`, from" in card
    assert "- boost:\n    beta: 0.3\n" in card
    manifest = json.loads((tmp_path / "out/mergecore.json").read_text())
    assert [next(iter(m)) for m in manifest["recipe"]["modifiers"]] == ["boost", "match_norm"]
    assert command("run", "out/mergecore_recipe.yml", "again").status == 0
    first, second = ((tmp_path / out / "model.safetensors") for out in ("out", "again"))
    assert first.read_bytes() == second.read_bytes()
    command(*MERGE, "--out", "plain")
    assert "modifiers" not in (tmp_path / "plain/README.md").read_text()
    assert (tmp_path / "plain/model.safetensors").read_bytes() != first.read_bytes()


def test_extrapolation_takes_them(command, family):
    way = ("extrapolate", "--from", "base", "--to", "a", "--alpha", "0.5")
    plan = json.loads(command(*way, "--modifier", "boost", "--dry-run", "--json").out)
    assert [modifier["name"] for modifier in plan["modifiers"]] == ["boost"]


def test_both_registries_are_listed(command):
    text = command("methods").out
    assert text.index("task-arithmetic") < text.index("boost") < text.index("match-norm")
    assert "--modifier NAME" in text


def test_the_list_of_methods_is_one_of_methods_still(command):
    listed = json.loads(command("methods", "--json").out)
    assert [method["name"] for method in listed] == list(mergecore.methods())
    theirs = {method["name"]: [m["name"] for m in method["modifiers"]] for method in listed}
    assert theirs["ties"] == theirs["nuslerp"] == list(mergecore.modifiers())
    assert theirs["linear"] == theirs["slerp"] == []


@pytest.mark.parametrize("name", ["boost", "match-norm", "Match_Norm"])
def test_one_is_shown_as_a_method_is(command, name):
    text = command("methods", name).out
    known = registry.find_any(name)
    assert isinstance(known, mergecore.Modifier)
    for words in (known.name, known.summary, known.formula, known.paper, known.cost, "goes with"):
        assert words in text
    said = json.loads(command("methods", name, "--json").out)
    assert [p["name"] for p in said["parameters"]] == [p.name for p in known.parameters]


def test_the_kinds_of_parameters_are_told(command):
    boost, match_norm = command("methods", "boost").out, command("methods", "match-norm").out
    assert "1e-09 to 1 or storage" in boost
    assert "linear | all | projections | none" in boost
    assert "must be given" in match_norm
    assert "a method: " in match_norm
    assert "KEY: VALUE" in match_norm
    assert "boost, match_norm" in command("methods", "ties").out
    assert "match_norm" not in command("methods", "linear").out


@pytest.mark.parametrize(("name", "near"), [("bost", "boost"), ("matchnorm", "match_norm")])
def test_a_slip_is_offered_the_nearest_of_both(refused, name, near):
    message = refused("methods", name)
    assert f'did you mean "{near}"' in message
    assert "method or modifier" in message
    assert 'did you mean "ties"' in refused("methods", "tise")


def entry(name: str, kind: str, default: object, **more: object) -> registry.Parameter:
    blank = {"per_model": False, "choices": None, "min": None, "max": None, "doc": f"the {name}"}
    said = {"name": name, "kind": kind, "default": default, **blank, **more}
    return registry._parameter(said)


def test_a_number_may_be_a_word_and_a_mapping_is_empty_by_itself():
    method = registry.methods()["ties"]
    parameters = (
        entry("rank_tol", "number", 1e-6, choices=["storage"], min=1e-9, max=1),
        entry("floors", "number", "storage", choices=["storage", "none"], per_model=True),
        entry("to", "method", None, choices=["ties"]),
        entry("told", "mapping", {}),
    )
    changed = registry.Method(**{**vars(method), "parameters": parameters})
    arguments = docstrings.signature(changed).parameters
    assert arguments["rank_tol"].annotation == 'float | Literal["storage"]'
    assert arguments["rank_tol"].default == 1e-6
    both = 'float | Literal["storage", "none"]'
    assert arguments["floors"].annotation == f"{both} | Sequence[{both}]"
    assert arguments["floors"].default == "storage"
    assert arguments["to"].annotation == "str"
    assert arguments["to"].default is inspect.Parameter.empty
    assert arguments["told"].annotation == "Mapping[str, object] | None"
    assert arguments["told"].default is None
    text = " ".join(docstrings.docstring(changed).split())
    assert 'The rank_tol. A float or "storage".' in text
    assert 'The floors. A float or "storage" or "none". One value, or one a model.' in text
    assert hash(changed) == hash(changed)


def test_functions_of_task_vectors_take_them_and_others_do_not():
    for name, method in mergecore.methods().items():
        has = "modifiers" in inspect.signature(getattr(mergecore, name)).parameters
        assert has == (method.base in ("required", "optional"))
        assert has == ("modifiers:" in getattr(mergecore, name).__doc__)
    with pytest.raises(TypeError, match="modifiers"):
        mergecore.linear([A, B], modifiers=["boost"])


def test_one_may_stand_for_a_list_of_one():
    expected = mergecore.task_arithmetic([A, B], BASE, modifiers=[{"boost": {"beta": 0.2}}])
    for one in ("boost", ["boost"], ("boost",), {"boost": {}}, {"boost": {"beta": 0.2}}):
        np.testing.assert_array_equal(
            mergecore.task_arithmetic([A, B], BASE, modifiers=one), expected
        )
    plain = mergecore.task_arithmetic([A, B], BASE)
    assert (plain != expected).any()
    for none in (None, [], ()):
        merged = mergecore.task_arithmetic([A, B], BASE, modifiers=none)
        np.testing.assert_array_equal(merged, plain)


@pytest.mark.parametrize("odd", [3, [3], ["boost", "boost"], {"boost": 1}, [{}]])
def test_what_is_no_modifier_is_refused_in_python(odd):
    with pytest.raises(RecipeError):
        mergecore.task_arithmetic([A, B], BASE, modifiers=odd)


def test_a_base_must_be_there():
    with pytest.raises(RecipeError, match="base"):
        mergecore.nuslerp([A, B], modifiers="boost")
    mergecore.nuslerp([A, B], BASE, modifiers="boost")


def test_boost_lifts_what_is_small():
    u, s, vt = np.linalg.svd((A - BASE + B - BASE).astype(np.float64) / 2, full_matrices=False)
    for beta in (0.0, 0.2, 0.7, 1.0):
        first = np.flatnonzero(np.cumsum(s) / s.sum() >= beta - 1e-12)[0]
        lifted = (u * np.maximum(s, s[first])) @ vt
        merged = mergecore.task_arithmetic([A, B], BASE, modifiers={"boost": {"beta": beta}})
        np.testing.assert_allclose(merged - BASE, lifted, atol=1e-5)


def test_a_norm_is_matched_after_what_stands_before_it():
    boost = {"boost": {"beta": 0.2}}
    match = {"match_norm": {"to": "task-arithmetic", "parameters": {"lambda": 0.5}}}
    half = np.linalg.norm(mergecore.task_arithmetic([A, B], BASE, lambda_=0.5) - BASE)
    last = mergecore.ties([A, B], BASE, modifiers=[boost, match]) - BASE
    first = mergecore.ties([A, B], BASE, modifiers=[match, boost]) - BASE
    assert np.linalg.norm(last) == pytest.approx(half, rel=1e-5)
    assert np.linalg.norm(first) > 1.01 * half


def test_python_merges_checkpoints_with_them(family, tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    told = {"modifiers": {"boost": {"rank_tol": "storage"}}, "base": tmp_path / "base"}
    report = mergecore.merge(paths, "ties", out=tmp_path / "out", **told)
    assert [m["name"] for m in report.modifiers] == ["boost"]
    assert report.modifiers[0]["parameters"]["rank_tol"] == "storage"
    plain = mergecore.merge(paths, "ties", out=tmp_path / "plain", base=told["base"])
    assert plain.modifiers == []
    boosted, other = (checkpoints.load(tmp_path / name) for name in ("out", "plain"))
    changed = {n for n in other if boosted[n].tobytes() != other[n].tobytes()}
    assert changed == {f"model.layers.{i}.mlp.up_proj.weight" for i in (0, 1)}
    request = {"merge_method": "ties", "base_model": str(told["base"]), "modifiers": ["boost"]}
    request["models"] = [{"model": str(path)} for path in paths]
    assert mergecore.run(request, tmp_path / "run").modifiers[0]["name"] == "boost"
    rl = mergecore.extrapolate(
        told["base"], paths[0], alpha=0.5, out=tmp_path / "rl", modifiers="boost"
    )
    assert rl.modifiers[0]["name"] == "boost"


@pytest.mark.parametrize("recipe", re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL))
def test_the_recipes_of_the_documentation_run(command, family, tmp_path, recipe):
    (tmp_path / "mix.yml").write_text(recipe)
    answer = command("run", "mix.yml", "out")
    assert answer.status == 0, answer.err


def test_the_commands_of_the_documentation_run(command, family):
    (block,) = re.findall(r"```sh\n(.*?)```", DOCS, re.DOTALL)
    for line in block.splitlines():
        answer = command(*shlex.split(line, comments=True)[1:])
        assert answer.status == 0, (line, answer.err)
