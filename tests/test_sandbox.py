"""What can a model's code do? Nothing to the machine, and not for long."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from mergecore.errors import MergecoreError
from mergecore.evaluate.tasks import sandbox
from mergecore.evaluate.tasks.sandbox import Limits

SHORT = Limits(seconds=0.8)


def _reason() -> str | None:
    try:
        sandbox.check()
    except MergecoreError as error:
        return str(error)
    return None


REASON = _reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"{REASON}")


@pytest.mark.parametrize(
    ("code", "finished", "outcome"),
    [
        ("print('hello')", True, "finished"),
        ("assert 1 + 1 == 3, 'no'", False, "AssertionError: no"),
        ("def (", False, "SyntaxError"),
        ("import sys; sys.exit(0)", False, "status 0"),
        ("import os; os._exit(0)", False, "status 0"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", False, "status 137"),
        ("x = '\udcff'", True, "finished"),
    ],
)
def test_only_a_program_that_reaches_its_end_has_passed(code, finished, outcome):
    ran = sandbox.run(code)
    assert ran.finished is finished
    assert outcome in ran.outcome


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "while True: print('x' * 1000)",
        "import os\nos.close(1); os.close(2)\nimport time; time.sleep(60)",
        "import signal\nfor s in range(1, 65):\n  try: signal.signal(s, signal.SIG_IGN)\n"
        "  except (OSError, ValueError): pass\nwhile True: pass",
    ],
)
def test_what_does_not_end_is_ended(code):
    start = time.monotonic()
    ran = sandbox.run(code, SHORT)
    assert not ran.finished
    assert time.monotonic() - start < 10
    assert len(ran.output) <= SHORT.output


def test_cpu_time_ends_a_program_before_the_clock_does():
    ran = sandbox.run("while True: pass", Limits(seconds=60, cpu_seconds=1))
    assert ran.outcome == "status 137"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("x = bytearray(1 << 30)", "MemoryError"),
        ("x = []\nwhile True: x.append(bytearray(1 << 20))", "MemoryError"),
        ("open('big', 'wb').write(bytes(64 << 20))", "OSError"),
        (
            "for i in range(9): open(f'{i}', 'wb').write(bytes(8 << 20))",
            "No space left on device",
        ),
        ("for i in range(5000): open(f'{i}', 'w').close()", "No space left on device"),
        ("x = [open(f'{i}', 'w') for i in range(500)]", "Too many open files"),
        (
            "import os, time\nfor i in range(100):\n  if os.fork() == 0: time.sleep(30)",
            "Resource temporarily unavailable",
        ),
    ],
)
def test_memory_files_and_processes_are_limited(code, error):
    ran = sandbox.run(code, Limits(seconds=20))
    assert not ran.finished
    assert error in ran.outcome


def test_a_fork_bomb_leaves_nothing():
    bomb = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"
    assert sandbox.run(bomb, SHORT).outcome == "timed out"
    _nothing_is_left()


def test_a_process_that_leaves_the_group_is_killed_too():
    daemon = (
        "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0: time.sleep(60)\n"
    )
    assert sandbox.run(daemon).finished
    assert sandbox.run(daemon + "time.sleep(60)", SHORT).outcome == "timed out"
    _nothing_is_left()


def _nothing_is_left():
    for _ in range(100):
        running = [_command(name) for name in os.listdir("/proc") if name.isdigit()]
        if not any("program.py" in line for line in running):
            return
        time.sleep(0.05)
    raise AssertionError(running)


def _command(process: str) -> str:
    try:
        with open(f"/proc/{process}/cmdline", "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def test_there_is_no_network():
    tcp = "import socket\nsocket.create_connection(('127.0.0.1', {}), 3)"
    with socket.create_server(("127.0.0.1", 0)) as server:
        ran = sandbox.run(tcp.format(server.getsockname()[1]))
    assert "OSError" in ran.outcome or "ConnectionRefused" in ran.outcome
    for family in ("AF_INET", "AF_INET6"):
        to = "('192.0.2.1', 53)" if family == "AF_INET" else "('2001:db8::1', 53)"
        udp = f"import socket\nsocket.socket(socket.{family}, 2).sendto(b'x', {to})"
        assert "unreachable" in sandbox.run(udp).outcome or "assign" in sandbox.run(udp).outcome
    interfaces = "import socket\nassert [n for _, n in socket.if_nameindex()] == ['lo']"
    assert sandbox.run(interfaces).finished


@pytest.fixture
def open_folder():
    """A folder that anyone may enter: pytest's own only its user may."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o777)
        yield Path(folder).resolve()


def test_nothing_outside_can_be_written(open_folder):
    kept = open_folder / "kept"
    kept.write_text("mine")
    kept.chmod(0o666)
    for code in (
        f"open({str(kept)!r}, 'w')",
        f"import os; os.remove({str(kept)!r})",
        f"open({str(open_folder / 'new')!r}, 'w')",
        f"import os; os.chmod({str(kept)!r}, 0)",
    ):
        assert "Read-only file system" in sandbox.run(code).outcome
    assert kept.read_text() == "mine"
    assert os.listdir(open_folder) == ["kept"]


def test_rights_do_not_come_back():
    again = """
import ctypes
libc = ctypes.CDLL(None)
libc.unshare(0x10000000 | 0x20000)
assert libc.mount(None, b"/", None, 32 | 4096, None) == -1
assert libc.umount2(b"/proc", 2) == -1
open("/var/tmp/mergecore-was-here", "w")
"""
    assert "Read-only" in sandbox.run(again).outcome
    assert not os.path.exists("/var/tmp/mergecore-was-here")


def test_it_sees_neither_environment_nor_processes_nor_home(monkeypatch, open_folder):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("HOME", str(open_folder))
    (open_folder / "diary").write_text("secret")
    look = f"""
import os, sys
assert not set(os.environ) - {{"LC_CTYPE"}}, os.environ
assert os.listdir("/proc") == []
assert os.listdir({str(open_folder)!r}) == []
assert os.getuid() != 0
assert sys.stdin.read() == ""
assert os.listdir() == ["program.py"]
"""
    ran = sandbox.run(look)
    assert ran.finished, ran.output


def test_sockets_of_services_are_out_of_sight():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        address = f"{folder}/service"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(address)
            server.listen()
            os.chmod(address, 0o777)
            call = f"import socket\nsocket.socket(socket.AF_UNIX).connect({address!r})"
            assert "FileNotFoundError" in sandbox.run(call).outcome
    assert sandbox.run("import os; assert os.listdir('/run') == []").finished


def test_files_of_others_can_be_read():
    """By design, and said in the documentation."""
    assert sandbox.run("assert open('/etc/passwd').read()").finished


def test_nothing_runs_where_there_is_no_sandbox(monkeypatch):
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    with pytest.raises(MergecoreError, match="Linux only"):
        sandbox.check()
    monkeypatch.undo()
    monkeypatch.setattr(sandbox.cage, "__file__", "/dev/null")  # a cage that does not come to be
    with pytest.raises(MergecoreError, match="cannot be built"):
        sandbox.run("open('/var/tmp/mergecore-was-here', 'w')")
    with pytest.raises(MergecoreError, match="cannot be built"):
        sandbox.check()


def test_the_death_of_mergecore_ends_the_program():
    parent = subprocess.Popen(
        [sys.executable, "-c",
         "from mergecore.evaluate.tasks import sandbox as s\n"
         "s.run('import time; time.sleep(60)', s.Limits(seconds=60))"]
    )  # fmt: skip
    for _ in range(100):
        if any("program.py" in _command(n) for n in os.listdir("/proc") if n.isdigit()):
            break
        time.sleep(0.05)
    else:
        raise AssertionError("it did not start")
    parent.kill()
    parent.wait()
    _nothing_is_left()
