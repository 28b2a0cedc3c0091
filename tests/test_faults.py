"""What is left when a merge is killed, the disk is full, an input fails? All of it, or nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

import faults
import faulty_disk
import mergecore
from faults import (
    COMMANDS,
    JOURNAL,
    KILLS,
    REPLACED,
    arguments,
    content,
    ended,
    is_tidy,
    killed,
    ran,
    started,
    wait_for,
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return faults.models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def undisturbed(models, tmp_path_factory):
    """What each command makes, how long it takes, and how long of that it writes."""
    known = {}

    def of(case):
        if case not in known:
            out = tmp_path_factory.mktemp(case) / "out"  # by the same name, which the card tells
            begun = time.monotonic()
            process = started(arguments(case, models, out))
            wait_for(process, partial(out).exists)
            writing = time.monotonic()
            assert ended(process).err == ""
            now = time.monotonic()
            known[case] = content(out), now - begun, now - writing
        return known[case]

    return of


def partial(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


def kill_somewhere(moments, command, out, undisturbed):
    """Begins a command and kills it: at any moment of it, or of the time in which it writes."""
    _, whole, writing = undisturbed
    process = started(command)
    if moments.random() < 0.25:
        time.sleep(moments.uniform(0, 1.1 * whole))
    else:
        wait_for(process, partial(out).exists)
        time.sleep(moments.uniform(0, 1.1 * writing))
    killed(process)


@pytest.mark.parametrize("case", COMMANDS)
def test_kills_at_any_moment_end_in_the_same_bytes(case, models, undisturbed, tmp_path):
    expected, moments = undisturbed(case)[0], random.Random(case)
    command, out = arguments(case, models, tmp_path / "out"), tmp_path / "out"
    left = KILLS * 3 // 4 // len(COMMANDS)
    while left:
        for _ in range(moments.choice([1, 1, 2, 3])):
            kill_somewhere(moments, command, out, undisturbed(case))
            left -= left > 0
            if out.exists():
                assert content(out) == expected
                assert mergecore.verify(out) == []
        again = ran(command)
        if again.status:  # the last kill came too late
            again.said("exists already", status=2)
        assert content(out) == expected
        assert is_tidy(out)
        shutil.rmtree(out)


@pytest.mark.parametrize("case", ["dare-ties", "documents"])
def test_kills_of_an_overwriting_merge_leave_the_old_or_the_new(
    case, models, undisturbed, tmp_path
):
    new, moments = undisturbed(case)[0], random.Random(case)
    old, out = undisturbed("linear")[0], tmp_path / "out"
    command = arguments(case, models, out, "--overwrite")
    for _ in range(KILLS // 4 // 2):
        for name, data in old.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(data)
        kill_somewhere(moments, command, out, undisturbed(case))
        # Between two renames, the old one lies aside, and the same command puts it back.
        stands = out if out.exists() else partial(out) / REPLACED
        assert content(stands) in (old, new)
        again = ran(command)
        assert again.status == 0, again
        assert content(out) == new
        assert is_tidy(out)
        shutil.rmtree(out)


def test_a_kill_costs_no_work_that_was_journalled(models, undisturbed, tmp_path):
    out = tmp_path / "out"
    command, journal = arguments("tsv", models, out), partial(out) / JOURNAL
    for _ in range(5):
        process = started(command)
        wait_for(process, partial(out).exists)
        time.sleep(undisturbed("tsv")[2] / 3)
        # A journal is written every two seconds, in which this merge would be done.
        process.send_signal(signal.SIGSTOP)
        time.sleep(2.1)
        process.send_signal(signal.SIGCONT)
        wait_for(process, lambda: journal.exists() and journal.read_bytes().count(b"\n") > 1)
        killed(process)
        if not out.exists():
            break
        shutil.rmtree(out)  # it was done before it was killed
    done = ran([*command, "--json"])
    assert 0 < json.loads(done.out)["resumed_tensors"] < json.loads(done.out)["tensors"]
    assert content(out) == undisturbed("tsv")[0]


# --- A disk that fails at the very same operation each time


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return faults.models(tmp_path_factory.mktemp("small"), tensors=4, side=256)


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    if sys.platform != "linux":
        pytest.skip("the disk that fails is made with FUSE, of Linux")
    try:
        mounted = faulty_disk.FaultyDisk(tmp_path_factory.mktemp("disk"))
    except OSError as error:
        pytest.skip(f"FUSE cannot be mounted here ({error.strerror}); it takes root")
    yield mounted
    mounted.unmount()


def small_command(small: Path, out: Path, *more: str) -> list[str]:
    return [*arguments("linear", small, out), "--shard-size", "600kB", *more]


class Counted:
    """Counts the operations of a merge, and at the one of a number does what is to be done."""

    def __init__(self, kinds, at=-1, act=lambda: 0):
        self.kinds, self.at, self.act, self.seen = kinds, at, act, []

    def __call__(self, operation, path, begin, end):
        if operation in self.kinds:
            self.seen.append((operation, path, begin))
        return self.act() if operation in self.kinds and len(self.seen) > self.at >= 0 else 0


def made_on(disk, command):
    """The files of a merge that nothing disturbs, and the operations that made them."""
    disk.hook = counted = Counted(faulty_disk.CHANGES)
    assert ran(command).err == ""
    disk.hook = lambda *_: 0
    return disk.root.files(), counted.seen


def files_at(disk, path):
    """What stands there, as if it stood at `out`, but for what is to be tidied up yet."""
    there = disk.at(path)
    files = there.files() if there else {}
    return {f"out/{n}": data for n, data in files.items() if not n.startswith(".mergecore")}


@pytest.mark.parametrize("power", [True, False], ids=["power-on", "power-off"])
@pytest.mark.parametrize("over", [False, True], ids=["new", "overwrite"])
def test_a_kill_at_each_operation_of_the_disk_is_survived(disk, small, over, power):
    out = disk.place / "out"
    command = small_command(small, out, *["--overwrite"] * over)
    old = {f"out/{name}": b"old" for name in ("model.safetensors", "config.json")}

    def begin():
        disk.clear()
        for name, data in old.items() if over else []:
            disk.add(name, data)

    begin()
    expected, operations = made_on(disk, command)
    assert len(operations) > 40
    names = {operation for operation, *_ in operations}
    assert names >= {"create", "write", "mkdir", "rename", "unlink", "fsync", "setattr"}
    step = max(1, len(operations) * 2 // KILLS)
    for number in range(KILLS % step, len(operations), step):
        begin()
        process = started(command)

        def kill(process=process):
            process.kill()
            return 5

        disk.hook = Counted(faulty_disk.CHANGES, number, kill)
        killed_at = ended(process)
        assert killed_at.status == -signal.SIGKILL, (number, killed_at)
        disk.hook = lambda *_: 0
        if not power:
            disk.cut_the_power()
        stands = files_at(disk, "out") or files_at(disk, f"out.partial/{REPLACED}")
        assert stands in (expected, old if over else {}), operations[number]
        again = ran(command)
        if again.status:
            again.said("exists already", status=2)
            assert not over
        assert disk.root.files() == expected, operations[number]
