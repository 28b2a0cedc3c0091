"""What was measured, and how is it printed?"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from contestants import RawIO, Timing
from llama import Size


@dataclass
class Figures:
    """What was measured of one method; the runs in their order."""

    inputs: int
    answer: str = ""
    mergecore: list[Timing] = field(default_factory=list)
    mergekit: list[Timing] = field(default_factory=list)

    def last(self) -> str:
        """The last run, in words."""
        runs = {"mergecore": self.mergecore, "mergekit": self.mergekit}
        return ", ".join(f"{name} {run[-1].seconds:.2f} s" for name, run in runs.items() if run)


@dataclass
class Bench:
    """Everything that was measured."""

    machine: dict[str, Any]
    size: Size
    models: int
    raw_io: list[RawIO]
    methods: dict[str, Figures]
    flat: dict[str, tuple[int, int]]
    """By method the peak RSS of a small model, and of one with ten times the layers."""

    def json(self) -> dict[str, Any]:
        """All of it as JSON takes it."""
        return {**asdict(self), "parameters": self.size.parameters}


def machine(folder: Path) -> dict[str, Any]:
    """What it ran on, as far as it bears on the figures."""
    name = platform.processor() or platform.machine()
    cpus = Path("/proc/cpuinfo")
    if cpus.exists():
        names = [line for line in cpus.read_text().splitlines() if line.startswith("model name")]
        name = names[0].partition(":")[2].strip() if names else name
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "folder": str(folder),
        "load_average": os.getloadavg(),
    }


def show(bench: Bench) -> None:
    """Prints medians, with the least and the most beside them."""
    print(f"{about(bench.machine)}\n{bench.models} models of {in_words(bench.size)}")
    parts = {"read": "cat of all", "copy": "cp of one", "sync": "sync of the copy"}
    for part, what in parts.items():
        print(f"  {what:17}{seconds([getattr(raw, part) for raw in bench.raw_io])}")
    print()
    print_table(_table(bench))
    print("\nanswers")
    for method, figures in bench.methods.items():
        print(f"  {method:17}{figures.answer}")
    print("\npeak RSS of a small model, and of one with 10 times the layers")
    for method, (short, tall) in bench.flat.items():
        print(f"  {method:17}{megabytes(short)} MB, {megabytes(tall)} MB")


def about(machine: dict[str, Any]) -> str:
    """What it ran on, in words."""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 1e9:.0f} GB, "
        f"{machine['system']}; load {machine['load_average'][0]:.1f} when it began"
    )


def in_words(size: Size) -> str:
    """How large a model is."""
    billions = size.parameters / 1e9
    return f"{billions:.3g} B parameters, {2 * billions:.3g} GB each"


def megabytes(size: int) -> int:
    return round(size / 1e6)


def _table(bench: Bench) -> list[list[str]]:
    has_mergekit = any(figures.mergekit for figures in bench.methods.values())
    heads = ["method", "wall s", "CPU s", "RSS MB", "raw I/O"]
    rows = [[*heads, "mergekit s", "CPU s", "RSS MB", "ratio"] if has_mergekit else heads]
    for method, figures in bench.methods.items():
        share = figures.inputs / bench.models
        raw = statistics.median(raw.seconds(share) for raw in bench.raw_io)
        ours = _median(figures.mergecore)
        row = [method, *_cells(figures.mergecore), f"{ours / raw:.2f}x"]
        if has_mergekit:
            row += _cells(figures.mergekit) or [""] * 3
            row += [f"{_median(figures.mergekit) / ours:.1f}x" if figures.mergekit else ""]
        rows.append(row)
    return rows


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Prints rows, the first of which is the head; all columns but the first to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]))


def _cells(timings: Sequence[Timing]) -> list[str]:
    if not timings:
        return []
    cpu = statistics.median(timing.cpu_seconds for timing in timings)
    peak = max(timing.peak_rss_bytes for timing in timings)
    return [seconds([timing.seconds for timing in timings]), f"{cpu:.2f}", f"{megabytes(peak)}"]


def seconds(runs: Sequence[float]) -> str:
    """The median, with the least and the most of several."""
    middle = f"{statistics.median(runs):.2f}"
    return f"{middle} ({min(runs):.2f}-{max(runs):.2f})" if len(runs) > 1 else middle


def _median(timings: Sequence[Timing]) -> float:
    return statistics.median(timing.seconds for timing in timings)
