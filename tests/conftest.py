"""What every test may ask for: a family of models on disk, and the command line in this process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before the hub's client is imported: no test goes online

import checkpoints


@dataclass
class Answer:
    status: int
    out: str
    err: str


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """Runs `mergecore ARGUMENTS` in the test's own folder."""
    from mergecore.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Answer:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Answer(status, said.out, said.err)

    return run


@pytest.fixture
def refused(command):
    """Runs a command that must be refused: exit status 2 and one line, which is returned."""

    def run(*arguments: object) -> str:
        answer = command(*arguments)
        assert answer.status == 2, answer
        assert answer.err.startswith("error: ")
        assert answer.err.count("\n") == 1
        assert "Traceback" not in answer.err
        return answer.err

    return run


@pytest.fixture
def family(tmp_path: Path) -> list[dict]:
    """`base`, `a` and `b` in the test's folder, a and b naming their base; their tensors."""
    states = checkpoints.family()
    for name, state in zip(("base", "a", "b"), states, strict=True):
        checkpoints.save(tmp_path / name, state)
        if name != "base":
            (tmp_path / name / "README.md").write_text("---\nbase_model: ../base\n---\n")
    return states
