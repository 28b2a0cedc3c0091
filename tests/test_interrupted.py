"""What is left when a merge is stopped, and does the same command go on to the same bytes?"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import checkpoints
import mergecore

MODELS = ("base", "a", "b")


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A folder with a base and two fine-tunes that take a moment to merge: 32 MB each."""
    folder = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    base = rng.normal(size=(16, 1 << 19)).astype(np.float32)
    for name in MODELS:
        state = {f"layers.{i}.weight": row + (name != "base") * rng.normal(size=row.shape)
                 for i, row in enumerate(base)}  # fmt: skip
        checkpoints.save(folder / name, {k: v.astype(np.float32) for k, v in state.items()})
    return folder


def start(folder: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "mergecore", "merge", folder / "a", folder / "b", "--base",
               folder / "base", "--method", "dare-ties", "--threads", "1",
               "--shard-size", "4MB", "--out", out, "--quiet"]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def wait_until_it_works(process: subprocess.Popen, partial: Path) -> None:
    while process.poll() is None and not partial.exists():
        time.sleep(0.001)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_killed_again_and_again_it_ends_with_the_same_bytes(large, tmp_path):
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    undisturbed = start(large, tmp_path / "kept" / "out")  # by the same name, which the card tells
    assert undisturbed.communicate()[1] == ""
    moments = random.Random(1)
    for _ in range(4):
        process = start(large, out)
        wait_until_it_works(process, partial)
        time.sleep(moments.uniform(0, 0.15))
        process.kill()
        process.communicate()
        if out.exists():
            break
        assert not (out / "mergecore.json").exists()
    process = start(large, out)
    _, err = process.communicate()
    if process.returncode == 2:  # the last kill came too late
        assert "exists" in err
    assert content(out) == content(tmp_path / "kept" / "out")
    assert not partial.exists()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_is_one_line_and_130(large, tmp_path):
    process = start(large, tmp_path / "out")
    wait_until_it_works(process, tmp_path / "out.partial")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    if process.returncode in (0, -signal.SIGINT):  # it was done before the signal was heard
        assert err == ""
    else:
        assert (process.returncode, err) == (130, "error: interrupted\n")
    # Either there is nothing, or all of it.
    assert not (tmp_path / "out").exists() or mergecore.verify(tmp_path / "out") == []


def test_a_progress_callback_that_raises_stops_the_merge(large, tmp_path):
    def refuse(done: int, total: int) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        mergecore.merge([large / "a", large / "b"], "linear", out=tmp_path / "o", progress=refuse)


def test_progress_is_told_and_other_threads_run(large, tmp_path):
    told, beats, done = [], [], threading.Event()

    def beat() -> None:
        while not done.wait(0.002):
            beats.append(time.perf_counter())

    thread = threading.Thread(target=beat)
    thread.start()
    mergecore.merge(
        [large / "a", large / "b"],
        "ties",
        base=large / "base",
        out=tmp_path / "out",
        progress=lambda *bytes_done: told.append(bytes_done),
    )
    done.set()
    thread.join()
    assert told[-1][0] == told[-1][1] > 0
    assert len(beats) > 5
