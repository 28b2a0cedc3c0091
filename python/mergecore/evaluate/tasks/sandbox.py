"""How is a model's code run? In a process that can harm nothing, and that ends in time.

`cage` is what it is run in: no network, every disk read-only but a small folder in memory, no other
process in sight, no rights, an empty environment, limits on CPU, memory, files and processes. Where
the kernel does not allow that, nothing is run. Files that anyone may read can be read, and that is
left so: there is no way out for what was read but the answer's own score.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mergecore.errors import RecipeError, RunError
from mergecore.evaluate.tasks import cage


@dataclass(frozen=True)
class Limits:
    """The most that a program may take."""

    seconds: float = 10.0
    """By the clock, all its processes together."""
    cpu_seconds: int = 10
    """Each process."""
    memory: int = 512 << 20
    """Address space of each process, in bytes."""
    disk: int = 32 << 20
    """All its files together, in bytes, and each of them."""
    open_files: int = 64
    processes: int = 16
    """Threads too."""
    output: int = 16 << 10
    """What is kept of what it prints, in bytes."""


@dataclass(frozen=True)
class Ran:
    """How a program ended."""

    finished: bool
    """It came to its last line: an `exit()` on the way there is no success."""
    outcome: str
    """`finished`, `timed out`, or its status and the last line that it printed."""
    output: str


def check() -> None:
    """Refuses a machine on which no program can be kept from harm.

    Raises:
        RecipeError: The kernel does not allow it; the message says what it refused.
    """
    if not sys.platform.startswith("linux"):
        raise RecipeError(
            f"code of models is run on Linux only, where its network can be cut off, and not on"
            f" {sys.platform}; leave tasks that run code out"
        )
    try:
        ran = run("")
    except RunError as error:
        raise RecipeError(str(error)) from error
    if not ran.finished:
        raise RecipeError(f"no program runs in the sandbox: {ran.outcome}")


def run(program: str, limits: Limits | None = None) -> Ran:
    """Runs a Python program, with the standard library alone.

    Args:
        program: Its text.
        limits: The most that it may take.

    Raises:
        RunError: The sandbox could not be built, and nothing was run.
    """
    limits = limits or Limits()
    mark = secrets.token_bytes(16)
    end, proof = os.pipe()
    # Python's own check that the last line was reached; a status of 0 can come from anywhere.
    text = f"{program}\n__import__('os').write({proof}, {mark!r})\n"
    with tempfile.TemporaryDirectory(prefix="mergecore-") as folder, open(end, "rb") as proofs:
        try:
            process = _process(folder, proof, limits)
        finally:
            os.close(proof)
        with _killed_at_the_end(process):
            printed, in_time = _watched(process, text, limits)
        seen = proofs.read(1 + len(mark))
    output = printed.decode("utf-8", errors="replace")
    last = output.strip().rpartition("\n")[2][:200]
    if not seen.startswith(b"+") and in_time:
        raise RunError(
            f"the sandbox for code cannot be built here ({last or 'no reason given'}): it needs"
            " namespaces, which a container's seccomp profile may forbid, and a Python that any"
            " user may run"
        )
    if not in_time:
        return Ran(False, "timed out", output)
    if seen == b"+" + mark and process.returncode == 0:
        return Ran(True, "finished", output)
    return Ran(False, f"status {process.returncode}: {last}".rstrip(": "), output)


def _process(folder: str, proof: int, limits: Limits) -> subprocess.Popen[bytes]:
    # Not the environment's: -S needs nothing of that.
    python = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    order = {
        "python": python,
        "folder": os.path.realpath(folder),
        "emptied": _emptied(),
        "prefix": os.path.realpath(sys.base_prefix),
        "disk": limits.disk,
        "proof": proof,
        "limits": {
            "CPU": limits.cpu_seconds,
            "AS": limits.memory,
            "FSIZE": limits.disk,
            "NOFILE": limits.open_files,
            "NPROC": limits.processes,
        },
    }
    return subprocess.Popen(
        [python, "-I", "-S", "-B", cage.__file__, json.dumps(order)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={},
        pass_fds=(proof,),
        start_new_session=True,
    )


def _emptied() -> list[str]:
    """The user's own folders, and those where sockets lie: a container service's is a way out."""
    homes = [os.environ.get("HOME", "/"), pwd.getpwuid(os.getuid()).pw_dir]
    paths = [*homes, "/run", "/tmp", tempfile.gettempdir()]
    found = {os.path.realpath(path) for path in paths if os.path.isdir(path)} - {"/"}
    return [path for path in sorted(found) if not found & set(map(str, Path(path).parents))]


def _watched(process: subprocess.Popen[bytes], text: str, limits: Limits) -> tuple[bytes, bool]:
    """What it prints, as far as it is kept, and whether it ended in time."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as program:
        program.write(text.encode("utf-8", errors="replace"))
    until = time.monotonic() + limits.seconds
    kept = b""
    for chunk in _chunks(process.stdout, until):
        kept = (kept + chunk)[-limits.output :]  # the end says what went wrong
    try:
        process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        return kept, False
    return kept, True


def _chunks(stream: IO[bytes], until: float) -> Iterator[bytes]:
    """What comes before the time is over; what is not kept is read too, lest the writer wait."""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while (left := until - time.monotonic()) > 0:
            if not selector.select(left):
                return
            chunk = os.read(stream.fileno(), 1 << 16)
            if not chunk:
                return
            yield chunk


@contextlib.contextmanager
def _killed_at_the_end(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """The whole group is killed, and with the namespace's first process whoever left the group."""
    with process:
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
