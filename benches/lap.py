"""What does one call take, in this process?"""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Lap:
    seconds: float
    beside_bytes: int | None
    """The most memory beside what the process held before; None where Linux does not tell."""


def lap(work: Callable[[], _T]) -> tuple[_T, Lap]:
    """The answer of a call, and what it took."""
    gc.collect()
    before = _begin()
    start = time.perf_counter()
    answer = work()
    seconds = time.perf_counter() - start
    return answer, Lap(seconds, None if before is None else _status("VmHWM") - before)


def _begin() -> int | None:
    """Has the peak begin anew.

    Returns:
        The bytes that are held now.
    """
    try:
        _CLEAR.write_text("5")
    except OSError:
        return None
    return _status("VmRSS")


def _status(field: str) -> int:
    found = re.search(rf"^{field}:\s*(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    assert found
    return 1024 * int(found[1])
