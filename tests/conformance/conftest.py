"""The models of all families, and what mergekit makes of every recipe, once for all tests."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import CASES, REFUSED, SHARD_SIZES
from families import DTYPES, in_place, write_family

ORACLE = Path(__file__).with_name("mergekit_oracle.py")


@pytest.fixture(scope="session")
def mergekit() -> Path:
    """The Python that has mergekit; 0.1.5 is what these tests were written against."""
    if python := os.environ.get("MERGECORE_MERGEKIT"):
        return Path(python)
    return pytest.skip("MERGECORE_MERGEKIT names no python with mergekit")


@pytest.fixture(scope="session")
def families(tmp_path_factory) -> dict[str, Path]:
    """Folders that hold base, a, b and far, a model that is no fine-tune, for each dtype."""
    root = tmp_path_factory.mktemp("families")
    for seed, family in enumerate(DTYPES):
        write_family(root / family, family, seed)
    return {family: root / family for family in DTYPES}


@pytest.fixture(scope="session")
def merged(mergekit, families, tmp_path_factory) -> Path:
    """A folder with every case's recipe, and mergekit's output beside it."""
    folder = tmp_path_factory.mktemp("recipes")
    for name, (family, content) in (CASES | REFUSED).items():
        in_place(folder / f"{name}.yml", content, families[family])
        if name in SHARD_SIZES:
            options = {"out_shard_size": SHARD_SIZES[name]}
            (folder / f"{name}.options").write_text(json.dumps(options))
    done = subprocess.run(
        [mergekit, ORACLE, folder], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def table() -> Iterator[dict[str, tuple[str, str, int, int, float]]]:
    """What was seen, a row a case; written where MERGECORE_CONFORMANCE_TABLE says, for the docs."""
    rows: dict[str, tuple[str, str, int, int, float]] = {}
    yield rows
    if file := os.environ.get("MERGECORE_CONFORMANCE_TABLE"):
        lines = ["| recipe | method | output | elements | equal | else at most, ulps |"]
        lines += ["|---|---|---|---|---|---|"]
        for name, (method, dtype, count, equal, ulps) in sorted(rows.items()):
            share = f"{100 * equal / count:.2f} %" if equal < count else "all"
            lines.append(f"| {name} | {method} | {dtype} | {count:,} | {share} | {ulps:.2g} |")
        Path(file).write_text("\n".join(lines) + "\n")
