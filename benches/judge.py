"""How many responses a second does the rules judge read, beside zlib over the same texts?

The texts are the labelled answers of the tests. The verdicts are asserted before a time is printed.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "judge"))

from answers import answers

from mergecore.evaluate.judge import judge


def seconds(work: Callable[[], object], runs: int) -> float:
    """The best of so many runs."""
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    rows = answers("tuning") + answers("heldout")
    right = sum(judge(row.instruction, row.output).degenerate == bool(row.labels) for row in rows)
    assert right >= 0.95 * len(rows), f"{right} of {len(rows)} verdicts are right"

    judged = seconds(lambda: [judge(row.instruction, row.output) for row in rows], runs)
    packed = seconds(lambda: [zlib.compress(row.output.encode()) for row in rows], runs)
    size = sum(len(row.output) for row in rows)
    print(f"{len(rows)} responses of {size / len(rows):.0f} characters, {right} verdicts right")
    print(f"judge {len(rows) / judged:7.0f} responses/s  {size / judged / 1e6:6.2f} MB/s")
    print(f"zlib  {len(rows) / packed:7.0f} responses/s  {judged / packed:6.1f} times as fast")


if __name__ == "__main__":
    main()
