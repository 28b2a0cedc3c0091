"""Is a run's page right, harmless whatever models say, and alive in a real browser?"""

from __future__ import annotations

import html
import json
import re

import pytest
import yaml

import browser
from mergecore import pocket
from mergecore.pocket import chat

pytest.importorskip("pyarrow", reason="the extra report is not installed")
pytest.importorskip("vl_convert", reason="the extra report is not installed")
pytest.importorskip("torch", reason="the extra generate is not installed")

HOSTILE = '</script><script>document.title = "owned"</script><img src=x onerror=alert(1)> naïve 🦀'


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A sweep of two values of two keys, one of whose answers attacks the page."""
    from mergecore.study import spec, sweep

    folder = tmp_path_factory.mktemp("report")
    asked = enumerate(a.text for a in chat.instructions(8))
    prompts = [json.dumps({"id": str(i), "instruction": text}) for i, text in asked]
    (folder / "prompts.jsonl").write_text("\n".join(prompts) + "\n")
    recipe = {
        "merge_method": "ties",
        "base_model": "sft",
        "onto": "rl",
        "models": [{"model": "rl", "parameters": {"weight": 1.0, "density": "{density}"}}],
        "parameters": {"lambda": "{alpha}"},
    }
    said = {
        "models": {"sft": str(pocket.path("sft")), "rl": str(pocket.path("rl"))},
        "evaluate": ["sft", "rl"],
        "merges": [
            {"grid": {"alpha": [0.3, 8.0], "density": [0.5, 1.0]}, "recipe": recipe},
            {"name": "<b>gone</b>", "recipe": {"merge_method": "linear", "models": ["rl", "/no"]}},
        ],
        "stages": {
            "generate": {
                "prompts": str(folder / "prompts.jsonl"),
                "max_tokens": 16,
                "backend": "transformers",
            },
            "reward": {"model": str(pocket.path("rm")), "backend": "transformers"},
            "judge": {"who": "rules"},
        },
    }
    file = folder / "sweep.yml"
    file.write_text(yaml.safe_dump(said))
    sweep.run(spec.load(file), folder / "run")
    about = json.loads((folder / "run" / "run.json").read_text())
    merged = next(e for e in about["configurations"] if e["name"] == "alpha=8.0 density=1.0")
    answers = folder / "run" / merged["answers"]
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    rows[0]["output"] = HOSTILE
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    verdicts = folder / "run" / merged["verdicts"]
    judged = [json.loads(line) for line in verdicts.read_text().splitlines()]
    start = len(HOSTILE) - 1
    found = {"label": "nonsense", "start": start, "end": start + 1, "quote": "🦀"}
    row = next(row for row in judged if row["id"] == rows[0]["id"])
    row |= {"nonsense": True, "evidence": [found]}
    verdicts.write_text("".join(json.dumps(row) + "\n" for row in judged))
    return folder / "run"


@pytest.fixture(scope="module")
def page(run):
    from mergecore.study import report

    return report.page_of(report.load(run))


def test_the_page_has_every_part(page):
    for words in (
        "Mean reward against alpha",
        "Degenerate, of all answers against density",
        "Reward against degeneration",
        "Mean reward, alpha × density",
        "Rewards of degenerate answers and of others",
        "Answers of lowest reward",
        "Provenance",
        "McNemar",
        "(?:worse|better) than|no different from",
    ):
        assert re.search(words, page), words


def test_what_models_and_recipes_say_is_text(page):
    assert HOSTILE not in page
    assert "<img src=x" not in page
    assert "<b>gone</b>" not in page
    assert html.escape("<b>gone</b>") in page
    assert "\\u003c/script>\\u003cscript>document.title" in page


def test_the_page_asks_the_network_for_nothing(page):
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)


def test_latex_is_a_table_of_the_same_figures(run):
    from mergecore.study import report

    found = report.load(run)
    text = report.as_latex(found.table)
    assert text.count(r" \\") == len(found.table) + 1
    assert "_" not in text.replace(r"\_", "")
    assert f"{found.table[0]['reward']:.4g}" in text


def test_figures_become_files(run, tmp_path, command):
    place = tmp_path / "figures"
    order = ("report", run, "--out", tmp_path / "page.html", "--figures", place)
    answer = command(*order, "--format", "svg", "--format", "png", "--format", "pdf")
    assert answer.status == 0, answer.err
    kinds = {b"<svg": ".svg", b"\x89PNG": ".png", b"%PDF": ".pdf"}
    for start, ending in kinds.items():
        files = list(place.glob(f"*{ending}"))
        assert len(files) >= 8
        assert all(file.read_bytes().startswith(start) for file in files)


def test_what_is_no_run_is_refused(tmp_path, command):
    answer = command("report", tmp_path)
    assert answer.status == 2
    assert "is no finished run" in answer.err


_ACT = """
  const column = name => [...results.tHead.rows[0].cells].find(c => c.textContent === name);
  const values = name => [...results.tBodies[0].rows]
    .map(row => row.cells[column(name).cellIndex].textContent);
  column("reward").click();
  const up = values("reward");
  column("reward").click();
  const down = values("reward");
  which.value = "alpha=8.0 density=1.0";
  label.value = "nonsense";
  label.dispatchEvent(new Event("change"));
  const cards = document.querySelectorAll("#answers article");
  return {
    up, down, cards: cards.length,
    marks: [...document.querySelectorAll("#answers mark")].map(m => m.textContent),
    beside: cards.length ? cards[0].querySelectorAll("pre").length : 0,
  };
"""


def test_in_a_browser_it_sorts_filters_and_stays_at_home(page, tmp_path):
    told = browser.acted_on(page, tmp_path, _ACT)
    assert told["problems"] == []
    assert told["asked"] == []
    assert "owned" not in told["title"]
    numbers = [float(value) for value in told["up"] if value]
    assert numbers == sorted(numbers)
    assert [float(value) for value in told["down"] if value] == sorted(numbers, reverse=True)
    assert told["cards"] >= 1
    assert "🦀" in told["marks"]
    assert told["beside"] == 3, "the answer, and those of both parents"
    assert told["charts"] >= 8
