"""What are the pocket models asked in the studies, and which texts are their states compared on?"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import abilities

from mergecore.pocket import chat, tasks
from mergecore.pocket.tasks import TASKS, Example

ROWS = 64
PROBES = 5
"""Texts a task whose hidden states are compared, as many as in the study of mergeability."""

Row = dict[str, str]


def write_all(folder: Path) -> None:
    """Every data file of the studies; the same bytes each time."""
    asked = {name: tasks.examples(name, ROWS) for name in TASKS}
    asked_of_adapters = {name: abilities.examples(name, ROWS) for name in abilities.ABILITIES}
    read = {name: tasks.examples(name, PROBES, "train", seed=1) for name in TASKS}
    read_of_adapters = {
        name: abilities.examples(name, PROBES, "train", seed=1) for name in abilities.ABILITIES
    }
    _write(folder / "prompts.jsonl", _instructions())
    for name, found in asked.items():
        _write(folder / "tasks" / f"{name}.jsonl", _questions(name, found))
    for name, found in asked_of_adapters.items():
        _write(folder / "adapters" / f"{name}.jsonl", _questions(name, found))
    _write(folder / "probes.jsonl", _texts(read))
    _write(folder / "adapter_probes.jsonl", _texts(read_of_adapters))


def _instructions() -> list[Row]:
    return [
        {"id": f"chat-{i}", "instruction": a.text, "task": a.task, "reference": a.answer}
        for i, a in enumerate(chat.instructions(ROWS))
    ]


def _questions(name: str, found: list[Example]) -> list[Row]:
    return [
        {"id": f"{name}-{i}", "instruction": e.prompt, "reference": e.answer, "task": name}
        for i, e in enumerate(found)
    ]


def _texts(found: dict[str, list[Example]]) -> list[Row]:
    return [
        {"id": f"{name}-{i}", "text": f"{e.prompt} {e.answer}", "task": name}
        for name, examples in found.items()
        for i, e in enumerate(examples)
    ]


def _write(file: Path, rows: Iterable[Row]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
