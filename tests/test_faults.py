"""What is left when a merge is killed, the disk is full, an input fails? All of it, or nothing."""

from __future__ import annotations

import contextlib
import errno
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


OLD = {f"out/{name}": b"old" for name in ("model.safetensors", "config.json")}


def small_command(small: Path, out: Path, *more: str, case: str = "linear") -> list[str]:
    return [*arguments(case, small, out), "--shard-size", "600kB", *more]


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
@pytest.mark.parametrize(
    ("case", "over"), [("linear", False), ("linear", True), ("documents", False)]
)
def test_a_kill_at_each_operation_of_the_disk_is_survived(disk, small, case, over, power):
    out = disk.place / "out"
    command = small_command(small, out, *["--overwrite"] * over, case=case)

    def begin():
        disk.clear()
        for name, data in OLD.items() if over else []:
            disk.add(name, data)

    begin()
    expected, operations = made_on(disk, command)
    assert len(operations) > 40
    names = {operation for operation, *_ in operations}
    assert names >= {"create", "write", "mkdir", "rename", "unlink", "fsync", "setattr"}
    step = max(1, -(-len(operations) // 20) * 100 // KILLS)
    for number in range(power * step // 2, len(operations), step):
        begin()
        process = started(command)

        def kill(process=process):
            process.kill()
            return errno.EIO

        disk.hook = Counted(faulty_disk.CHANGES, number, kill)
        killed_at = ended(process)
        assert killed_at.status == -signal.SIGKILL, (number, killed_at)
        disk.hook = lambda *_: 0
        if not power:
            disk.cut_the_power()
        stands = files_at(disk, "out") or files_at(disk, f"out.partial/{REPLACED}")
        assert stands in (expected, OLD if over else {}), operations[number]
        again = ran(command)
        if again.status:
            again.said("exists already", status=2)
            assert not over
        assert disk.root.files() == expected, operations[number]


# --- A full disk


@pytest.mark.parametrize("over", [False, True], ids=["new", "overwrite"])
def test_a_disk_that_fills_up_at_any_byte_is_one_line_and_loses_nothing(disk, small, over):
    """From one operation on the disk takes no more: of the journal, a shard, a side file, ..."""
    out = disk.place / "out"
    command = small_command(small, out, *["--overwrite"] * over)

    def begin():
        disk.clear()
        for name, data in OLD.items() if over else []:
            disk.add(name, data)

    begin()
    expected, operations = made_on(disk, command)
    operations = [entry for entry in operations if entry[0] in faulty_disk.GROWS]
    full_at = {path.removeprefix("out.partial/") for _, path, _ in operations[over::2]}
    for number in range(over, len(operations), 2):
        begin()
        disk.hook = Counted(faulty_disk.GROWS, number, lambda: errno.ENOSPC)
        said = ran(command)
        status = 1 if number else 2  # nothing was written, not even a folder
        said.said(str(out), "no space left on the disk", status=status)
        assert ("the same command again" in said.err) or ("choose another --out" in said.err)
        assert files_at(disk, "out") == (OLD if over else {})
        disk.hook = lambda *_: 0
        again = ran(command)
        assert again.status == 0, (operations[number], again)
        assert disk.root.files() == expected, operations[number]
    wanted = {JOURNAL, "mergecore.json", "model.safetensors.index.json"}
    assert full_at >= wanted
    assert len({name for name in full_at if name.endswith(".safetensors")}) > 1


def test_a_file_that_may_not_grow_is_one_line_and_loses_nothing(small, tmp_path):
    """RLIMIT_FSIZE from the start, at 20 sizes: of the journal up to the largest shard."""
    import resource

    kept, out = tmp_path / "kept" / "out", tmp_path / "out"
    assert ran(small_command(small, kept)).status == 0
    expected = content(kept)
    largest = max(map(len, expected.values()))
    stopped = 0
    for step in range(20):
        limit = largest * step // 19
        process = started(
            small_command(small, out),
            preexec_fn=lambda n=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (n, n)),
        )
        said = ended(process)
        if said.status:
            stopped += 1
            said.said(str(out), "file too large", "ulimit -f")
            assert not out.exists()
            assert ran(small_command(small, out)).status == 0
        assert content(out) == expected
        assert is_tidy(out)
        shutil.rmtree(out)
    assert 10 < stopped < 20


@pytest.fixture
def small_disk(tmp_path):
    """24 MB: a merge of 10 MB begins on it, as long as nobody else writes there."""
    place = tmp_path / "small-disk"
    place.mkdir()
    if faulty_disk.mount("tmpfs", place, "size=24m") != 0:
        pytest.skip("a small disk cannot be mounted here; it takes root")
    yield place
    faulty_disk.unmount(place)


def test_a_disk_that_others_fill_is_one_line_and_loses_nothing(small_disk, models, undisturbed):
    """A real one: the merge finds room, and then somebody else takes it."""
    out, ballast = small_disk / "out", small_disk / "ballast"
    old = undisturbed("linear")[0]
    moments = random.Random(20)
    stopped = []
    for _ in range(20):
        process = started(arguments("linear", models, out))
        wait_for(process, partial(out).exists)
        time.sleep(moments.uniform(0, undisturbed("linear")[2] / 2))
        process.send_signal(signal.SIGSTOP)
        with ballast.open("wb") as file, contextlib.suppress(OSError):
            while True:
                os.write(file.fileno(), bytes(4096))
        process.send_signal(signal.SIGCONT)
        said = ended(process)
        ballast.unlink()
        if said.status:
            stopped.append(said.said(str(out), "no space left on the disk", status=said.status))
            assert not out.exists()
            assert ran(arguments("linear", models, out)).status == 0
        assert content(out) == old
        assert is_tidy(out)
        shutil.rmtree(out)
    assert stopped
    (small_disk / "ballast").write_bytes(bytes(10 << 20))
    ran(arguments("linear", models, out)).said("not enough space", str(small_disk), status=2)
    assert not partial(out).exists()


# --- Inputs that change or fail while they are read


def paused(command, out, seconds, **options):
    """A merge that has begun to write, and stands still."""
    process = started(command, **options)
    assert wait_for(process, lambda: list(partial(out).rglob("*.safetensors")))
    time.sleep(seconds)
    process.send_signal(signal.SIGSTOP)
    return process


def resumed(process):
    process.send_signal(signal.SIGCONT)
    return ended(process)


@pytest.fixture
def own(models, tmp_path):
    """Models that a test may spoil."""
    return shutil.copytree(models, tmp_path / "own")


def shortened(file):
    os.truncate(file, 5000)


def written_over(file):
    with file.open("r+b") as opened:
        opened.seek(100_000)
        opened.write(b"\x3f" * 4096)


def emptied(file):
    file.write_bytes(b"")


@pytest.mark.parametrize("change", [shortened, written_over, emptied], ids=lambda f: f.__name__)
def test_an_input_that_changes_while_it_is_read_is_named(
    change, own, models, undisturbed, tmp_path
):
    out, moments = tmp_path / "out", random.Random(change.__name__)
    for name, number in (("a", 1), ("base", 2)):
        file = own / name / f"model-0000{number}-of-00002.safetensors"
        process = paused(arguments("tsv", own, out), out, moments.uniform(0, 0.2))
        change(file)
        resumed(process).said(str(file), "while it was being read")
        assert not out.exists()
        shutil.copy(models / name / file.name, file)  # restored, but at another time
        ran(arguments("tsv", own, out)).said("whose inputs have changed since", status=2)
        assert ran(arguments("tsv", own, out, "--overwrite")).status == 0
        assert weights(out) == weights_of(undisturbed("tsv")[0])
        assert is_tidy(out)
        shutil.rmtree(out)


def weights_of(files):
    return {name: data for name, data in files.items() if name.endswith(".safetensors")}


def weights(out):
    return weights_of(content(out))


def deleted(file):
    file.unlink()


def locked_up(file):
    file.chmod(0)


def exchanged(file):
    other = file.with_name("other")
    other.write_bytes(b"another file altogether")
    other.rename(file)


@pytest.mark.parametrize("change", [deleted, locked_up, exchanged], ids=lambda f: f.__name__)
def test_an_input_that_is_open_is_read_to_its_end(change, own, undisturbed, tmp_path):
    out = tmp_path / "out"
    process = paused(arguments("tsv", own, out), out, 0.05, preexec_fn=powerless)
    for name in ("a", "b", "base"):
        change(own / name / "model-00002-of-00002.safetensors")
    assert resumed(process).status == 0
    assert weights(out) == weights_of(undisturbed("tsv")[0])


def powerless() -> None:
    """Takes the right to pass over permissions from root, in a child before it is run."""
    import ctypes

    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


def a_folder(file):
    file.unlink()
    file.mkdir()


def a_pipe(file):
    file.unlink()
    os.mkfifo(file)


def a_link_to_nowhere(file):
    file.unlink()
    file.symlink_to("nowhere")


INDEX = "model.safetensors.index.json"
SPOILT = [
    (name, spoil)
    for name in ("model-00002-of-00002.safetensors", INDEX, "config.json")
    for spoil in (
        *(shortened, emptied, deleted, locked_up, exchanged),
        *(a_folder, a_pipe, a_link_to_nowhere),
    )
    if (name, spoil) != ("config.json", deleted)  # a model without one is a model
]
WAYS_OUT = {locked_up: "chmod +r", a_pipe: "out of the model's folder"}


@pytest.mark.parametrize(("name", "spoil"), SPOILT)
def test_an_input_that_is_spoilt_is_refused_before_anything_is_written(name, spoil, own, tmp_path):
    out = tmp_path / "new" / "out"
    spoil(own / "a" / name)
    before = sorted(tmp_path.iterdir())
    process = started(arguments("linear", own, out), preexec_fn=powerless)
    way_out = (
        ["chmod +r"] if spoil is locked_up else ["out of the model"] if spoil is a_pipe else []
    )
    ended(process).said(str(own / "a"), name, *way_out, status=2)
    assert sorted(tmp_path.iterdir()) == before


def test_a_read_error_names_the_file_and_costs_nothing(disk, small, tmp_path):
    """EIO from the disk below, in each file of a model, at its first bytes and at its last."""
    out = tmp_path / "out"
    disk.clear()
    disk.hook = lambda *_: 0
    files = {file: file.read_bytes() for file in (small / "a").iterdir()}
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    (inputs / "a").symlink_to(disk.place / "a")
    for name in ("b", "base"):
        (inputs / name).symlink_to(small / name)
    statuses = {}
    for bad in files:
        for last in (False, True):
            disk.clear()
            for file, data in files.items():
                disk.add(f"a/{file.name}", data)
            place = len(files[bad]) - 1 if last else 0

            def refuse(operation, path, begin, end, bad=f"a/{bad.name}", place=place):
                return errno.EIO if (operation, path) == ("read", bad) and place < end else 0

            disk.hook = refuse
            said = ran(small_command(inputs, out))
            statuses[bad.name, last] = said.status
            said.said(bad.name, "input/output error", status=said.status)
            assert not out.exists()
            disk.hook = lambda *_: 0
            assert ran(small_command(inputs, out)).status == 0
            assert mergecore.verify(out) == []
            shutil.rmtree(out)
    assert statuses["model-00001-of-00002.safetensors", False] == 2
    assert statuses["model-00001-of-00002.safetensors", True] in (1, 2)
    assert statuses["tokenizer.json", True] in (1, 2)


# --- An output that may not be where it is to be


def test_permission_that_is_lost_is_one_line_and_costs_nothing(models, undisturbed, tmp_path):
    parent = tmp_path / "parent"
    parent.mkdir(mode=0o555)
    out = parent / "out"
    command = arguments("tsv", models, out)

    def refused(status, *words):
        process = started(command, preexec_fn=powerless)
        ended(process).said(str(parent), "permission denied", *words, status=status)

    refused(2, "choose another --out")
    for lost, mode in ((parent, 0o555), (partial(out), 0o555), (parent, 0), (partial(out), 0)):
        parent.chmod(0o755)
        process = paused(command, out, 0.05, preexec_fn=powerless)
        lost.chmod(mode)
        resumed(process).said(str(out), "permission denied")
        lost.chmod(0o755)
        assert not out.exists()
        again = ran([*command, "--json"])
        assert json.loads(again.out)["resumed_tensors"] > 0, (lost, mode)
        assert content(out) == undisturbed("tsv")[0]
        assert is_tidy(out)
        shutil.rmtree(out)


def test_a_rename_that_fails_puts_the_old_output_back(disk, small):
    out = disk.place / "out"
    disk.clear()
    command = small_command(small, out, "--overwrite")
    expected = made_on(disk, command)[0]
    for failing in ("out", "out.partial"):
        disk.clear()
        for name, data in OLD.items():
            disk.add(name, data)
        disk.hook = lambda operation, path, *_, failing=failing: (
            errno.EIO if (operation, path) == ("rename", failing) else 0
        )
        ran(command).said(str(out), "it is whole in", "out.partial")
        assert disk.at("out").files() == {n.removeprefix("out/"): d for n, d in OLD.items()}
        disk.hook = lambda *_: 0
        assert ran(command).status == 0
        assert disk.root.files() == expected


@pytest.fixture
def elsewhere(tmp_path):
    """A folder of another file system than the tests' own."""
    import tempfile

    for place in ("/dev/shm", "/run", "/tmp", str(Path.home())):
        if os.access(place, os.W_OK) and os.stat(place).st_dev != tmp_path.stat().st_dev:
            with tempfile.TemporaryDirectory(dir=place) as folder:
                yield Path(folder)
            return
    pytest.skip("there is one file system only")


def test_an_output_on_another_file_system(small, elsewhere, tmp_path):
    reference = tmp_path / "out"
    assert ran(small_command(small, reference)).status == 0
    (tmp_path / "link").symlink_to(elsewhere)
    # The parent is there, or a link to there; is missing; OUT is there already.
    for out, more in ((elsewhere / "out", []), (elsewhere / "out", ["--overwrite"]),
                      (elsewhere / "new" / "er" / "out", []), (tmp_path / "link" / "x" / "out", []),
                      (tmp_path / "link" / "x" / "out", ["--overwrite"])):  # fmt: skip
        assert ran(small_command(small, out, *more)).status == 0
        assert content(out) == content(reference)
        assert is_tidy(out)


def test_an_output_that_is_a_link_or_lies_in_a_file_is_refused(small, elsewhere, tmp_path):
    target = elsewhere / "target"
    assert ran(small_command(small, target)).status == 0
    before = content(target)
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "nowhere").symlink_to(elsewhere / "gone")
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "link", tmp_path / "nowhere", tmp_path / "file", tmp_path / "file/out"):
        for more in ([], ["--overwrite"]):
            named = out.parent if out.name == "out" else out
            ran(small_command(small, out, *more)).said(f"{named}: ", status=2)
    assert content(target) == before
    assert (tmp_path / "file").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"link", "nowhere", "file"}
    assert not (elsewhere / "gone").exists()


@pytest.mark.parametrize("case", ["tsv", "documents"])
def test_of_two_runs_into_one_output_the_second_is_refused(case, models, undisturbed, tmp_path):
    out = tmp_path / "out"
    first = paused(arguments(case, models, out), out, 0)
    for more in ([], ["--overwrite"]):
        ran(arguments(case, models, out, *more)).said(str(partial(out)), "another", status=2)
    assert resumed(first).status == 0
    assert content(out) == undisturbed(case)[0]
    assert is_tidy(out)
