"""Who works formulas out for the engine? A GPU, several of them, or torch on the CPU.

The engine reads and writes, and hands tensors over piece by piece as they are stored (its
`run/device.rs`). Each lane is a thread of the engine's, with a stream and pinned buffers of its
own: while one lane's piece is worked on, those of the others are read, copied and written.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import torch

from mergecore import cuda
from mergecore.cuda import interruption
from mergecore.cuda.formula import Place
from mergecore.cuda.lane import Bytes, Lane
from mergecore.cuda.stream import Stream
from mergecore.cuda.vectors import NotFiniteError
from mergecore.errors import RecipeError, RunError

Counts: TypeAlias = list[list[int]]
_T = TypeVar("_T")

_LANES = 3
"""Tensors in work on each GPU: one is read, one worked on, one written."""
_ON_CPU = 1 << 30
"""Bytes for torch on the CPU, where no limit is given."""
_SHARE = 0.8
"""Of a GPU's free memory, where no limit is given."""
_MOST = 1 << 26
"""Elements of a piece, at the most: larger ones would only wait for one another."""


class Device:
    """What the engine is told to work formulas out on."""

    def __init__(self, name: str, max_memory: int | None = None) -> None:
        """Finds the device.

        Args:
            name: `cuda` for all GPUs, `cuda:N` for one, or `cpu-torch`.
            max_memory: Bytes of memory that may be taken of each.

        Raises:
            RecipeError: There is no such device, or torch does not see it.
        """
        self.name = name
        each = 1 if name == "cpu-torch" else _LANES
        places = [place for place in devices(name) for _ in range(each)]
        self._lanes = [Lane(place, (max_memory or _free(place)) // each) for place in places]
        self._given_back: dict[str, str] = {}

    @property
    def lanes(self) -> int:
        """Tensors that are worked on at a time."""
        return len(self._lanes)

    def begin(self, lane: int, words: str, cancelled: Callable[[], bool]) -> Bench | None:
        """A tensor's merge; None if it is the CPU's.

        Args:
            lane: Whose tensor it is.
            words: What the engine says of it, JSON.
            cancelled: Tells whether the merge is to stop.
        """
        about = json.loads(words)
        method = about["method"]
        if method is None or cuda.runs(method, about["parameters"], about["modifiers"]):
            return None
        return Bench(about, self._lanes[lane], self._given_back, cancelled)

    def foreseen(self, summary: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> list[str]:
        """What of a plan is worked out here, and what is not, and why."""
        merged = [step["parameters"] for step in steps if step["parameters"] is not None]
        modifiers = summary["modifiers"]
        found = Counter(cuda.runs(summary["method"], own, modifiers) for own in merged)
        here = found.pop(None, 0)
        said = [f"{self.name} works out {here} of {len(merged)} tensors"] if here else []
        return said + [f"not on {self.name}: {reason}" for reason in found]

    def notes(self) -> list[str]:
        """What could not be worked out here in the run before, though it should have been."""
        reasons = Counter(self._given_back.values())
        self._given_back.clear()
        return [
            f"{self.name}: {reason}: {count} of the tensors made on the CPU"
            for reason, count in reasons.items()
        ]


class Bench:
    """One tensor's merge on a device.

    Where memory does not suffice, or the device fails, the answer is None or False, and all of the
    piece is forgotten: the engine tries less at a time, and at last itself.
    """

    def __init__(
        self,
        about: Mapping[str, Any],
        lane: Lane,
        given_back: dict[str, str],
        cancelled: Callable[[], bool],
    ) -> None:
        """Begins with nothing known.

        Args:
            about: What the engine says of the tensor.
            lane: Where it is merged.
            given_back: Is told why the tensor is the CPU's after all, by name.
            cancelled: Tells whether the merge is to stop.
        """
        self._about = about
        self._lane = lane
        self._given_back = given_back
        self._cancelled = cancelled
        self._stored = [getattr(torch, name) for name in about["stored"]]
        self._dtype = torch.float64 if about["wide"] else torch.float32
        self._has_base = bool(about["base"])
        models = len(self._stored) - self._has_base
        shape = tuple(about["shape"])
        tensor = Place(shape, self._dtype, models, about["name"], about["seed"])
        self._stream: Stream | None = None
        self._request: Any = None
        if about["whole"] is None:
            self._stream = cuda.stream(about["method"], about["parameters"], tensor)
        else:
            self._request = cuda.matrices(
                *(about["method"], about["parameters"], tensor, about["whole"]),
                stored=about["stored"][self._has_base :],
                modifiers=about["modifiers"],
                sources=about["sources"],
            )
        self._given: list[torch.Tensor] = []

    @property
    def chunk(self) -> int:
        """Elements of a piece."""
        item = 8 if self._about["wide"] else 4
        # As they are stored, widened, and as thinned; and the counters of a mask.
        each = sum(dtype.itemsize for dtype in self._stored) + 3 * item * len(self._stored) + 64
        room: int = self._lane.memory // each
        return min(max(room, 1), _MOST)

    def wanted(self) -> tuple[int, int] | None:
        """The elements that must be seen before it can be merged; None if it can be."""
        span = None if self._stream is None else self._stream.wanted
        return None if span is None else (span.start, span.stop)

    def buffer(self, size: int) -> Bytes | None:
        """Room for the bytes of the next source."""
        return self._fitting(lambda: self._lane.room(size))

    def give(self, source: int) -> bool:
        """Takes what the buffer holds as the source of that number."""
        if source == 0:
            self._given.clear()
        if self._request is not None and source == 0 and not self._fits():
            self._fitting(_lack)
            return False

        def take() -> bool:
            raw = self._lane.sent()
            self._given.append(raw.view(self._stored[source]))
            return True

        return self._fitting(take) or False

    def observe(self, first: int) -> bool:
        """Looks at the piece that begins there."""
        stream = self._stream
        assert stream is not None

        def look() -> bool:
            base, models = self._split()
            stream.observe(models, base, first)
            return True

        return self._fitting(look) or False

    def conclude(self) -> None:
        """All that was wanted was seen."""
        assert self._stream is not None
        with self._lane.working():
            self._stream.conclude()

    def merge(self, first: int) -> tuple[Bytes, Counts] | None:
        """The merged task vector of a piece, and what of each source is not finite."""
        stream = self._stream
        assert stream is not None

        def made() -> tuple[Bytes, Counts]:
            base, models = self._split()
            counts = self._counts()
            return self._lane.fetched(stream.delta(models, base, first)), counts.tolist()

        return self._fitting(made)

    def solve(self, number: int) -> tuple[Bytes, Counts] | None:
        """The same of a unit of matrices."""

        def made() -> tuple[Bytes, Counts]:
            base, models = self._split()
            unit = self._request.whole.units[number]
            counts = self._counts()
            delta = self._request.delta(models, base, unit)
            return self._lane.fetched(delta), counts.tolist()

        return self._fitting(made)

    def spectra(self) -> list[tuple[str, str, int, float, float, float, float]]:
        """What is known of the matrices."""
        told = [] if self._request is None else self._request.told
        self._given.clear()
        self._given_back.pop(self._about["name"], None)
        return [
            (
                *(t.of, t.part, t.account.rank, t.account.stable_rank),
                *(t.account.noise_share, t.account.orthogonality, t.account.residual),
            )
            for t in told
        ]

    def _split(self) -> tuple[Any, list[torch.Tensor]]:
        return (self._given[0] if self._has_base else None), self._given[self._has_base :]

    def _counts(self) -> torch.Tensor:
        """NaN and infinities of each source: int64 of shape (sources, 2), on the CPU."""
        pairs = [torch.stack([row.isnan().sum(), row.isinf().sum()]) for row in self._given]
        return torch.stack(pairs).cpu()

    def _fits(self) -> bool:
        """Whether every unit does: as it is stored, widened, once in float64, and what is short."""
        stored = sum(dtype.itemsize for dtype in self._stored) + 3 * self._dtype.itemsize + 8
        for unit in self._request.whole.units:
            short = max(min(part.rows.total, part.columns.total) for part in unit.parts)
            if len(unit.elements) * stored + 12 * 8 * short * short > self._lane.memory:
                return False
        return True

    def _fitting(self, work: Callable[[], _T]) -> _T | None:
        """What comes of it; None where memory does not suffice."""
        try:
            with interruption.heard(self._cancelled), self._lane.working():
                return work()
        except NotFiniteError:
            raise  # the engine would refuse it, too
        except (RuntimeError, RunError) as error:  # of torch, of its certificate
            self._given_back[self._about["name"]] = _reason(error)
            self._given.clear()
            self._lane.clear()
            return None


def _reason(error: Exception) -> str:
    """Why the device did not do it; memory that does not suffice has many words."""
    words = " ".join(str(error).split())
    lacks = isinstance(error, torch.OutOfMemoryError) or any(
        word in words.lower() for word in ("out of memory", "alloc")
    )
    return "its memory was too small" if lacks else f"it failed ({words[:200]})"


def _lack() -> bool:
    raise torch.OutOfMemoryError("more than max_memory")


def devices(name: str) -> list[torch.device]:
    """The devices of a name: `cpu-torch`, `cuda` for all GPUs, or `cuda:N`.

    Raises:
        RecipeError: There is none.
    """
    if name == "cpu-torch":
        return [torch.device("cpu")]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise RecipeError(f"device {name}: torch sees no GPU here")
    number = name.removeprefix("cuda").removeprefix(":")
    if not number:
        return [torch.device("cuda", which) for which in range(count)]
    if int(number) >= count:
        raise RecipeError(f"device {name}: torch sees {count} GPUs, the last is cuda:{count - 1}")
    return [torch.device("cuda", int(number))]


def _free(place: torch.device) -> int:
    if place.type != "cuda":
        return _ON_CPU
    return int(_SHARE * torch.cuda.mem_get_info(place)[0])
