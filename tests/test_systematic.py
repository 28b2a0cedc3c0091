"""Is what the systematic study's page says what its runs have? Against NumPy, on made-up scores."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import yaml

from mergecore import page
from mergecore.study import results, spec, study, table
from mergecore.study.papers.systematic import (
    gains,
    scale,
    separation,
)
from mergecore.study.papers.systematic import page as paper

pytest.importorskip("pyarrow", reason="the extra report is not installed")
pytest.importorskip("altair", reason="the extra report is not installed")
pytest.importorskip("scipy", reason="the extra report is not installed")

EXPERTS = ("copy", "reverse", "sort", "add", "parity")
TASKS = ("one", "two")
ITEMS = 40
METHODS = ("TA", "Model Stock", "TIES", "TA+SB", "TIES+SB", "TSV-M", "Iso-C")


def family(folder, names=("pocket",)):
    said = {
        "families": [
            {
                "name": name,
                "base": f"./{name}/base",
                "experts": [{"name": e, "model": f"./{name}/{e}"} for e in EXPERTS],
                "distinct": [{"name": e, "model": f"./{name}/{e}"} for e in EXPERTS[:4]],
            }
            for name in names
        ],
        "tasks": {"names": ["exact"]},
        "count": 4,
        "sizes": [2, 3, 5],
        "separated": [2, 3],
        "lambdas": [0.5, 1.0, 1.9],
        "densities": [0.1, 1.0],
        "betas": [0.0, 0.2],
    }
    file = folder / "family.yml"
    file.write_text(yaml.safe_dump({"systematic": said}))
    return study.load("systematic", str(file))


def scored(rng, part, configuration):
    """Hits of each task's items; methods differ, and so do sizes."""
    method = str(configuration.point.get("method"))
    chance = 0.5 + 0.02 * (len(method) % 5) - 0.03 * len(configuration.point.get("subset", []))
    return {task: (rng.random(ITEMS) < chance).astype(float) for task in TASKS}


def row(part, configuration, hits, length):
    """As `table.row` makes it."""
    found = dict.fromkeys(table.COLUMNS)
    found |= {
        "configuration": configuration.name,
        "kind": "merge" if configuration.recipe else "model",
        "status": "done",
        "point": json.dumps(configuration.point),
    }
    found |= {f"grid.{name}": table._cell(value) for name, value in configuration.point.items()}
    if configuration.recipe:
        found |= {"delta_norm": length, "parameter_count": 10_000}
    for task, of in hits.items():
        found |= {f"task.{task}": of.mean(), f"task.{task}_low": 0.0, f"task.{task}_high": 1.0}
        found[f"task.{task}_n"] = len(of)
    return found


class Made:
    """A run that was never run."""

    def __init__(self, folder, names=("pocket",)):
        self.folder, self.rows, self.hits = folder / "run", {}, {}
        (self.folder / "tasks").mkdir(parents=True)
        asked = family(folder, names)
        rng = np.random.default_rng(1)
        for part in asked.parts:
            configurations = spec.parse(study.part(asked, part).sweep, part).configurations
            self.rows[part] = []
            for configuration in configurations:
                hits = scored(rng, part, configuration)
                members = configuration.point.get("subset") or EXPERTS
                plain = configuration.point.get("method") == "TA" or part == "matched"
                length = len(members) * (1.0 if plain else rng.uniform(2, 8))
                self.hits[part, configuration.name] = hits
                self.rows[part].append(row(part, configuration, hits, length))

    def load(self):
        import pyarrow as pa
        import pyarrow.parquet as pq

        parts = [{"name": part, "about": part, "seconds": 1.0} for part in self.rows]
        for part, rows in self.rows.items():
            place = self.folder / part
            place.mkdir(exist_ok=True)
            keys = dict.fromkeys(key for row in rows for key in row)
            pq.write_table(
                pa.Table.from_pylist([{key: row.get(key) for key in keys} for row in rows]),
                place / "results.parquet",
            )
            about = [self._entry(part, row["configuration"]) for row in rows]
            said = {"store": "..", "prompts": [], "stages": {}, "configurations": about}
            (place / "run.json").write_text(json.dumps(said))
        (self.folder / "study.json").write_text(json.dumps({"name": "systematic", "parts": parts}))
        return results.load(self.folder)

    def _entry(self, part, name):
        file = (
            self.folder / "tasks" / f"{part}-{len(list((self.folder / 'tasks').iterdir()))}.jsonl"
        )
        rows = [
            {"id": f"{task}/{i}", "task": task, "score": hit}
            for task, of in self.hits[part, name].items()
            for i, hit in enumerate(of)
        ]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {"name": name, "tasks": str(file.relative_to(self.folder))}

    def score(self, part, name):
        return 100 * np.mean([of.mean() for of in self.hits[part, name].values()])

    def fail(self, part, name):
        for entry in self.rows[part]:
            if entry["configuration"] == name:
                entry |= {"status": "failed", "error": "it fell"}
                for key in [key for key in entry if key.startswith("task.")]:
                    entry[key] = None

    def gains(self, part, method, size, who="pocket"):
        base = self.score("models", f"{who} base")
        return {
            entry["grid.subset"]: self.score(part, entry["configuration"]) - base
            for entry in self.rows[part]
            if entry["grid.method"] == method and entry["grid.family"] == who
            if len(entry["grid.subset"].split("+")) == size
        }


@pytest.fixture
def made(tmp_path, undrawn):
    return Made(tmp_path)


@pytest.fixture
def undrawn(monkeypatch):
    """Figures take most of the time; one test draws them."""
    monkeypatch.setattr(page, "spec", lambda chart: {})


def tables(run):
    return {t.name: t for section in paper.sections(run.load()) for t in section.tables}


def words(run):
    found = paper.sections(run.load())
    return "\n".join(line for section in found for line in (*section.words, *section.cautions))


def lines(found, *keys):
    """The rows of a table by their first cells."""
    return {tuple(row[: len(keys)]): dict(zip(found.heads, row, strict=True)) for row in found.rows}


def test_shares_and_gains_are_those_of_the_scores(made):
    found = tables(made)
    rows = {tuple(row[:3]): row for row in found["table-1-in-full"].rows}
    assert len(rows) == 13 * 3, "seven methods, six of them norm-matched, three sizes"
    for part, end in (("subsets", ""), ("matched", ", norm-matched")):
        for method in METHODS:
            for size in (2, 3, 5) if part == "subsets" or method != "TA" else ():
                gains = np.array(list(made.gains(part, method, size).values()))
                count = 1 if size == 5 else 4
                _, _, _, n, share, low, high, mean, deviation, *ends = rows[
                    "pocket", method + end, size
                ]
                assert n == len(gains) == count
                assert share == pytest.approx(100 * (gains > 0).mean())
                assert low <= share <= high
                assert mean == pytest.approx(gains.mean())
                if count == 1:
                    assert (deviation, ends) == (None, [None, None])
                else:
                    assert deviation == pytest.approx(gains.std(ddof=1))
                    assert ends[0] <= mean <= ends[1]
    compact = {row[0]: row[1:] for row in found["table-1"].rows}
    gains = np.array(list(made.gains("subsets", "TIES", 2).values()))
    assert compact["TIES"][0] == f"{100 * (gains > 0).mean():.0f} / {gains.mean():+.2f}"


def test_the_best_is_that_of_the_subset_and_that_of_all(made):
    alone = {expert: made.score("models", f"pocket {expert}") for expert in EXPERTS}
    base = made.score("models", "pocket base")
    rows = {tuple(row[:2]): row for row in tables(made)["table-2"].rows}
    for method in METHODS:
        for size in (2, 3, 5):
            gains = made.gains("subsets", method, size)
            own = [g + base - max(alone[m] for m in k.split("+")) for k, g in gains.items()]
            every = [g + base - max(alone.values()) for g in gains.values()]
            row = rows[method, size]
            assert (row[3], row[8]) == pytest.approx((np.mean(own), np.mean(every)))
            assert row[7] == pytest.approx(100 * np.mean(np.array(own) > 0))


def test_a_failure_takes_its_subset_from_every_method(made):
    gone = next(
        r for r in made.rows["subsets"] if r["grid.method"] == "Iso-C" and "+" in r["grid.subset"]
    )
    size = len(gone["grid.subset"].split("+"))
    made.fail("subsets", gone["configuration"])
    rows = {tuple(row[:3]): row for row in tables(made)["table-1-in-full"].rows}
    for method in METHODS:
        gains = made.gains("subsets", method, size)
        del gains[gone["grid.subset"]]
        row = rows["pocket", method, size]
        assert row[3] == 3
        assert row[7] == pytest.approx(np.mean(list(gains.values())))
    said = words(made)
    assert "subsets: 1 of 63 merges have no gain" in said
    assert "12 merges are left out of the tables" in said


def test_a_fine_tune_that_failed_leaves_no_best_of_its_subsets(made):
    made.fail("models", "pocket copy")
    rows = {tuple(row[:2]): row for row in tables(made)["table-2"].rows}
    assert rows["TA", 5][3:8] == [None] * 5, "it may be the best of all five"
    assert rows["TA", 5][8] is not None
    assert "not tested alone: copy" in words(made)


def test_missing_parts_are_said_and_nothing_falls(tmp_path, undrawn):
    for number, part in enumerate(["models", *gains.PARTS]):
        (tmp_path / str(number)).mkdir()
        run = Made(tmp_path / str(number))
        del run.rows[part]
        expected = "No base was tested" if part == "models" else f"The part {part} was not run."
        assert expected in words(run)
    (tmp_path / "none").mkdir()
    nothing = Made(tmp_path / "none")
    nothing.rows = {}
    assert [s.title for s in paper.sections(nothing.load())] == ["What is missing"]


def test_everything_failed_and_nothing_falls(made):
    for part, name in list(made.hits):
        made.fail(part, name)
    assert [s.title for s in paper.sections(made.load())] == ["What is missing"]


def test_one_method_that_failed_everywhere_leaves_the_others(made):
    for entry in made.rows["subsets"]:
        if entry["grid.method"] == "TSV-M":
            made.fail("subsets", entry["configuration"])
    rows = {tuple(row[:3]): row for row in tables(made)["table-1-in-full"].rows}
    assert ("pocket", "TSV-M", 2) not in rows
    assert rows["pocket", "TA", 2][3] == 4


def test_several_families_have_tables_of_their_own(tmp_path, undrawn):
    run = Made(tmp_path, ("first", "second"))
    found = tables(run)
    assert {"table-1", "table-3-first", "table-3-second", "table-tasks-second"} <= set(found)
    rows = {tuple(row[:3]): row for row in found["table-1-in-full"].rows}
    gains = [run.gains("subsets", "TIES", 3, who) for who in ("first", "second")]
    every = [gain for of in gains for gain in of.values()]
    assert rows["all families", "TIES", 3][7] == pytest.approx(np.mean(every))
    assert rows["second", "TIES", 3][7] == pytest.approx(np.mean(list(gains[1].values())))


def test_pairs_are_of_the_same_subset(made):
    from scipy import stats

    rows = {tuple(row[:2]): row for row in tables(made)["table-paired"].rows}
    ps = []
    for method in METHODS[1:]:
        pairs = [
            made.gains("subsets", "TA", size)[members] - gain
            for size in (2, 3, 5)
            for members, gain in made.gains("subsets", method, size).items()
        ]
        row = rows["as they are", method]
        better, worse = sum(p > 1e-9 for p in pairs), sum(p < -1e-9 for p in pairs)
        ps.append(stats.binomtest(better, better + worse).pvalue)
        assert row[2:4] == [9, pytest.approx(np.mean(pairs))]
        assert (row[6], row[7]) == (better, worse)
        assert row[8] == pytest.approx(ps[-1])
    least = METHODS[1:][int(np.argmin(ps))]
    assert rows["as they are", least][9] == pytest.approx(min(1, 6 * min(ps)))


def test_lengths_are_compared_subset_by_subset(made):
    said = words(made)
    assert "Norms are matched to 0 of TA's at the worst" in said
    found = tables(made)
    plain = [entry for entry in made.rows["subsets"] if entry["grid.method"] == "TIES"]
    row = next(row for row in found["table-distance"].rows if row[0] == "TIES")
    lengths = [entry["delta_norm"] for entry in plain]
    assert row[2:6] == pytest.approx(
        [np.median(lengths), min(lengths), max(lengths), np.median(lengths) / 100]
    )
    from scipy import stats

    gains = {k: g for size in (2, 3, 5) for k, g in made.gains("subsets", "TIES", size).items()}
    rho = stats.spearmanr(lengths, [gains[entry["grid.subset"]] for entry in plain])
    assert row[6:] == pytest.approx([rho.statistic, rho.pvalue])
    counts = Counter(row[1] for row in found["table-limits"].rows for _ in range(row[2]))
    assert counts == {"as they are": 63, "norm-matched": 54}


def test_lambda_is_chosen_on_other_items_than_those_of_its_gain(made):
    rows = {row[1]: row for row in tables(made)["table-scale"].rows}
    base = made.score("models", "pocket base")
    own = {
        row["grid.lambda"]: made.score("scale", row["configuration"]) - base
        for row in made.rows["scale"]
        if row["grid.method"] == "TIES"
    }
    _, _, usual, best, gain, elsewhere, less = rows["TIES"]
    assert (usual, gain, own[best]) == pytest.approx((own[1.0], max(own.values()), gain))
    assert less == pytest.approx(gain - elsewhere)
    assert less > 0, "these scores are noise"


def test_halves_of_the_items():
    rng = np.random.default_rng(3)
    base = {"t": {str(i): 0.0 for i in range(40)}}
    better = {"t": {str(i): 1.0 for i in range(40)}}
    assert scale.held_out([base, better], base) == 100
    assert scale.held_out([base], base) == 0
    assert scale.held_out([{"t": {"0": 1.0}}], base) is None
    noise = [{"t": {str(i): float(rng.random() < 0.5) for i in range(40)}} for _ in range(30)]
    whole = max(100 * np.mean(list(of["t"].values())) for of in noise)
    assert abs(scale.held_out(noise, base) - 50) < 10 < whole - 50


def test_distinct_subsets_beside_random_ones(made):
    row = next(row for row in tables(made)["table-separation"].rows if row[0] == "TIES")
    of = {"TIES": {}, "TA": {}}
    for entry in made.rows["separation"]:
        if entry["grid.method"] in of:
            size = len(entry["grid.subset"].split("+"))
            score = made.score("separation", entry["configuration"])
            of[entry["grid.method"]].setdefault((entry["grid.drawn"], size), []).append(score)
    apart = {
        method: np.mean([np.mean(s["distinct", n]) - np.mean(s["random", n]) for n in (2, 3)])
        for method, s in of.items()
    }
    assert row[3] == pytest.approx(apart["TIES"])
    assert row[4] < row[3] < row[5]
    assert row[6] == pytest.approx(apart["TIES"] - apart["TA"])
    assert row[9:] == [10, 8], "all pairs and triples of four; four of each size at random"
    assert separation.difference([([1.0], [])]) is None
    alone = separation.difference([([1.0], [0.5])])
    assert (alone.mean, alone.low) == (0.5, None)


def test_every_figure_is_drawn(tmp_path):
    from mergecore.study import sections
    from mergecore.study.figures import write_charts

    made = Made(tmp_path, ("first", "second"))
    found = paper.sections(made.load())
    charts = [chart for section in found for chart in section.charts]
    titles = [title for title, _, _ in charts]
    for number in (3, 4, 6, 7, 8, 11, 12, 13):
        assert any(title.startswith(f"Figure {number}:") for title in titles)
    assert len(set(titles)) == len(titles), "they are names of files"
    files = write_charts(charts, tmp_path / "figures", ("svg",))
    assert len(files) == len(charts)
    assert sections.write_tables(found, tmp_path / "tables")
    assert "<h2>Do merges beat their base?" in sections.as_html(found)


def test_the_study_is_the_paper_s():
    asked = study.load("systematic")
    found = {p: spec.parse(study.part(asked, p).sweep, p).configurations for p in asked.parts}
    assert len(found["subsets"]) == 2128, "76 subsets, 7 methods, 4 bases"
    members = {}
    for configuration in found["subsets"]:
        point = configuration.point
        names = tuple(entry["name"] for entry in point["subset"])
        members.setdefault((point["family"]["name"], point["method"]), []).append(names)
    for (who, _), subsets in members.items():
        assert subsets == members[who, "TA"], "the same for all methods, in the same order"
        assert Counter(map(len, subsets)) == {2: 15, 4: 15, 6: 15, 8: 15, 10: 15, 12: 1}
        assert len(set(subsets)) == 76
    recipes = {c.point["method"]: c.recipe[0] for c in found["subsets"]}
    assert recipes["TA"].keys() == {"merge_method", "base_model", "models"}, "a mean: λ = 1"
    assert recipes["TIES"]["parameters"] == {"density": 0.1}, "the largest tenth is kept"
    assert "parameters" not in recipes["Model Stock"], "not clamped, as in the paper's tool"
    assert recipes["TIES+SB"]["modifiers"] == [{"boost": {"beta": 0.2}}]
    same = {c.point["method"]: c.recipe[0]["modifiers"] for c in found["matched"]}
    norm = {"match_norm": {"to": "task_arithmetic", "scope": "model"}}
    assert same["Iso-C"] == [norm]
    assert same["TA+SB"] == [{"boost": {"beta": 0.2}}, norm], "the norm is matched at the end"
    for configurations in found.values():
        assert all(len(c.name) < 140 for c in configurations)
