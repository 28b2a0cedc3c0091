"""Is a merge to stop? What takes long asks now and then, in the thread that works on it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

_local = threading.local()


@contextlib.contextmanager
def heard(cancelled: Callable[[], bool]) -> Iterator[None]:
    """Within, `check` asks this."""
    before = getattr(_local, "cancelled", None)
    _local.cancelled = cancelled
    try:
        yield
    finally:
        _local.cancelled = before


def check() -> None:
    """Stops if the merge is to.

    Raises:
        KeyboardInterrupt: It is.
    """
    cancelled = getattr(_local, "cancelled", None)
    if cancelled is not None and cancelled():
        raise KeyboardInterrupt
