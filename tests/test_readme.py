"""Does every example in the README work, as it stands there?"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def block(language: str) -> str:
    """The README's only code block in that language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder where the README's shell block was run, line by line."""
    folder = tmp_path_factory.mktemp("readme")
    bin_folder = Path(sys.executable).parent
    (folder / "models").mkdir()  # the demo wants it empty, or absent
    script = block("sh").replace(
        "cd models", f"cd models && cat > recipe.yml <<'END'\n{block('yaml')}END\ncd .", 1
    )
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return folder / "models"


def test_the_commands_leave_what_the_readme_says(place):
    for out in ("reverse-sort-dare-ties", "three", "between", "rl-expo-0.5", "merged"):
        assert (place / out / "model.safetensors").is_file(), out
        assert (place / out / "mergecore.json").is_file(), out


def test_the_python_example_runs(place, monkeypatch):
    subprocess.run(["rm", "-r", "merged"], cwd=place, check=True)
    monkeypatch.chdir(place)
    exec(compile(block("python"), "README.md", "exec"), {})


@pytest.mark.parametrize("target", ["demo", "test", "lint", "bench", "wheel", "sdist", "audit"])
def test_make_knows_the_targets(target):
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
