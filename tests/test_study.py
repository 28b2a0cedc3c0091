"""Does a study run what its paper did, on whatever family, and say what is missing before?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

import browser
from mergecore import pocket
from mergecore.errors import RecipeError
from mergecore.pocket import chat, tasks
from mergecore.study import running, spec, study

PAPER = {  # what the papers say that they ran
    ("systematic", "subsets"): 4 * 76 * 7,
    ("systematic", "models"): 4 * 13,
    ("degeneration", "extrapolation"): 6 * 5,
    ("degeneration", "density"): 3 * (1 + 2 * 4),
    ("degeneration", "interpolation"): 5 * 6,
    ("degeneration", "methods"): 5 * 2 * 4 * 6,
    ("collapse", "pairs"): 8 + 28 * 5,
}


def parts(name, family):
    asked = study.load(name, family)
    for part in asked.parts:
        yield part, running.ready(asked, part)


@pytest.mark.parametrize("family", ["paper", "pocket"])
@pytest.mark.parametrize("name", study.names())
def test_every_study_can_be_read_on_every_family(name, family):
    for part, found in parts(name, family):
        configurations = spec.parse(found.sweep, part).configurations
        assert configurations
        if family == "paper" and (name, part) in PAPER:
            assert len(configurations) == PAPER[name, part]
        assert "$" not in json.dumps(found.sweep), "a value that was not put in"


def test_the_papers_models_are_hub_ids_and_one_subset_serves_all_methods():
    asked = study.load("systematic")
    found = spec.parse(study.part(asked, "subsets").sweep, "subsets").configurations
    by_method = {}
    for one in found:
        members = tuple(entry["name"] for entry in one.point["subset"])
        family = one.point["family"]["name"]
        by_method.setdefault(one.point["method"], set()).add((family, members))
    assert len(by_method) == 7
    assert len({frozenset(groups) for groups in by_method.values()}) == 1
    assert all("/" in model for one in found for model in one.parents)


def test_values_are_expanded_placed_and_looked_up(tmp_path):
    file = tmp_path / "mine.yml"
    content = {
        "title": "mine",
        "values": {
            "names": ["a", "b"],
            "models": {
                "each": ["a", "b"],
                "as": {"name": "{each}", "model": "./{each}+./x/{each}"},
            },
            "of": {"base": "org/base"},
        },
        "parts": {
            "one": {
                "for": {"who": "$models"},
                "merges": [
                    {"name": "{who} {k}", "grid": {"k": [1, 2]}, "recipe": {
                        "merge_method": "linear", "models": ["{who.model}", "$of.base"],
                        "parameters": {"weight": "{k}"}}},
                ],
            }
        },
    }  # fmt: skip
    file.write_text(yaml.safe_dump(content))
    asked = study.load(str(file), root="/models")
    assert asked.values["models"][1] == {"name": "b", "model": "/models/b+/models/x/b"}
    assert asked.written["models"][1]["model"] == "./b+./x/b"
    found = spec.parse(study.part(asked, "one").sweep, "one").configurations
    assert [one.name for one in found] == ["a 1", "a 2", "b 1", "b 2"]
    assert found[3].parents == ("/models/b+/models/x/b", "org/base")


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (("show", "degenration"), 'did you mean "degeneration"'),
        (("show", "collapse", "--family", "poket"), 'did you mean "pocket"'),
        (("run", "collapse", "--part", "eigth"), 'did you mean "eight"'),
    ],
)
def test_a_name_that_is_not_known_is_refused_with_the_nearest(refused, order, words):
    pytest.importorskip("scipy", reason="the extra report is not installed")
    pytest.importorskip("pyarrow", reason="the extra report is not installed")
    assert words in refused("study", *order)


def test_a_family_that_is_not_there_says_how_it_is_made(refused, monkeypatch, tmp_path):
    for package in ("pyarrow", "scipy", "altair"):
        pytest.importorskip(package, reason="the extra report is not installed")
    monkeypatch.setenv("MERGECORE_POCKET", str(tmp_path / "gone"))
    said = refused("study", "run", "systematic", "--family", "pocket", "--out", "run")
    assert f"{tmp_path / 'gone'}: the models of pocket are not here; python examples/" in said
    assert not (tmp_path / "run").exists()


def test_a_family_that_gives_what_no_study_asks_for_is_refused(tmp_path):
    file = tmp_path / "family.yml"
    file.write_text(yaml.safe_dump({"degeneration": {"pair": []}}))
    with pytest.raises(RecipeError, match='did you mean "pairs"'):
        study.load("degeneration", str(file))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"families": 3}, "families: is 3, and is to be a list"),
        ({"families": ["x"]}, "number 1: is 'x', and is to be a mapping"),
        ({"families": [{"base": "b"}]}, "number 1: has no name"),
        (
            {"families": [{"name": "f", "base": "b", "experts": [{"name": "a", "task": "t"}]}]},
            "families: f: experts: a: has no model",
        ),
        ({"probe": None}, "probe: is None, and is to be a text"),
        ({"paired": "x"}, "paired: is 'x', and is to be a mapping"),
        ({"groups": "many"}, "groups: is 'many', and is to be a whole number"),
    ],
)
def test_a_family_says_its_models_as_the_paper_s_are_said(tmp_path, refused, said, words):
    file = tmp_path / "family.yml"
    file.write_text(yaml.safe_dump({"collapse": said}))
    assert words in refused("study", "check", "collapse", "--family", file)


def test_list_and_show_say_what_there_is(command):
    told = json.loads(command("study", "list", "--json").out)
    assert [one["name"] for one in told["studies"]] == ["collapse", "degeneration", "systematic"]
    assert told["families"] == ["paper", "pocket"]
    shown = json.loads(command("study", "show", "systematic", "--json").out)
    assert {p["name"]: p["configurations"] for p in shown["parts"]}["subsets"] == 2128
    assert "figure 4" in command("study", "show", "degeneration", "--family", "pocket").out


def family(folder):
    """The shipped models in the roles of the study of degeneration."""
    data = folder / "data"
    data.mkdir()
    rows = [{"id": str(i), "instruction": a.text} for i, a in enumerate(chat.instructions(6))]
    (data / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("add", "reverse"):
        rows = [
            {"id": str(i), "instruction": e.prompt, "reference": e.answer}
            for i, e in enumerate(tasks.examples(name, 6))
        ]
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    at = {name: str(pocket.path(name)) for name in ("base", "sft", "rl", "rm", "add", "reverse")}
    plain = {"backend": "transformers", "batch_size": 8}
    pair = {"name": "pair", "sft": at["sft"], "rl": at["rl"]}
    mix = {"name": "mix", "kind": "same base", "base": at["base"]}
    mix |= {"first": at["sft"], "second": at["rl"]}
    said = {
        "pairs": [pair],
        "sizes": [pair],
        "mixes": [mix],
        "crossed": [mix],
        "experts": {**{k: at[k] for k in ("base",)}, "chat": at["sft"], "math": at["add"],
                    "code": at["reverse"]},
        "mathematics": "exact:add",
        "coding": "exact:reverse",
        "generate": {"prompts": "./data/prompts.jsonl", "max_tokens": 12, **plain},
        "reward": {"model": at["rm"], **plain},
        "judge": {"who": "rules"},
        "tasks": {"names": ["exact:add", "exact:reverse"], "data": {"exact": "./data"},
                  "max_tokens": 12, "batch_size": 8, "chat_template": "none"},
    }  # fmt: skip
    file = folder / "family.yml"
    file.write_text(yaml.safe_dump({"degeneration": said}))
    return file


_SORTED = """
  const tables = [...document.querySelectorAll(".sortable table")];
  const table = tables.find(t => [...t.tHead.rows[0].cells].some(c => c.textContent === "reward"));
  const column = [...table.tHead.rows[0].cells].find(c => c.textContent === "reward");
  column.click();
  const values = [...table.tBodies[0].rows]
    .map(row => parseFloat(row.cells[column.cellIndex].textContent)).filter(v => !isNaN(v));
  return {tables: tables.length, values};
"""


@pytest.fixture(scope="module")
def needed():
    for package in ("pyarrow", "torch", "scipy", "altair", "vl_convert"):
        pytest.importorskip(package, reason="the extras report and generate are not installed")


@pytest.mark.usefixtures("needed")
def test_a_study_runs_goes_on_and_ends_with_its_page(tmp_path, command):
    from mergecore.study import findings, results

    file = family(tmp_path)
    order = ("study", "run", "degeneration", "--family", file, "--out", "run")
    first = command(*order, "--part", "extrapolation", "--part", "configs", "--json")
    assert first.status == 0, first.err
    assert json.loads(first.out)["configurations"] == 5 + 8
    again = command(*order, "--part", "extrapolation", "--part", "interpolation")
    assert again.status == 0, again.err
    assert "extrapolation: 0 of 5 configurations to do" in again.err
    found = results.load(tmp_path / "run")
    assert list(found.parts) == ["extrapolation", "interpolation", "configs"]
    titles = [section.title for section in findings.of(found)]
    assert any("figure 4, left" in title for title in titles)
    assert any("figure 5" in title for title in titles)
    assert any("each parent's config" in title for title in titles)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Between the parents?" in page
    assert str(tmp_path) not in json.dumps(found.about["values"]["generate"])
    written = findings.write(found, tmp_path / "files", ("svg",))
    assert (tmp_path / "files" / "figure-5.csv").read_text().startswith("pair,λ,reward")
    assert len([name for name in written if name.endswith(".svg")]) >= 3
    told = browser.acted_on(page, tmp_path, _SORTED)
    assert told["problems"] == []
    assert told["asked"] == []
    assert told["charts"] >= 3
    assert told["tables"] >= 8
    assert told["values"] == sorted(told["values"])


@pytest.mark.usefixtures("needed")
def test_a_killed_study_goes_on(tmp_path):
    file = family(tmp_path)
    order = [sys.executable, "-m", "mergecore", "study", "run", "degeneration", "--family", file]
    order += ["--part", "extrapolation", "--out", tmp_path / "run", "--json"]
    begun = subprocess.Popen(list(map(str, order)), start_new_session=True)
    notes = tmp_path / "run" / "answers"
    until = time.monotonic() + 120
    while not list(notes.glob("*.note.json")) and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait()
    kept = {p.name: p.stat().st_mtime_ns for p in notes.glob("*.note.json")}
    assert kept
    done = subprocess.run(list(map(str, order)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["failed"] == {}
    now = {p.name: p.stat().st_mtime_ns for p in notes.glob("*.note.json")}
    assert len(now) == 5
    assert kept.items() <= now.items(), "what was there was not made again"


def test_check_says_what_is_missing_and_who_is_no_child(tmp_path, command):
    file = family(tmp_path)
    fine = command("study", "check", "degeneration", "--family", file, "--json")
    assert fine.status == 0, fine
    told = json.loads(fine.out)
    assert told["missing"] == []
    assert any("is a child of the base" in line for line in told["kinship"])
    content = yaml.safe_load(file.read_text())
    content["made_by"] = "make models"
    pair = content["degeneration"]["pairs"][0]
    content["degeneration"]["pairs"] = [{**pair, "rl": "./gone"}]
    content["degeneration"]["sizes"] = [{**pair, "rl": "some/where"}]
    file.write_text(yaml.safe_dump(content))
    bad = command("study", "check", "degeneration", "--family", file)
    assert bad.status == 1
    assert "1 models are not here: make models makes them" in bad.err
    assert "1 models are to be fetched: some/where" in bad.err


@pytest.mark.usefixtures("needed")
def test_a_study_s_tasks_may_be_the_harness_s(tmp_path, command):
    """One smoke run of lm-evaluation-harness, as the systematic study has it."""
    pytest.importorskip("lm_eval", reason="the extra tasks is not installed")
    rows = [
        {"q": e.prompt, "choices": [e.answer, " ".join(reversed("a" + e.answer.replace(" ", "")))],
         "gold": 0}
        for e in tasks.examples("reverse", 6)
    ]  # fmt: skip
    (tmp_path / "rows.json").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "reversal.yaml").write_text(
        "task: reversal\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path}/rows.json}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{q}}'\n"
        "doc_to_choice: '{{choices}}'\ndoc_to_target: '{{gold}}'\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    experts = [{"name": n, "model": str(pocket.path(n))} for n in ("reverse", "sort")]
    one = {"name": "tiny", "base": str(pocket.path("base")), "experts": experts, "distinct": []}
    asked = {"names": ["reversal"], "include_path": str(tmp_path), "limit": 4}
    said = {"families": [one], "count": 1, "tasks": asked}
    (tmp_path / "family.yml").write_text(yaml.safe_dump({"systematic": said}))
    order = ("study", "run", "systematic", "--family", "family.yml", "--part", "models")
    answer = command(*order, "--out", "run", "--json")
    assert answer.status == 0, answer.err
    import pyarrow.parquet as pq

    found = pq.read_table(tmp_path / "run" / "models" / "results.parquet").to_pylist()
    by = {row["configuration"]: row for row in found}
    assert by["tiny reverse"]["task.reversal"] == 1.0
    assert by["tiny sort"]["task.reversal"] is not None
    assert by["tiny base"]["task.reversal_n"] == 4


def own_study(folder, **values):
    """A study and a family of one's own: two models as they are, and their hidden states."""
    rows = [
        {"id": str(i), "instruction": e.prompt, "reference": e.answer}
        for i, e in enumerate(tasks.examples("reverse", 6))
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(text)
    (folder / "probes.jsonl").write_text(json.dumps({"id": "0", "text": "reverse: a b ="}) + "\n")
    asked = {"names": ["exact"], "data": {"exact": "./rows.jsonl"}, "max_tokens": 12, "limit": 4}
    asked |= {"chat_template": "none", "batch_size": 8}
    content = {
        "title": "mine",
        "values": {
            "models": [{"name": n, "model": str(pocket.path(n))} for n in ("reverse", "sort")],
            "tasks": asked,
            **values,
        },
        "parts": {
            "one": {
                "measure": {"mergeability": {"models": "$models", "probe": "./probes.jsonl"}},
                "merges": [{"name": "{m}", "grid": {"m": "$models"}, "model": "{m.model}"}],
                "stages": {"tasks": "$tasks"},
            },
            "two": {
                "merges": [{"name": "again {m}", "grid": {"m": "$models"}, "model": "{m.model}"}],
                "stages": {"tasks": "$tasks"},
            },
        },
    }
    (folder / "mine.yml").write_text(yaml.safe_dump(content))
    (folder / "family.yml").write_text(yaml.safe_dump({"mine": {"tasks": asked}}))
    return ("study", "run", "mine.yml", "--family", "family.yml", "--out", "run")


@pytest.mark.usefixtures("needed")
def test_a_study_of_ones_own_and_what_fails_in_it_is_not_the_end(tmp_path, command, refused):
    order = own_study(tmp_path)
    # The measure's probe file is the study's own, not under the family's folder as values are.
    (tmp_path / "probes.jsonl").unlink()
    answer = command(*order, "--json", "--part", "two", "--part", "one", "--part", "two")
    assert answer.status == 1
    told = json.loads(answer.out)
    assert list(told["failed"]) == ["one: measures"]
    assert told["configurations"] == 4, "each part once, in the study's order"
    page = (tmp_path / "run" / "report.html").read_text()
    assert "again sort" in page
    other = [{"name": "add", "model": str(pocket.path("add"))}]
    own_study(tmp_path, models=other)
    assert "is a run of mine on other models" in refused(*order)


def test_places_limits_and_groups_of_a_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own_study(tmp_path)
    asked = study.load("mine.yml", "family.yml")
    assert asked.values["tasks"]["data"]["exact"] == str(tmp_path / "rows.jsonl")
    sweep = study.part(asked, "two").sweep
    assert study.limited(sweep, 500)["stages"]["tasks"]["limit"] == 4
    assert study.limited(sweep, 2)["stages"]["tasks"]["limit"] == 2
    said = {
        "merges": [{"name": "a", "model": "org/a", "tasks": ["glue"]}],
        "stages": {"tasks": {"names": ["glue", "gsm8k"]}},
    }
    assert spec.parse(said, "here").configurations[0].tasks[0] == "sst2"
    (tmp_path / "family.yml").write_text("jobs: two\nmine: {}\n")
    with pytest.raises(RecipeError, match="jobs is 'two'"):
        study.load("mine.yml", "family.yml")
