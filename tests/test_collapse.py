"""Does the page of Cao et al.'s study say what was measured, and bear what was not?"""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import yaml

from mergecore.study import findings, results, spec, statistics, study
from mergecore.study import sections as made
from mergecore.study.papers.collapse import (
    answers,
    losses,
    page,
    replacement,
)

pa = pytest.importorskip("pyarrow", reason="the extra report is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="the extra report is not installed")
pytest.importorskip("scipy", reason="the extra report is not installed")
pytest.importorskip("altair", reason="the extra report is not installed")

TASKS = list("abcdefgh")
ADAPTERS = [f"x{i}" for i in range(10)]
FIVE = ("LA", "TA", "TIES", "DARE", "SLERP")


def family(name):
    experts = [{"name": t, "task": f"exact:{t}", "model": f"./{name}/{t}"} for t in TASKS]
    return {"name": name, "base": "./base", "experts": experts}


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """The study on models that are names alone."""
    members = [{"name": a, "task": f"rouge_l:{a}", "model": f"./base+./{a}"} for a in ADAPTERS]
    said = {
        "families": [family("one"), family("two")],
        "paired": family("one"),
        "probe": "./probe",
        "tasks": {"names": [f"exact:{t}" for t in TASKS], "data": {"exact": "./tasks"}},
        "adapters": {"base": "./base", "members": members},
        "adapter_probe": "./probe",
        "adapter_tasks": {"names": [m["task"] for m in members], "data": {"rouge_l": "./tasks"}},
        "groups": 5,
    }
    file = tmp_path_factory.mktemp("family") / "names.yml"
    file.write_text(yaml.safe_dump({"collapse": said}))
    return study.load("collapse", str(file))


def scored(configuration, task, seed=0):
    """A score like an accuracy of 16 items, the same every time."""
    own = configuration.point.get("expert") or configuration.point.get("member")
    if own and own["task"] == task:
        return 0.75 + 0.0625 * (len(own["name"]) + ord(task[-1])) % 0.25
    key = [ord(letter) for letter in f"{configuration.name} {task} {seed}"]
    return int(np.random.default_rng(key).integers(0, 14)) / 16


def written(asked, place, parts, change=lambda row: row, tasks=None):
    """A run's files for some parts; what `change` leaves of each row."""
    told = []
    for name in parts:
        needed = {replacement.NAME: replaced(asked)} if name == "replacement" else None
        part = study.part(asked, name, needed)
        configurations = spec.parse(part.sweep, name).configurations
        rows = []
        for entry in configurations:
            row = dict.fromkeys(("error", "delta_norm", "reward", "degeneration"))
            row |= {
                "configuration": entry.name,
                "kind": "merge" if entry.recipe else "model",
                "point": json.dumps(entry.point),
                "method": entry.recipe[-1]["merge_method"] if entry.recipe else None,
                **{f"grid.{k}": spec.grid.text(v) for k, v in entry.point.items()},
            }
            for task in entry.tasks or part.sweep["stages"]["tasks"]["names"]:
                score = scored(entry, task)
                row |= {f"task.{task}": score, f"task.{task}_n": 16}
                row |= {f"task.{task}_low": score - 0.1, f"task.{task}_high": score + 0.1}
            rows.append(change({**row, "delta_norm": 2.0 if entry.recipe else None}))
        folder = place / name
        folder.mkdir(parents=True)
        keys = dict.fromkeys(key for row in rows for key in row)
        rows = [{key: row.get(key) for key in keys} for row in rows]
        parquet.write_table(pa.Table.from_pylist(rows), folder / "results.parquet")
        entries = [{"name": c.name, "point": c.point, "parents": []} for c in configurations]
        for entry, configuration in zip(entries, configurations, strict=True):
            if tasks and (lines := tasks(name, configuration)):
                entry["tasks"] = f"tasks/{name} {configuration.name}.jsonl"
                (place / "tasks").mkdir(exist_ok=True)
                (place / entry["tasks"]).write_text("".join(json.dumps(x) + "\n" for x in lines))
        about = {"name": name, "stages": {}, "prompts": [], "store": ".."}
        about |= {"mergecore": "0", "configurations": entries}
        (folder / "run.json").write_text(json.dumps(about))
        measured = [measures(wanted, place, i) for i, wanted in enumerate(part.measures)]
        told.append({"name": name, "about": "", "seconds": 1, "measures": measured})
    about = {"name": "collapse", "title": "t", "paper": "p", "url": "u", "about": "a"}
    place.mkdir(exist_ok=True)
    (place / "study.json").write_text(json.dumps({**about, "family": "f", "parts": told}))
    return results.load(place)


def points(count, seed):
    """Hidden states of unit length: models, texts, dimensions."""
    found = np.random.default_rng(seed).normal(size=(count, 6, 5)) + 1.5
    return found / np.linalg.norm(found, axis=2, keepdims=True)


def measures(wanted, place, seed):
    found = {"of": wanted["of"]}
    (place / "measures").mkdir(exist_ok=True)
    rng = np.random.default_rng(seed + 50)
    for kind in ("compare", "mergeability"):
        if kind not in wanted:
            continue
        found["names"] = [entry["name"] for entry in wanted[kind]["models"]]
        count = len(found["names"])
        if kind == "compare":
            square = {key: rng.random((count, count)) for key in results.measures.CONFLICTS}
            content = {key: (value + value.T).tolist() for key, value in square.items()}
        else:
            apart = np.linalg.norm(points(count, seed)[:, None] - points(count, seed), axis=3)
            content = {"models": found["names"], "layer": -1, "dimension": 5, "texts": 6}
            content |= {"distances": apart.mean(2).tolist(), "squares": (apart**2).mean(2).tolist()}
            content["notes"] = []
        file = f"measures/{kind}{seed}{count}.json"
        (place / file).write_text(json.dumps(content))
        found[kind] = file
    return found


def replaced(asked):
    members = asked.values["adapters"]["members"]
    chosen = (range(8), [*range(7), 8], [*range(7), 9])
    return [
        {"name": name, "members": [members[i] for i in places]}
        for name, places in zip(("(a)", "(a1)", "(a2)"), chosen, strict=True)
    ]


@pytest.fixture(scope="module")
def whole(asked, tmp_path_factory):
    return written(asked, tmp_path_factory.mktemp("run"), list(asked.parts), tasks=answered)


def answered(part, configuration):
    """Sixteen items of task a in the part eight; DARE always says the same."""
    if part != "eight":
        return []
    said = ["yes" if i % 3 else "no" for i in range(16)]
    wanted = ["yes" if i % 4 else "no" for i in range(16)]
    if configuration.point["method"] == "DARE":
        said = ["yes"] * 16
    if configuration.point["method"] == "TIES":
        said = ["", "no idea", *said[2:]]
    rows = zip(said, wanted, strict=True)
    return [
        {"id": f"exact:a/{i}", "task": "exact:a", "prediction": one, "reference": other, "score": 0}
        for i, (one, other) in enumerate(rows)
    ]


FOUND = {}


def questions(run):
    """The sections of a run, made once."""
    if run.folder not in FOUND:
        FOUND[run.folder] = page.sections(run)
    return FOUND[run.folder]


def tables(run):
    return {table.name: table for section in questions(run) for table in section.tables}


def records(table):
    return [dict(zip(table.heads, row, strict=True)) for row in table.rows]


def lost(run, name, method, tasks=TASKS):
    """A family's losses, straight from its table."""
    rows = {row["configuration"]: row for row in run.table("eight")}
    own = np.array([rows[f"{name} {t}"][f"task.exact:{t}"] for t in tasks])
    now = np.array([rows[f"{name} {method}"][f"task.exact:{t}"] for t in tasks])
    return (now - own) / own * 100


def test_all_parts_give_all_questions(whole):
    found = questions(whole)
    assert len(found) == 8
    names = [table.name for section in found for table in section.tables]
    assert len(set(names)) == len(names)
    titles = [chart[0] for section in found for chart in section.charts]
    assert len(set(titles)) == len(titles) == 8
    for section in found:
        assert section.words
        for chart in section.charts:
            json.dumps(chart[2], allow_nan=False)
        for table in section.tables:
            for row in table.rows:
                assert len(row) == len(table.heads)
                assert all(cell is None or isinstance(cell, str | float | int) for cell in row)
                assert all(cell == cell for cell in row), "an unknown number is an empty cell"


def test_it_is_a_page_and_files(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "sections", questions)
    assert "Table 4: conflict metrics" in findings.page_of(whole)
    assert len(made.write_tables(questions(whole), tmp_path)) >= 30


def test_table_1_is_the_mean_and_the_populations_deviation(whole):
    for row in records(tables(whole)["table-1"]):
        losses = -lost(whole, row["family"], row["method"])
        assert row["mean loss, %"] == pytest.approx(losses.mean())
        assert row["±"] == pytest.approx(math.sqrt(((losses - losses.mean()) ** 2).mean()))
        assert row["worst"] == pytest.approx(losses.max())
        assert row["constant"] == (row["method"].startswith("DARE") and row["method"] == "DARE")
        assert row["‖Δ‖ / TA's"] == 1


def test_table_2_tells_chance_constant_and_unusable_answers(whole):
    rows = [row for row in records(tables(whole)["table-2-in-full"]) if row["family"] == "one"]
    assert len(rows) == 8 * 8
    of_a = {row["method"]: row for row in rows if row["task"] == "a"}
    assert of_a["DARE"]["constant"] == "yes"
    assert of_a["TIES"]["constant"] == ""
    assert of_a["TIES"]["unusable"] == 2 / 16
    for row in of_a.values():
        assert row["chance"] == 12 / 16
        own, now = row["own model"], row["merged"]
        wanted = ((now - 0.75) / (own - 0.75) - 1) * 100 if own > 0.75 else None
        assert row["loss above chance, %"] == pytest.approx(wanted)
        assert row["low"] == pytest.approx(now - 0.1)
    assert all(row["chance"] is None for row in rows if row["task"] == "b")


def test_table_3_tests_the_losses_and_adjusts_over_families(whole):
    rows = records(tables(whole)["table-3"])
    choice = ("LA", "TA", "TIES", "SLERP")
    values = {name: np.array([lost(whole, name, m) for m in choice]) for name in ("one", "two")}
    wanted = {name: statistics.two_way(table) for name, table in values.items()}
    own = {row["data"]: row for row in rows if row["methods"] == "without DARE"}
    for name, row in own.items():
        assert row["two-way p of method"] == pytest.approx(wanted[name].rows.p)
        assert row["two-way p of task"] == pytest.approx(wanted[name].columns.p)
        assert row["Friedman p of method"] == pytest.approx(statistics.friedman(values[name]).p)
        assert row["Kruskal p of task"] == pytest.approx(statistics.kruskal(values[name].T).p)
    holm = statistics.holm([wanted[name].columns.p for name in own])
    table = tables(whole)["table-3"]
    place = list(table.heads).index("two-way p of task") + 1
    found = [row[place] for row in table.rows if row[1] == "without DARE"]
    assert found == pytest.approx(holm)
    assert [row["data"] for row in rows[-3:]] == ["(a)", "(b)", "(c)"]
    assert records(tables(whole)["table-3-groups"])[0]["groups"] == 5


def test_table_4_correlates_over_pairs(whole):
    rows = {row["configuration"]: row for row in whole.table("pairs")}
    measured = next(m for m in whole.measured("eight") if m.of == "one")
    mean, cosine = np.zeros((8, 8)), measured.conflicts["cosine"]
    for i, one in enumerate(TASKS):
        for j, other in list(enumerate(TASKS))[i + 1 :]:
            for task in (one, other):
                own = rows[f"one {task}"][f"task.exact:{task}"]
                now = rows[f"{one}+{other} TA"][f"task.exact:{task}"]
                mean[i, j] += (now / own - 1) * 50
                mean[j, i] = mean[i, j]
    upper = np.triu_indices(8, 1)
    found = records(tables(whole)["table-4"])
    assert len(found) == 25
    row = next(r for r in found if (r["metric"], r["method"]) == ("cosine", "TA"))
    assert row["pairs"] == 28
    assert row["Pearson's r"] == pytest.approx(np.corrcoef(cosine[upper], mean[upper])[0, 1])
    assert row["Mantel p"] == pytest.approx(statistics.mantel(cosine, mean).p)
    assert row["paper's p"] == 0.296
    assert [r["Holm"] for r in found] == pytest.approx(statistics.holm([r["p"] for r in found]))


def test_table_5_takes_the_best_the_mean_and_the_worst(whole):
    apart = whole.measured("eight")[1].states.distances
    near = 1 - apart / apart.max()
    score = [7 / sum(near[i, j] for j in range(8) if j != i) for i in range(8)]
    three = np.array([lost(whole, "two", method) for method in ("LA", "TA", "TIES")])
    rows = [row for row in records(tables(whole)["table-5"]) if row["group"] == "two"]
    wanted = {"best": three.max(0), "mean": three.mean(0), "worst": three.min(0)}
    for row in rows[:3]:
        r = np.corrcoef(score, wanted[row["a task's loss"]])[0, 1]
        assert row["Pearson's r"] == pytest.approx(r)
    assert [row["a task's loss"] for row in rows] == ["best", "mean", "worst", "best", "mean"]
    detail = records(tables(whole)["table-mds-two"])
    assert [row["MDS"] for row in detail] == pytest.approx(score)
    groups = records(tables(whole)["table-5-groups"])
    assert [row["group"] for row in groups] == ["(a)", "(b)", "(c)", "(d)", "(e)"]


def test_groups_that_collapse_are_counted(whole):
    rows = {row["configuration"]: row for row in whole.table("adapters")}
    worst = []
    for row in rows.values():
        if row["configuration"].startswith("TIES "):
            names = row["configuration"].removeprefix("TIES ").split("+")
            keys = [(name, f"task.rouge_l:{name}") for name in names]
            worst.append(min(row[key] / rows[name][key] - 1 for name, key in keys))
    found = tables(whole)["groups"]
    ties = next(row for row in found.rows if row[0] == "TIES")
    assert ties[1:4] == [5, sum(w < -0.3 for w in worst), sum(w < -0.3 for w in worst) / 5]
    assert ties[4] == sum(w >= -0.1 for w in worst)


def test_table_6_looks_at_those_that_stay(whole):
    rows = {row["configuration"]: row for row in whole.table("adapters")}
    merged = {row["configuration"]: row for row in whole.table("replacement")}
    for record in records(tables(whole)["table-6"]):
        row = merged[f"{record['group']} {record['method']}"]
        names = [m["name"] for m in json.loads(row["point"])["group"]["members"]]
        keys = {name: f"task.rouge_l:{name}" for name in names}
        loss = {n: (row[key] / rows[n][key] - 1) * 100 for n, key in keys.items()}
        assert record["worst loss, %"] == pytest.approx(min(loss.values()))
        stay = [loss[f"x{i}"] for i in range(7)]
        assert record["mean loss of those that stay"] == pytest.approx(np.mean(stay))
        assert record["worst of the other"] == pytest.approx(loss[names[-1]])


def test_bounds_are_of_the_measured_states(whole):
    row = records(tables(whole)["bounds"])[0]
    squares = whole.measured("eight")[0].states.squares
    assert row["Δ²"] == squares.max()
    assert row["Jung's, as published"] == pytest.approx(5 / 12 * squares.max())
    states = points(8, 0)
    center = ((states - states.mean(0)) ** 2).sum(2).mean()
    assert row["mean to centroid"] == pytest.approx(center)
    assert row["Δ²/4"] <= row["exact radius²"] <= row["(N − 1)/(2N) Δ²"]
    assert [r["models"] for r in records(tables(whole)["bounds"])] == [
        "one", "two", "(a)", "(b)", "(c)",
    ]  # fmt: skip


def spoiled(row):
    """Of family two the own model of c scores nothing, and TIES failed; so did one adapter."""
    name = row["configuration"]
    if name in ("two TIES", "x3", "a+b TA") or name.startswith("TA x0+x1"):
        tasks = [key for key in row if key.startswith("task.")]
        return {**row, **dict.fromkeys(tasks), "error": "no space", "delta_norm": None}
    if name == "two c":
        return {**row, "task.exact:c": 0.0}
    if name == "x4":
        return {**row, "task.rouge_l:x4": 0.0}
    return row


def test_what_failed_or_has_no_loss_is_left_out_and_said(asked, tmp_path):
    run = written(asked, tmp_path / "run", list(asked.parts), spoiled)
    found = questions(run)
    said = " ".join(line for section in found for line in section.cautions)
    assert "two: c have own models that score 0" in said
    assert "two: no result of TIES" in said
    assert "x4's own adapter scores 0" in said
    rows = [row for row in records(tables(run)["table-1"]) if row["family"] == "two"]
    rest = [task for task in TASKS if task != "c"]
    assert [row["method"] for row in rows] == [
        "LA", "TA", "DARE", "SLERP", "TIES, norm of TA", "DARE, norm of TA", "TA, sum",
    ]  # fmt: skip
    for row in rows:
        assert row["tasks"] == 7
        assert row["mean loss, %"] == pytest.approx(-lost(run, "two", row["method"], rest).mean())
    tests = [row for row in records(tables(run)["table-3"]) if row["data"] == "two"]
    assert [row["number"] for row in tests] == [4, 3, 2, 5]
    assert {row["tasks"] for row in tests} == {7}
    assert tests[2]["Friedman p of method"] is None
    pairs = records(tables(run)["table-4"])
    assert {row["pairs"] for row in pairs if row["method"] == "TA"} == {27}
    assert {row["Mantel p"] for row in pairs if row["method"] == "TA"} == {None}


@pytest.mark.parametrize(
    ("parts", "titles"),
    [
        ([], []),
        (["eight"], ["RQ1", "RQ2", "RQ3", "Theorem"]),
        (["pairs"], ["RQ3"]),
        (["adapters"], ["RQ1", "RQ2", "RQ3", "Theorem"]),
    ],
)
def test_parts_that_were_not_run_are_no_sections(asked, tmp_path, parts, titles):
    found = page.sections(written(asked, tmp_path / "run", parts))
    assert [section.title.split()[0].rstrip(":") for section in found] == [*titles, "The"]
    if parts == ["pairs"]:
        assert found[0].cautions == [
            "Nothing was measured of these models: run the part eight, too."
        ]


def test_a_run_in_which_everything_failed(asked, tmp_path):
    def failed(row):
        tasks = [key for key in row if key.startswith("task.")]
        return {**row, **dict.fromkeys(tasks), "error": "no space"}

    run = written(asked, tmp_path / "run", list(asked.parts), failed)
    assert questions(run)
    assert "Table 4" not in json.dumps([t.title for t in tables(run).values() if t.rows])


def test_a_model_without_similar_ones_has_an_endless_score(whole):
    group = losses.families(whole)[0]
    measured = whole.measured("eight")[0]
    square = np.full((8, 8), 1.0)
    square[1:, 1:] = 0.5
    np.fill_diagonal(square, 0)
    far = replace(measured, states=replace(measured.states, distances=square, squares=square**2))
    found = page.difficulty.section([group], {"one": far}, [], None)
    rows = records(next(t for t in found.tables if t.name == "table-mds-one"))
    assert rows[0]["MDS"] == "∞"
    assert all(row["p"] is None for row in records(found.tables[0]))
    json.dumps([chart[2] for chart in found.charts], allow_nan=False)


def test_answers():
    rows = [{"prediction": p, "reference": r} for p, r in (("x", "x"), ("x", ["y", "x"]))]
    found = answers.of(rows)
    assert (found.constant, found.chance, found.unusable) == (False, 1, 0)
    rows = [{"prediction": None, "reference": str(i)} for i in range(4)]
    found = answers.of(rows)
    assert (found.constant, found.chance, found.unusable) == (True, 0.25, 1)
    assert answers.of([]) is None
    assert answers.adjusted(0.5, 0.5, 0.5) is None
    assert answers.adjusted(0.6, 0.9, 0.5) == pytest.approx(-75)


def test_the_published_numbers_computed_again():
    section = page.recomputed.section()
    rows = [row for table in section.tables for row in table.rows if table.name == "published-5"]
    found = {(row[0], row[1]): row[3] for row in rows}
    wanted = {
        ("GLUE", "mean"): 5e-4, ("(a)", "mean"): 0.0010, ("(b)", "mean"): 0.041,
        ("(c)", "mean"): 0.0092, ("GLUE", "worst"): 0.0068, ("(a)", "worst"): 0.0019,
        ("(b)", "worst"): 0.076, ("(c)", "worst"): 0.030, ("GLUE, five methods", "best"): 0.0034,
        ("GLUE, TIES of table 2", "best"): 0.0009,
    }  # fmt: skip
    for key, p in wanted.items():
        assert found[key] == pytest.approx(p, rel=0.05)
    assert "12 of 120" in section.words[-1]
