"""What does a program lose before it runs? Network, disks to write on, other processes, rights.

Run by `sandbox` as `python -I -S -B cage.py ORDER`, with the program on standard input; it may use
the standard library alone. The kernel does the work: namespaces of its own for network, mounts,
processes and messages; every mount read-only but one small folder in memory, others empty; limits.

Three processes: this one, outside, which hands on the exit status; the first of the new process
namespace, with whose end the kernel kills whatever is left in it, also what left the group; and the
program.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import struct
import sys
from typing import Any, NoReturn

NEW_MOUNTS, NEW_MESSAGES, NEW_USER, NEW_PROCESSES, NEW_NETWORK = (
    *(0x00020000, 0x08000000, 0x10000000, 0x20000000, 0x40000000),
)
_BIND, _RECURSIVE, _PRIVATE = 0x1000, 0x4000, 0x40000
_READ_ONLY, _NO_SUID, _NO_DEVICES = 1, 2, 4
_AT_FDCWD, _AT_RECURSIVE, _MOUNT_SETATTR = -100, 0x8000, 442
_SET_PARENT_DEATH_SIGNAL, _SET_DUMPABLE, _SET_NO_NEW_PRIVILEGES = 1, 4, 38
_NOBODY = 65534

_libc = ctypes.CDLL(None, use_errno=True)


def main(order: dict[str, Any]) -> int:
    """Builds the cage, runs the program in it, and returns its exit status."""
    program = sys.stdin.buffer.read()
    _die_with_parent()
    leaves = _separate()
    first = os.fork()
    if first == 0:
        _die_with_parent()
        _close_disks(order["folder"], order["emptied"], order["prefix"], order["disk"])
        os._exit(_start(program, order, leaves))
    return _status_of(first)


def _separate() -> bool:
    """Makes the namespaces; whether this is root still, who has to become nobody.

    Root needs no user namespace to make the others, and some systems forbid it. The root of a
    container may need one: it becomes nobody first, since no limit of processes holds for root.
    """
    spaces = NEW_MOUNTS | NEW_MESSAGES | NEW_PROCESSES | NEW_NETWORK
    if os.getuid() == 0 and _has_nobody():
        if _libc.unshare(spaces) == 0:
            return True
        _become_nobody()
        _call("prctl", _SET_DUMPABLE, 1, 0, 0, 0)  # else its files in /proc stay root's
    user, group = os.getuid(), os.getgid()
    _call("unshare", spaces | NEW_USER)
    _map_user(user, group)
    return False


def _become_nobody() -> None:
    os.setgroups([])
    os.setgid(_NOBODY)
    os.setuid(_NOBODY)


def _start(program: bytes, order: dict[str, Any], leaves: bool) -> int:
    """Runs the program as a child of the namespace's first process, and returns its status."""
    os.chdir(order["folder"])
    with open("program.py", "wb") as file:
        file.write(program)
    child = os.fork()
    if child == 0:
        _become(order, leaves)
    return _status_of(child)


def _become(order: dict[str, Any], leaves: bool) -> NoReturn:
    """Gives up what is left to give up, and turns into the program."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    if leaves:
        os.chown(order["folder"], _NOBODY, _NOBODY)
        _become_nobody()
    _limit(order["limits"])
    _call("prctl", _SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if not os.access(order["python"], os.X_OK):
        raise PermissionError(f"{order['python']}: is not to be run by others than its owner")
    os.write(order["proof"], b"+")  # the cage stands; what happens now is the program's doing
    # Not root in its namespace, it loses with this call what rights it had there.
    os.execve(order["python"], [order["python"], "-I", "-S", "-B", "program.py"], {})


def _has_nobody() -> bool:
    """Whether there is such a user in the namespace that we were started in."""
    with open("/proc/self/uid_map") as file:
        ranges = [tuple(map(int, line.split())) for line in file]
    return any(first <= _NOBODY < first + count for first, _, count in ranges)


def _map_user(user: int, group: int) -> None:
    """In the new namespace the user is nobody, and nobody else is there."""
    for name, line in (
        ("uid_map", f"{_NOBODY} {user} 1"),
        ("setgroups", "deny"),
        ("gid_map", f"{_NOBODY} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)


def _close_disks(folder: str, emptied: list[str], python: str, room: int) -> None:
    """Makes all mounts read-only, some folders empty, and `folder` a small disk in memory.

    The Python that runs may lie in the home of root, where nobody else can look: it is held open,
    and put back at its place in the empty folder.
    """
    _call("mount", None, b"/", None, _RECURSIVE | _PRIVATE, None)
    held = os.open(python, os.O_PATH)
    for path in emptied:
        _empty(path, "64k")
    if any(os.path.commonpath([path, python]) == path for path in emptied):
        os.makedirs(python, exist_ok=True)
        source = f"/proc/self/fd/{held}".encode()
        _call("mount", source, os.fsencode(python), None, _BIND | _RECURSIVE, None)
    os.makedirs(folder, exist_ok=True)
    attributes = struct.pack("QQQQ", _READ_ONLY, 0, 0, 0)
    # One call for the whole tree (Linux 5.12): a remount each would have to keep each one's flags.
    _call(
        *("syscall", _MOUNT_SETATTR, _AT_FDCWD, b"/", _AT_RECURSIVE),
        *(attributes, ctypes.c_size_t(len(attributes))),
    )
    _empty("/proc", "4k")
    _empty(folder, str(room))


def _empty(path: str, size: str) -> None:
    """An empty folder in memory in the place of one."""
    content = f"size={size},nr_inodes=1k,mode=0755".encode()
    _call("mount", b"none", os.fsencode(path), b"tmpfs", _NO_SUID | _NO_DEVICES, content)


def _limit(limits: dict[str, int]) -> None:
    for name, most in {**limits, "CORE": 0}.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        _, allowed = resource.getrlimit(kind)
        if allowed != resource.RLIM_INFINITY:
            most = min(most, allowed)
        resource.setrlimit(kind, (most, most))


def _die_with_parent() -> None:
    parent = os.getppid()
    _call("prctl", _SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it went before the call
        os._exit(1)


def _status_of(child: int) -> int:
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if status >= 0 else 128 - status


def _call(name: str, *arguments: Any) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        what = "mount_setattr" if name == "syscall" else name
        hint = " (Linux 5.12 has it)" if code == errno.ENOSYS else ""
        raise OSError(code, f"{what}: {os.strerror(code)}{hint}")


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
