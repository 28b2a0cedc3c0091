"""What does a run look like? One page: verdicts, curves, tables, and the worst answers."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mergecore import page
from mergecore.errors import RecipeError
from mergecore.evaluate import rows as files
from mergecore.evaluate import tally
from mergecore.evaluate.judge.verdict import LABELS
from mergecore.study import figures, sections

_WORST = 100
"""Answers of each configuration that the page shows: those of lowest reward."""
_LONGEST = 4000
"""Letters of an answer that the page shows."""
_COLUMNS = {
    "configuration": "configuration",
    "delta_norm": "‖Δ‖",
    "reward": "reward",
    "reward_low": "low",
    "reward_high": "high",
    "degeneration_of_lowest": "degenerate, of the lowest",
    "degeneration": "degenerate, of all",
    "degeneration_low": "low",
    "degeneration_high": "high",
    "repetition": "repetition",
    "code_switching": "code-switching",
    "nonsense": "nonsense",
    "length_capped": "cut off",
    "output_tokens": "tokens",
}


@dataclass(frozen=True)
class Run:
    """A run's table and where its rows lie."""

    folder: Path
    about: dict[str, Any]
    table: list[dict[str, Any]]
    _read: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)

    def rows(self, name: str, stage: str) -> list[dict[str, Any]]:
        """A configuration's rows of a stage, of the prompts of the run; none if it has none."""
        key = (name, stage)
        if key not in self._read:
            self._read[key] = self._rows(name, stage)
        return self._read[key]

    def _rows(self, name: str, stage: str) -> list[dict[str, Any]]:
        every = {entry["name"]: entry for entry in self.about["configurations"]}
        if name not in every:
            raise RecipeError(f"{self.folder}: has no configuration {name!r}")
        entry = every[name]
        place = self.folder / self.about.get("store", ".") / entry.get(stage, "")
        if not place.is_file() or not place.stat().st_size:
            return []
        found = files.read(place)
        if stage == "tasks":  # their rows are of items, not of prompts
            return found
        known = files.by_id(found)
        return [known[i] for i in self.about["prompts"] if i in known]


def load(folder: str | Path) -> Run:
    """Reads what a sweep left.

    Raises:
        RecipeError: It is no finished run.
    """
    from mergecore.evaluate.backends import need

    need("pyarrow", "report")
    import pyarrow.parquet as pq

    place = Path(folder).expanduser()
    try:
        about = json.loads((place / "run.json").read_text("utf-8"))
        table = pq.read_table(place / "results.parquet").to_pylist()
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"{folder}: is no finished run of `mergecore sweep` (run.json, results.parquet)"
        ) from error
    return Run(place, about, table)


def page_of(run: Run) -> str:
    """The whole page. What models have said is text in it, whatever it holds."""
    title = f"{run.about['name']}: {len(run.table)} configurations"
    failed = [f"{row['configuration']} failed: {row['error']}" for row in run.table if row["error"]]
    parts = [page.listed(_verdicts(run), failed), _sortable(run.table)]
    behind = browser([run], _WORST) + _provenance(run) + f"<script>{SORTING}</script>"
    return page.render(title, [STYLE, *parts], figures.of(run), behind)


def as_latex(rows: Sequence[dict[str, Any]]) -> str:
    """The table as a `tabular` of booktabs."""
    columns = _columns(rows)
    heads = [_COLUMNS.get(c, c.removeprefix("task.")) for c in columns]
    cells = [[row[c] for c in columns] for row in rows]
    return sections.as_latex(sections.Table("results", "", heads, cells))


def _verdicts(run: Run) -> list[str]:
    """One line a merge: what sets it apart from the best of its parents."""
    found = []
    entries = {entry["name"]: entry for entry in run.about["configurations"]}
    rewards = {name: run.rows(name, "rewards") for name in entries}
    judged = {name: run.rows(name, "verdicts") for name in entries}
    known = {row["configuration"]: row for row in run.table}
    for name, entry in entries.items():
        parents = [p for p in entry["parents"] if known[p]["reward"] is not None]
        if not parents or known[name]["reward"] is None:
            continue
        best = max(parents, key=lambda parent: float(known[parent]["reward"]))
        apart = tally.compare((rewards[name], judged[name]), (rewards[best], judged[best]))
        gain = apart["reward"] or {}
        low, high = gain.get("interval") or (0.0, 0.0)
        word = "better than" if low > 0 else "worse than" if high < 0 else "no different from"
        line = f"{name}: rewarded {gain['mean']:+.3f} [{low:.3f}, {high:.3f}], {word} {best}"
        flips = apart["degeneration"]
        if flips:
            line += (
                f"; degenerate where {best} is not {flips['first_only']} times, the other way"
                f" {flips['second_only']} (McNemar's p {flips['p']:.2g})"
            )
        found.append(line)
    return found


def _columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Those with a value in some row."""
    extra = [c for c in rows[0] if c.startswith(("grid.", "task.")) and not c.endswith("_n")]
    wanted = ["configuration", *(c for c in extra if c.startswith("grid.")), *list(_COLUMNS)[1:]]
    wanted += [c for c in extra if c.startswith("task.")]
    return [c for c in wanted if any(row.get(c) is not None for row in rows)]


def table_of(rows: Sequence[dict[str, Any]]) -> str:
    """A run's table, of the columns that have something to say."""
    columns = _columns(rows)
    heads = [_COLUMNS.get(c, c.removeprefix("task.").removeprefix("grid.")) for c in columns]
    return page.table(heads, [[sections.text(row.get(c)) for c in columns] for row in rows])


def _sortable(rows: Sequence[dict[str, Any]]) -> str:
    return (
        '<h2>Configurations</h2><p class="note">Click a column to sort by it. <button id="csv">CSV'
        '</button> <button id="latex">LaTeX</button></p><div class="chart sortable" id="results">'
        f"{table_of(rows)}</div><script>const LATEX = {page.data(as_latex(rows))};\n"
        f"{_SAVING}</script>"
    )


def browser(runs: Sequence[Run], worst: int) -> str:
    """The answers of lowest reward, what is wrong with them, and what the parents said.

    Args:
        runs: Whose answers.
        worst: How many of each configuration.
    """
    shown = [answer for run in runs for answer in _answers(run, worst)]
    if not shown:
        return ""
    return (
        '<h2>Answers of lowest reward</h2><p class="note"><select id="which"></select> <select'
        ' id="label"></select> <span id="count"></span></p><div id="answers"></div>'
        f"<script>const ANSWERS = {page.data(shown)};\n{_BROWSING}</script>"
    )


def _answers(run: Run, worst: int) -> Iterator[dict[str, Any]]:
    for entry in run.about["configurations"]:
        name = entry["name"]
        answers = files.by_id(run.rows(name, "answers"))
        rewards = run.rows(name, "rewards")
        verdicts = files.by_id(run.rows(name, "verdicts"))
        of_reward = {row["id"]: float(row["reward"]) for row in rewards}
        beside = {p: files.by_id(run.rows(p, "answers")) for p in entry["parents"]}
        for identity in tally.lowest(rewards, worst) or list(answers)[:worst]:
            answer, verdict = answers.get(identity), verdicts.get(identity, {})
            if answer is None:
                continue
            yield {
                "configuration": name,
                "id": identity,
                "asked": files.instruction(answer)[:_LONGEST],
                "output": str(answer["output"])[:_LONGEST],
                "reward": of_reward.get(identity),
                "labels": [label for label in LABELS if verdict.get(label)],
                "evidence": verdict.get("evidence") or [],
                "parents": [
                    [parent, str(known[identity]["output"])[:_LONGEST]]
                    for parent, known in beside.items()
                    if identity in known
                ],
            }


def _provenance(run: Run) -> str:
    said = {key: run.about[key] for key in ("mergecore", "name", "stages")}
    text = json.dumps(said, indent=2, ensure_ascii=False)
    took = {"merges": "merge", "answers": "answer", "rewards": "reward", "verdicts": "verdict"}
    took |= {"tasks": "task"}
    totals = {
        stage: sum(row.get(f"{column}_seconds") or 0 for row in run.table)
        for stage, column in took.items()
    }
    spent = ", ".join(f"{stage} {seconds:,.0f} s" for stage, seconds in totals.items() if seconds)
    return (
        f'<h2>Provenance</h2><p class="note">Time: {html.escape(spent)}.</p>'
        f"<details><summary>settings</summary><pre>{html.escape(text)}</pre></details>"
    )


STYLE = """<style>
th { cursor: pointer; } th[data-order="1"]::after { content: " ↑"; }
th[data-order="-1"]::after { content: " ↓"; }
.sortable th, .sortable td { font-size: .85rem; white-space: nowrap; }
article { border: 1px solid #e3e6ec; border-radius: .5rem; padding: .6rem 1rem; margin: .8rem 0; }
article pre, details pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
article h3 { font-size: .9rem; margin: .2rem 0; color: #5a6478; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: 1rem; }
mark { background: #ffe08a; } .bad { color: #9a3b00; }
@media print { button, select { display: none; } }
@media (prefers-color-scheme: dark) {
  body { background: #14171d; color: #dfe3ea; } th, td, article { border-color: #333a46; }
  mark { background: #6b5300; color: inherit; } .chart { background: #fff; color: #1d2433; }
}
</style>"""

SORTING = """
const order = table => table.querySelectorAll("th").forEach((head, column) =>
  head.addEventListener("click", () => {
    const order = head.dataset.order === "1" ? -1 : 1;
    table.querySelectorAll("th").forEach(other => delete other.dataset.order);
    head.dataset.order = order;
    const rows = [...table.tBodies[0].rows];
    const value = row => row.cells[column].textContent;
    rows.sort((a, b) => {
      const [x, y] = [value(a), value(b)], [p, q] = [parseFloat(x), parseFloat(y)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return order * (isNaN(p) || isNaN(q) ? x.localeCompare(y) : p - q);
    });
    table.tBodies[0].append(...rows);
  }));
document.querySelectorAll(".sortable table").forEach(order);
"""

_SAVING = """
const results = document.querySelector("#results table");
const save = (name, text) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "text/plain"}));
  link.download = name;
  link.click();
};
document.querySelector("#csv").addEventListener("click", () => save("results.csv",
  [...results.rows].map(row => [...row.cells].map(cell =>
    '"' + cell.textContent.replaceAll('"', '""') + '"').join(",")).join("\\n") + "\\n"));
document.querySelector("#latex").addEventListener("click", () => save("results.tex", LATEX));
"""

_BROWSING = """
const which = document.querySelector("#which"), label = document.querySelector("#label");
const add = (parent, tag, text, kind) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  parent.append(made);
  return made;
};
for (const name of new Set(ANSWERS.map(answer => answer.configuration)))
  add(which, "option", name);
for (const name of ["any", "degenerate", "repetition", "code_switching", "nonsense"])
  add(label, "option", name);
// Evidence is told in code points, as Python counts them.
const marked = (parent, output, evidence) => {
  const letters = [...output], spans = evidence.filter(e => Number.isInteger(e.start))
    .sort((a, b) => a.start - b.start);
  let at = 0;
  for (const {start, end, label} of spans) {
    if (start < at || end <= start) continue;
    parent.append(letters.slice(at, start).join(""));
    add(parent, "mark", letters.slice(start, end).join("")).title = label;
    at = end;
  }
  parent.append(letters.slice(at).join(""));
};
const show = () => {
  const place = document.querySelector("#answers");
  const found = ANSWERS.filter(answer => answer.configuration === which.value
    && (label.value === "any" || (label.value === "degenerate" ? answer.labels.length
      : answer.labels.includes(label.value))));
  document.querySelector("#count").textContent = found.length + " answers";
  place.replaceChildren();
  for (const answer of found) {
    const card = add(place, "article");
    const reward = answer.reward === null ? "" : ", reward " + answer.reward.toFixed(3);
    add(card, "h3", answer.id + reward);
    add(card, "p", answer.asked);
    const beside = add(card, "div", undefined, "beside");
    const own = add(beside, "div");
    add(own, "h3", answer.configuration + (answer.labels.length ? ": " + answer.labels.join(", ")
      : ""), answer.labels.length ? "bad" : "");
    marked(add(own, "pre"), answer.output, answer.evidence);
    for (const [parent, output] of answer.parents) {
      const other = add(beside, "div");
      add(other, "h3", parent);
      add(other, "pre", output);
    }
  }
};
which.addEventListener("change", show);
label.addEventListener("change", show);
show();
"""
