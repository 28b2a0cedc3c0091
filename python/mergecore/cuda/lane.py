"""Where is a piece of a tensor while it is worked on? In pinned memory, and in that of a device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import torch

Bytes: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]


class Lane:
    """A queue of work on a device, and memory on both sides of it. On a CPU nothing is copied."""

    def __init__(self, place: torch.device, memory: int) -> None:
        self.memory = memory
        """Bytes of the device that may be taken."""
        self._place = place
        self._queue = torch.cuda.Stream(place) if place.type == "cuda" else None
        self._rooms: list[tuple[torch.Tensor, Any]] = []
        self._last: torch.Tensor | None = None
        self._out: torch.Tensor | None = None

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """What is done within is done in this lane."""
        with torch.inference_mode():
            if self._queue is None:
                yield
                return
            with torch.cuda.device(self._place), torch.cuda.stream(self._queue):
                yield

    def clear(self) -> None:
        """Gives back what the device's memory holds for nothing."""
        if self._queue is not None:
            torch.cuda.empty_cache()

    def room(self, size: int) -> Bytes:
        """Where the engine reads to: the one of two that was sent longer ago."""
        if self._queue is None:
            self._last = torch.empty(size, dtype=torch.uint8)
            return _bytes(self._last)
        room, event = self._rooms.pop(0) if len(self._rooms) == 2 else (None, None)
        if event is not None:
            event.synchronize()
        if room is None or room.numel() < size:
            room = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        self._rooms.append((room, None))
        self._last = room[:size]
        return _bytes(self._last)

    def sent(self) -> torch.Tensor:
        """What was read, on the device."""
        assert self._last is not None
        if self._queue is None:
            return self._last
        sent = self._last.to(self._place, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._rooms[-1] = (self._rooms[-1][0], event)
        return sent

    def fetched(self, tensor: torch.Tensor) -> Bytes:
        """The bytes of a tensor of the device, until the next are fetched."""
        raw = tensor.reshape(-1).view(torch.uint8)
        if self._queue is None:
            self._out = raw
            return _bytes(raw)
        if self._out is None or self._out.numel() < raw.numel():
            self._out = torch.empty(raw.numel(), dtype=torch.uint8, pin_memory=True)
        out = self._out[: raw.numel()]
        out.copy_(raw, non_blocking=True)
        torch.cuda.current_stream().synchronize()
        return _bytes(out)


def _bytes(tensor: torch.Tensor) -> Bytes:
    found: Bytes = tensor.numpy()
    return found
