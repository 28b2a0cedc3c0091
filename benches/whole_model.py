"""Whole models, from disk to disk: how near does a merge come to the machine's products of
matrices, and does it keep to the memory that it planned?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import contestants
import mergecore
from agreement import DisagreementError
from contestants import Merge, Timing
from figures import in_words, megabytes, print_table, seconds
from gemm import of_peak, operations
from llama import Checkpoint, Size, family
from workspace import check_space, say


@dataclass
class Figures:
    """What was measured of one merge; the runs in their order."""

    planned_bytes: int
    operations: float = 0
    """In the products and decompositions of its matrices."""
    runs: list[Timing] = field(default_factory=list)


def run(folder: Path, size: Size, tunes: int, runs: int, peak: float) -> None:
    """Merges a base and its fine-tunes in `folder` by each method, and prints what it took.

    Raises:
        DisagreementError: A merge took more memory than it had planned.
    """
    check_space(folder, size, tunes + 2)
    say(f"making {tunes + 1} models of {size.parameters:,} parameters in {folder}")
    models, out = family(folder, size, tunes), folder / "mergecore"
    merges = _merges(models[0], models[1:])
    figures = {
        name: Figures(contestants.planned_memory(merge, out)) for name, merge in merges.items()
    }
    for number in range(runs):
        for name, merge in merges.items():
            contestants.settle(models, out)
            timing = contestants.by_mergecore(merge, out)
            say(f"round {number + 1} of {runs}: {name}: {timing.seconds:.2f} s")
            took, planned = timing.peak_rss_bytes, figures[name].planned_bytes
            if took > planned:
                raise DisagreementError(f"{name}: {took:,} bytes of RSS, and {planned:,} planned")
            figures[name].runs.append(timing)
            figures[name].operations = _operations(merge, out)
    contestants.settle([], out)
    print(f"\na base and {tunes} fine-tunes of {in_words(size)}, from disk to disk")
    print_table(_table(figures, peak))


def _merges(base: Checkpoint, tunes: Sequence[Checkpoint]) -> dict[str, Merge]:
    every = contestants.merges(base, tunes)
    boosted = replace(every["task_arithmetic"], modifiers=("boost:beta=0.2",))
    return {name: every[name] for name in ("iso_c", "tsv", "iso_cts")} | {"boost": boosted}


def _operations(merge: Merge, out: Path) -> float:
    """Of all tensors that were merged as matrices, by the output's manifest."""
    cost = (mergecore.modifiers()["boost"] if merge.modifiers else merge.method).cost
    tensors = json.loads((out / "mergecore.json").read_text())["tensors"]
    shapes = [sorted(tensor["shape"]) for tensor in tensors if "spectra" in tensor]
    return sum(operations(cost, short, long, len(merge.models)) for short, long in shapes)


def _table(figures: dict[str, Figures], peak: float) -> list[list[str]]:
    rows = [["method", "wall s", "CPU s", "RSS MB", "planned", "operations", "GFLOP/s", "of peak"]]
    for name, of in figures.items():
        rows.append(
            [
                name,
                seconds([run.seconds for run in of.runs]),
                seconds([run.cpu_seconds for run in of.runs]),
                f"{megabytes(max(run.peak_rss_bytes for run in of.runs))}",
                f"{megabytes(of.planned_bytes)}",
                f"{of.operations:.3g}",
                *of_peak(of.operations, [run.seconds for run in of.runs], peak),
            ]
        )
    return rows
