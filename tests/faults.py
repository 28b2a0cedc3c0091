"""A merge to be disturbed: its models, its commands, and what must be there afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import checkpoints

KILLS = int(os.environ.get("MERGECORE_KILLS", "100"))
"""How many moments the tests of kills try; more for a long run."""

REPLACED, JOURNAL = ".mergecore-replaced", ".mergecore-journal.jsonl"

DOCUMENTS = """\
name: one
merge_method: ties
base_model: base
models: [{model: a}, {model: b}]
parameters: {density: 0.5}
---
name: two
merge_method: linear
models: [{model: one}, {model: a}]
parameters: {weight: 1}
---
merge_method: slerp
base_model: one
models: [{model: two}]
parameters: {t: 0.25}
"""

COMMANDS = {
    "linear": ["merge", "a", "b", "--method", "linear"],
    "dare-ties": ["merge", "a", "b", "--base", "base", "--method", "dare-ties"],
    "ties": ["merge", "a", "b", "--base", "base", "--method", "ties", "--threads", "2"],
    "tsv": ["merge", "a", "b", "--base", "base", "--method", "tsv"],
    "documents": ["run", "mix.yml"],
}


def models(folder: Path, tensors: int = 16, side: int = 320) -> Path:
    """A base and two fine-tunes whose every byte is some weight's, and a recipe of documents."""
    rng = np.random.default_rng(0)
    for name in ("base", "a", "b"):
        state = {
            f"model.layers.{i}.mlp.up_proj.weight": rng.normal(size=(side, side)).astype("f4")
            for i in range(tensors)
        }
        checkpoints.save(folder / name, state, shards=2)
        (folder / name / "tokenizer.json").write_text('{"vocab": "' + "a b c " * 5000 + '"}')
    (folder / "mix.yml").write_text(DOCUMENTS)
    return folder


@dataclass
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str

    def said(self, *words: str, status: int = 1) -> str:
        """The one line that it ended with, in which these words must be."""
        assert self.status == status, self
        assert self.err.startswith("error: "), self
        assert self.err.count("\n") == 1, self
        for word in words:
            assert word in self.err, (word, self)
        return self.err


def arguments(case: str, folder: Path, out: Path, *more: str) -> list[str]:
    """The command of a case, with the models in a folder and everything else as told."""
    here = {name: str(folder / name) for name in ("base", "a", "b", "mix.yml")}
    *given, last = (here.get(word, word) for word in COMMANDS[case])
    place = [last, str(out)] if case == "documents" else [last, "--out", str(out)]
    threads = [] if "--threads" in given else ["--threads", "1"]
    return [*given, *place, *threads, "--shard-size", "2MB", "--quiet", *more]


def started(arguments: list[str], **options: object) -> subprocess.Popen[str]:
    """The command line, in a process of its own."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "mergecore", *arguments]
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, **options)  # type: ignore[call-overload,no-any-return]


def ended(process: subprocess.Popen[str]) -> Done:
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        killed(process)
        raise
    return Done(process.returncode, out, err)


def ran(arguments: list[str], **options: object) -> Done:
    return ended(started(arguments, **options))


def killed(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, but for what an unfinished tidying has left in it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not name.parts[0].startswith(".mergecore"):
            found[str(name)] = path.read_bytes()
    return found


def is_tidy(out: Path) -> bool:
    """Whether nothing is left of the making of an output."""
    names = [path.name for path in out.iterdir()]
    beside = out.with_name(out.name + ".partial")
    return not beside.exists() and not any(name.startswith(".mergecore") for name in names)


def wait_for(process: subprocess.Popen[str], what: Callable[[], object]) -> bool:
    """Waits until something is so; False if the process ended before."""
    while process.poll() is None:
        if what():
            return True
        time.sleep(0.001)
    return False
