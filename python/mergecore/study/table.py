"""What did every configuration come to? One row each, in one Parquet table whose columns say what
they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mergecore.errors import MergecoreError
from mergecore.evaluate import tally
from mergecore.study.grid import text
from mergecore.study.spec import Configuration
from mergecore.study.work import Work

Row = dict[str, Any]

COLUMNS: dict[str, tuple[str, str]] = {
    "configuration": ("string", "its name, unique in the run"),
    "kind": ("string", "`merge`, or `model` for one as it is"),
    "status": ("string", "`done`, or `failed`"),
    "error": ("string", "why it failed"),
    "weights": ("string", "the address of its weights: recipe, inputs and code (hex)"),
    "point": ("string", "the values of the grid, JSON"),
    "recipe": ("string", "the recipe's documents as run, JSON"),
    "method": ("string", "the method of the output"),
    "base": ("string", "its base model"),
    "models": ("list", "the models that were merged"),
    "parents": ("list", "every model that the recipe names"),
    "delta_norm": ("double", "‖output − base‖₂ over all tensors, before rounding"),
    "delta_norm_rounded": ("double", "the same, as written"),
    "parameter_count": ("int64", "parameters of the output"),
    "nan": ("int64", "NaN in the output"),
    "inf": ("int64", "infinities in the output"),
    "merge_seconds": ("double", "wall time of the merge"),
    "merge_bytes_read": ("int64", "bytes"),
    "merge_bytes_written": ("int64", "bytes"),
    "merge_peak_rss": ("int64", "peak resident memory of the process after the merge, bytes"),
    "warnings": ("list", "what the merge and the answers warned of"),
    "responses": ("int64", "answers"),
    "reward": ("double", "mean reward (raw logit)"),
    "reward_low": ("double", "lower end of its 95 % interval (bootstrap)"),
    "reward_high": ("double", "upper end"),
    "degeneration": ("double", "share of all judged answers with any label, 0 to 1"),
    "degeneration_low": ("double", "lower end of its 95 % interval (Wilson)"),
    "degeneration_high": ("double", "upper end"),
    "degeneration_of_lowest": ("double", "the same of the 100 answers of lowest reward"),
    "degeneration_of_lowest_low": ("double", "lower end of its 95 % interval"),
    "degeneration_of_lowest_high": ("double", "upper end"),
    "repetition": ("int64", "answers with this label"),
    "code_switching": ("int64", "answers with this label"),
    "nonsense": ("int64", "answers with this label"),
    "judged": ("int64", "answers with a verdict"),
    "judge_errors": ("int64", "answers of which the judge made nothing; in no rate"),
    "length_capped": ("double", "share of answers that the limit cut off"),
    "output_tokens": ("double", "mean tokens of an answer"),
    "answer_seconds": ("double", "wall time of the answers"),
    "reward_seconds": ("double", "wall time of the rewards"),
    "verdict_seconds": ("double", "wall time of the verdicts"),
    "task_seconds": ("double", "wall time of the tasks"),
}
"""Every column but those of the grid and the tasks: its type, and what it holds.

For each name of a grid there is `grid.NAME` (a number where all are, else text), and for each task
`task.NAME` (the score, 0 to 1), `task.NAME_low`, `task.NAME_high` (95 %) and `task.NAME_n` (items).
"""


def row(work: Work, configuration: Configuration, failed: Mapping[str, str]) -> Row:
    """A configuration's row; what was not measured is None."""
    error = failed.get(configuration.name)
    found: Row = dict.fromkeys(COLUMNS)
    found |= {
        "configuration": configuration.name,
        "kind": "merge" if configuration.recipe else "model",
        "status": "failed" if error else "done",
        "error": error,
        "point": json.dumps(configuration.point, ensure_ascii=False, default=str),
        "recipe": json.dumps(configuration.recipe, ensure_ascii=False, default=str),
        "parents": list(configuration.parents),
    }
    found |= {f"grid.{name}": _cell(value) for name, value in configuration.point.items()}
    try:
        found["weights"] = work.weights(configuration)
        return found | _of_merge(work, configuration) | _of_answers(work, configuration)
    except MergecoreError:
        if error is None:
            raise
        return found  # its models are not to be had; the error says so


def write(work: Work, failed: Mapping[str, str], file: Path) -> Path:
    """Writes the table of a run; a row a configuration, in the order of the sweep."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [row(work, configuration, failed) for configuration in work.sweep.configurations]
    fields = []
    for name in dict.fromkeys(key for entry in rows for key in entry):
        kind, about = COLUMNS.get(name) or _extra(name, [entry.get(name) for entry in rows])
        of = pa.list_(pa.string()) if kind == "list" else pa.type_for_alias(kind)
        fields.append(pa.field(name, of, metadata={"description": about}))
        if kind == "string":
            for entry in rows:
                value = entry.get(name)
                entry[name] = None if value is None else str(value)
    schema = pa.schema(fields, metadata={"mergecore.name": work.sweep.name})
    unfinished = file.with_name(file.name + ".partial")
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), unfinished)
    unfinished.replace(file)
    return file


def _of_merge(work: Work, configuration: Configuration) -> Row:
    note = work.note(work.merge(configuration))
    if not note:
        return {}
    same = ("method", "base", "models", "delta_norm", "delta_norm_rounded", "parameter_count")
    return {
        **{key: note[key] for key in (*same, "nan", "inf", "warnings")},
        "merge_seconds": note["seconds"],
        "merge_bytes_read": note["bytes_read"],
        "merge_bytes_written": note["bytes_written"],
        "merge_peak_rss": note["peak_rss_bytes"],
    }


def _of_answers(work: Work, configuration: Configuration) -> Row:
    files = {
        "answer": work.answers(configuration),
        "reward": work.rewards(configuration),
        "verdict": work.verdicts(configuration),
        "task": work.tasks(configuration),
    }
    found: Row = {f"{stage}_seconds": work.note(f).get("seconds") for stage, f in files.items()}
    for entry in work.note(files["task"]).get("tasks", []):
        low, high = entry.get("interval") or (None, None)
        name = f"task.{entry['task']}"
        found |= {name: entry["score"], f"{name}_low": low, f"{name}_high": high}
        found[f"{name}_n"] = entry["n"]
    if warning := work.note(files["answer"]).get("warning"):
        found["warnings"] = [*work.note(work.merge(configuration)).get("warnings", []), warning]
    answered = work.rows(files["answer"])
    if not answered:
        return found
    figures = tally.tally(answered, work.rows(files["reward"]), work.rows(files["verdict"]))
    for name in ("reward", "degeneration", "degeneration_of_lowest"):
        value = figures[name] or {}
        low, high = value.get("interval") or (None, None)
        mean = value.get("mean", value.get("rate"))
        found |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    if files["verdict"] is not None:
        found |= dict(figures["labels"])
        found |= {"judged": figures["judged"], "judge_errors": figures["errors"]}
    found["responses"] = figures["responses"]
    found["length_capped"] = (figures["length_capped"] or {}).get("rate")
    found["output_tokens"] = figures["output_tokens"]
    return found


def _cell(value: Any) -> Any:
    if isinstance(value, dict) and "name" in value:
        value = value["name"]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else text(value)


def _extra(name: str, values: list[Any]) -> tuple[str, str]:
    """The type of a grid's or a task's column, and what it holds."""
    if name.startswith("grid."):
        numbers = all(value is None or isinstance(value, float) for value in values)
        return ("double" if numbers else "string"), "a value of the grid"
    if name.endswith("_n"):
        return "int64", "items of the task"
    ends = {"_low": "lower end of its 95 % interval", "_high": "upper end"}
    about = next((words for end, words in ends.items() if name.endswith(end)), "score, 0 to 1")
    return "double", about
