"""Do the workflows call what is there, and does the wheel's check see what is wrong with one?"""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
CHECK = ROOT / "scripts/check_wheel.py"


def loaded(workflow: Path) -> dict:
    return yaml.load(workflow.read_text("utf-8"), yaml.BaseLoader)  # "on" stays a word


def steps(workflow: Path) -> list[dict]:
    return [step for job in loaded(workflow)["jobs"].values() for step in job["steps"]]


def test_there_are_workflows():
    assert [path.stem for path in WORKFLOWS] == ["audit", "ci", "release"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_what_is_there(workflow):
    called = [line for step in steps(workflow) for line in step.get("run", "").splitlines()]
    targets = [found for line in called for found in re.findall(r"\bmake ([a-z-]+)", line)]
    files = [found for line in called for found in re.findall(r"(?:scripts|\.ci)/[\w.]+", line)]
    assert targets or files
    assert set(targets) <= set(TARGETS)
    assert all((ROOT / file).is_file() for file in files)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_do_little(workflow):
    content = loaded(workflow)
    assert content["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in content["on"]
    for step in steps(workflow):
        # What a stranger can name (a branch, a title) must not become part of a command.
        assert "${{" not in step.get("run", "")
        assert "uses" not in step or re.fullmatch(r"[\w-]+/[\w-]+@[\w./]+", step["uses"])
    asked = {name: job.get("permissions") for name, job in content["jobs"].items()}
    assert {k: v for k, v in asked.items() if v} in ({}, {"publish": {"id-token": "write"}})


def test_the_audit_watches_files_that_are_there():
    for event in ("push", "pull_request"):
        for path in loaded(ROOT / ".github/workflows/audit.yml")["on"][event]["paths"]:
            assert list(ROOT.glob(path)), path


def test_only_what_was_verified_may_stop_a_release():
    job = loaded(ROOT / ".github/workflows/release.yml")["jobs"]["wheel"]
    assert job["continue-on-error"] == "${{ matrix.unverified }}"
    firm = [e["name"] for e in job["strategy"]["matrix"]["include"] if e["unverified"] != "true"]
    assert firm == ["linux-x86_64"]


def test_the_scripts_know_their_toolchain():
    """No workflow builds with a Rust that is older than the crates ask for."""
    asked = re.search(r'rust-version = "1\.(\d+)"', (ROOT / "Cargo.toml").read_text("utf-8"))
    for workflow in WORKFLOWS:
        for minor in re.findall(r'RUST_TOOLCHAIN: "1\.(\d+)"', workflow.read_text("utf-8")):
            assert int(minor) >= int(asked[1])


def wheel(folder: Path, name: str = "m-1-cp310-abi3-linux_x86_64.whl", *, without="", more=""):
    names = [
        "mergecore/py.typed",
        "mergecore/_mergecore.abi3.so",
        "mergecore/pocket/models/base/model.safetensors",
        "m-1.dist-info/entry_points.txt",
        "m-1.dist-info/licenses/LICENSE",
        "m-1.dist-info/licenses/THIRD_PARTY",
        more,
    ]
    with zipfile.ZipFile(folder / name, "w") as archive:
        for entry in names:
            if entry and entry != without:
                size = 15_000_001 if entry.endswith(".gguf") else 1
                archive.writestr(entry, b"\0" * size)
    return folder / name


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": "m-1-cp311-cp311-linux_x86_64.whl"}, "no abi3 wheel"),
        ({"without": "m-1.dist-info/licenses/THIRD_PARTY"}, "holds no *THIRD_PARTY"),
        ({"without": "mergecore/_mergecore.abi3.so"}, "holds no mergecore/_mergecore"),
        ({"more": "mergecore/__pycache__/a.pyc"}, "which nobody needs"),
        ({"more": "tests/test_a.py"}, "which nobody needs"),
        ({"more": "mergecore/large.gguf"}, "15.0 MB, and 15 are allowed"),
    ],
)
def test_a_wheel_that_is_not_as_it_should_be(tmp_path, wrong, said):
    package = wheel(tmp_path, **wrong)
    done = subprocess.run([sys.executable, CHECK, package], capture_output=True, text=True)
    assert done.returncode == 1
    assert said in done.stderr
