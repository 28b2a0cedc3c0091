"""A disk that fails when it is told to: a file system in memory, by the kernel's own FUSE protocol.

Every operation asks `hook(operation, path, begin, end)` first, which may do whatever it likes (kill
the process, for one) and returns 0 or the errno that the operation ends with. So a fault lies at
the same operation each time, and nothing is preloaded into the program. Linux and root.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH = 2
_HUGE = 1 << 40

GROWS = frozenset({"create", "write", "mkdir"})
"""The operations that a full disk refuses."""
CHANGES = GROWS | {"rename", "unlink", "rmdir", "fsync", "setattr"}
"""All between which a kill makes a difference."""

Hook = Callable[[str, str, int, int], int]


@dataclass
class Node:
    """A file or a folder."""

    number: int
    name: str
    parent: Node | None
    mode: int
    data: bytearray | None = None
    """None for a folder."""
    children: dict[str, Node] = field(default_factory=dict)
    synced: bytes = b""
    changed: float = field(default_factory=time.time)

    @property
    def path(self) -> str:
        above = self.parent.path if self.parent else ""
        return f"{above}/{self.name}" if above else self.name

    def files(self) -> dict[str, bytes]:
        """All files below, by their paths from here."""
        found = {}
        for name, child in self.children.items():
            if child.data is not None:
                found[name] = bytes(child.data)
            found |= {f"{name}/{path}": data for path, data in child.files().items()}
        return found


class FaultyDisk:
    """The file system, mounted; `hook` may be exchanged at any time."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.hook: Hook = lambda *_: 0
        self.lock = threading.Lock()
        self._device = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other"
        if number := mount("fuse", place, options):
            os.close(self._device)
            raise OSError(number, os.strerror(number))
        self._nodes: dict[int, Node] = {}
        self.clear()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def clear(self) -> None:
        """Empties the disk."""
        self.root = Node(1, "", None, stat.S_IFDIR | 0o755)
        self._nodes[1] = self.root  # the others may be open yet

    def at(self, path: str) -> Node | None:
        """What lies at a path from the root."""
        node: Node | None = self.root
        for part in path.split("/"):
            node = node.children.get(part) if node else None
        return node

    def add(self, path: str, data: bytes) -> None:
        """Puts a file there, with its folders, as if it had always been."""
        node = self.root
        *folders, name = path.split("/")
        for folder in folders:
            node = node.children.get(folder) or self._made(node, folder, stat.S_IFDIR | 0o755)
        made = self._made(node, name, stat.S_IFREG | 0o644)
        made.data, made.synced = bytearray(data), data

    def cut_the_power(self) -> None:
        """What was never synced is zeros, as where blocks were promised and not written."""
        left = [self.root]
        while left:
            node = left.pop()
            left += node.children.values()
            if node.data is not None:
                node.data = bytearray(node.synced[: len(node.data)].ljust(len(node.data), b"\0"))

    def unmount(self) -> None:
        unmount(self.place)
        self._thread.join(10)
        os.close(self._device)

    # --- The protocol: linux/fuse.h

    def _serve(self) -> None:
        while True:
            try:
                request = os.read(self._device, (1 << 20) + 4096)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT):
                    continue
                return  # unmounted
            _, code, unique, number = struct.unpack_from("<IIQQ", request)
            answer = getattr(self, _CODES.get(code, "unknown"))
            if code in (2, 36, 42):  # forget, interrupt: no reply is wanted
                continue
            try:
                with self.lock:
                    body = answer(self._nodes.get(number, self.root), request[40:])
            except Refused as refused:
                body = refused.number
            failed = body if isinstance(body, int) else 0
            body = b"" if isinstance(body, int) else body
            with contextlib.suppress(OSError):  # whoever asked is dead
                os.write(self._device, struct.pack("<IiQ", 16 + len(body), -failed, unique) + body)

    def _ask(self, operation: str, path: str, begin: int = 0, end: int = 0) -> None:
        if number := self.hook(operation, path, begin, end):
            raise Refused(number)

    def _made(self, parent: Node, name: str, mode: int) -> Node:
        node = Node(max(self._nodes) + 1, name, parent, mode)
        self._nodes[node.number] = parent.children[name] = node
        if stat.S_ISREG(mode):
            node.data = bytearray()
        return node

    def _attributes(self, node: Node) -> bytes:
        size, seconds = len(node.data or b""), int(node.changed)
        nanos = int(node.changed % 1 * 1e9)
        times = (seconds, seconds, seconds, nanos, nanos, nanos)
        rest = (node.mode, 1, 0, 0, 0, 4096, 0)
        return struct.pack("<6Q10I", node.number, size, (size + 511) // 512, *times, *rest)

    def _entry(self, node: Node) -> bytes:
        return struct.pack("<QQQQII", node.number, 0, 0, 0, 0, 0) + self._attributes(node)

    def init(self, _node: Node, _body: bytes) -> bytes:
        big_writes_and_many_pages = 1 << 5 | 1 << 22
        head = (7, 31, 1 << 17, big_writes_and_many_pages, 16, 12, 1 << 20, 1, 256, 0, 0)
        return struct.pack("<IIIIHHIIHHI28x", *head)

    def unknown(self, _node: Node, _body: bytes) -> int:
        return errno.ENOSYS

    def lookup(self, node: Node, body: bytes) -> bytes | int:
        found = node.children.get(_text(body))
        return errno.ENOENT if found is None else self._entry(found)

    def getattr(self, node: Node, _body: bytes) -> bytes:
        return struct.pack("<QII", 0, 0, 0) + self._attributes(node)

    def setattr(self, node: Node, body: bytes) -> bytes:
        valid, _, _, size = struct.unpack_from("<IIQQ", body)
        mode = struct.unpack_from("<I", body, 68)[0]
        if valid & 8 and node.data is not None and size != len(node.data):
            self._ask("setattr", node.path, min(size, len(node.data)), size)
            del node.data[size:]
            node.data.extend(bytes(size - len(node.data)))
        if valid & 1:
            node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)
        return self.getattr(node, b"")

    def mkdir(self, node: Node, body: bytes) -> bytes:
        name = _text(body[8:])
        self._ask("mkdir", f"{node.path}/{name}".lstrip("/"))
        return self._entry(self._made(node, name, stat.S_IFDIR | 0o755))

    def unlink(self, node: Node, body: bytes) -> int:
        name = _text(body)
        if name not in node.children:
            return errno.ENOENT
        self._ask("unlink", node.children[name].path)
        del node.children[name]
        return 0

    def rmdir(self, node: Node, body: bytes) -> int:
        found = node.children[_text(body)]
        if found.children:
            return errno.ENOTEMPTY
        self._ask("rmdir", found.path)
        del node.children[found.name]
        return 0

    def rename(self, node: Node, body: bytes, start: int = 8) -> int:
        target = self._nodes[struct.unpack_from("<Q", body)[0]]
        old, new = (_text(part) for part in body[start:].split(b"\0")[:2])
        there = target.children.get(new)
        if there is not None and there.children:
            return errno.ENOTEMPTY
        moved = node.children[old]
        self._ask("rename", moved.path)
        del node.children[old]
        target.children[new] = moved
        moved.name, moved.parent = new, target
        return 0

    def rename2(self, node: Node, body: bytes) -> int:
        return self.rename(node, body, 16)

    def open(self, _node: Node, _body: bytes) -> bytes:
        return struct.pack("<QII", 0, 0, 0)

    def create(self, node: Node, body: bytes) -> bytes:
        name, mode = _text(body[16:]), struct.unpack_from("<II", body)[1]
        self._ask("create", f"{node.path}/{name}".lstrip("/"))
        return self._entry(self._made(node, name, mode)) + self.open(node, b"")

    def read(self, node: Node, body: bytes) -> bytes:
        _, begin, size = struct.unpack_from("<QQI", body)
        assert node.data is not None
        self._ask("read", node.path, begin, begin + size)
        return bytes(node.data[begin : begin + size])

    def write(self, node: Node, body: bytes) -> bytes:
        _, begin, size = struct.unpack_from("<QQI", body)
        assert node.data is not None
        self._ask("write", node.path, begin, begin + size)
        node.data.extend(bytes(max(0, begin - len(node.data))))
        node.data[begin : begin + size] = body[40 : 40 + size]
        node.changed = time.time()
        return struct.pack("<II", size, 0)

    def statfs(self, _node: Node, _body: bytes) -> bytes:
        blocks = _HUGE // 4096
        return struct.pack("<5Q4I24x", blocks, blocks, blocks, 1000, 1000, 4096, 255, 4096, 0)

    def release(self, _node: Node, _body: bytes) -> int:
        return 0

    def fsync(self, node: Node, _body: bytes) -> int:
        self._ask("fsync", node.path)
        node.synced = bytes(node.data or b"")
        return 0

    def readdir(self, node: Node, body: bytes) -> bytes:
        _, begin, size = struct.unpack_from("<QQI", body)
        found = b""
        for place, child in enumerate(list(node.children.values())[begin:], begin + 1):
            name = child.name.encode()
            kind = stat.S_IFMT(child.mode) >> 12
            entry = struct.pack("<QQII", child.number, place, len(name), kind) + name
            entry += bytes(-len(entry) % 8)
            if len(found) + len(entry) > size:
                break
            found += entry
        return found


class Refused(Exception):  # noqa: N818  it is what a disk says, and no mistake
    """The hook's errno, on its way to the program."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


_CODES = {
    1: "lookup", 3: "getattr", 4: "setattr", 9: "mkdir", 10: "unlink", 11: "rmdir", 12: "rename",
    14: "open", 15: "read", 16: "write", 17: "statfs", 18: "release", 20: "fsync", 26: "init",
    27: "open", 28: "readdir", 29: "release", 30: "fsync", 35: "create", 45: "rename2",
}  # fmt: skip


def _text(body: bytes) -> str:
    return body.partition(b"\0")[0].decode()


def mount(kind: str, place: Path, options: str) -> int:
    """Mounts a file system; 0, or the errno that it failed with."""
    done = _LIBC.mount(kind.encode(), bytes(place), kind.encode(), 0, options.encode())
    return 0 if done == 0 else ctypes.get_errno()


def unmount(place: Path) -> None:
    _LIBC.umount2(bytes(place), _MNT_DETACH)
