"""Was this very response judged before? Verdicts are kept by content, and paid for once."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

from mergecore.evaluate.rows import Row


def key(about: dict[str, Any], instruction: str, output: str) -> str:
    """What a verdict depends on, in one text."""
    content = json.dumps([about, instruction, output], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/mergecore`, as caches go."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mergecore"


class Cache:
    """Verdicts by key, in a file of JSON Lines that is only added to."""

    def __init__(self, path: Path | None) -> None:
        """Reads what is there; without a path nothing is kept."""
        self.path = path
        self._lock = threading.Lock()
        self._known: dict[str, Row] = {}
        if path is not None and path.is_file():
            for line in path.read_text("utf-8").split("\n"):
                try:
                    entry = json.loads(line)
                    self._known[entry["key"]] = entry["verdict"]
                except (ValueError, KeyError, TypeError):
                    continue  # a line that a kill cut off; its verdict is asked for again

    def get(self, wanted: str) -> Row | None:
        """The verdict, if it is known."""
        return self._known.get(wanted)

    def put(self, wanted: str, verdict: Row) -> None:
        """Keeps a verdict, on the disk before it is used."""
        with self._lock:
            self._known[wanted] = verdict
            if self.path is None:
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            line = json.dumps({"key": wanted, "verdict": verdict}) + "\n"
            with self.path.open("ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
