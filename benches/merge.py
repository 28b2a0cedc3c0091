"""How fast is a merge, and how much memory does it take? Beside mergekit and beside raw I/O.

    python benches/merge.py --small                      seconds; what CI runs
    python benches/merge.py --mergekit /path/to/env      1.1 B parameters, half an hour, 11 GB
    python benches/merge.py --large --layers 4           of 70 B: 4 of its 80 layers, 32 GB

It makes a base and its fine-tunes (Llama-shaped, bf16), and by every registered method merges them
in turn with mergecore and with mergekit, next to `cat`, `cp` and `sync` of the same files. Answers
are asserted: the two must agree, and a model of ten times the layers must take no more memory.
Times are printed, and never asserted.

Runs interleave, inputs are in the page cache if it can hold them, and nothing else waits to be
written. mergecore syncs its output before it is done; mergekit does not, and is not charged for it.
Peak RSS counts the pages of mapped files, which mergekit has.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import agreement
import contestants
import mergecore
from agreement import DisagreementError
from contestants import FailedError, Mergekit, RawIO
from figures import Bench, Figures, machine, megabytes, show
from llama import FULL, LARGE, SMALL, Checkpoint, Size, family
from workspace import check_space, say, workspace


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the bench; 1 if an answer was wrong."""
    options = _options(arguments)
    size = SMALL if options.small else LARGE if options.large else FULL
    size = replace(size, layers=options.layers or size.layers)
    try:
        mergekit = Mergekit(options.mergekit) if options.mergekit else None
        with workspace(options.dir) as folder:
            bench = run(folder, size, options.models, options.runs, mergekit, options.method)
    except (DisagreementError, FailedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(bench.json(), indent=2))
    else:
        show(bench)
    return 0


def run(
    folder: Path, size: Size, tunes: int, runs: int, mergekit: Mergekit | None, only: Sequence[str]
) -> Bench:
    """Measures in `folder`, and checks the answers of the first round."""
    check_space(folder, size, tunes + 3)
    where = machine(folder)
    say(f"making {tunes + 1} models of {size.parameters:,} parameters in {folder}")
    models = family(folder, size, tunes)
    merges = contestants.merges(models[0], models[1:])
    merges = {method: merges[method] for method in only or merges}
    figures = {method: Figures(len(merge.inputs)) for method, merge in merges.items()}
    raw: list[RawIO] = []
    ours, theirs = folder / "mergecore", folder / "mergekit"
    for number in range(runs):
        contestants.settle(models, ours, theirs)
        raw.append(contestants.raw_io(models, folder / "copy"))
        for method, merge in merges.items():
            contestants.settle(models, ours, theirs)
            figures[method].mergecore.append(contestants.by_mergecore(merge, ours))
            if mergekit and agreement.has_counterpart(merge):
                contestants.settle(models)
                figures[method].mergekit.append(mergekit(merge, theirs))
            say(f"round {number + 1} of {runs}: {method}: {figures[method].last()}")
            if number == 0:
                other = Checkpoint(theirs) if figures[method].mergekit else None
                figures[method].answer = agreement.check(merge, Checkpoint(ours), other)
    contestants.settle([], ours, theirs)
    flat = {method: flat_memory(folder, method) for method in merges}
    return Bench(where, size, len(models), raw, figures, flat)


def flat_memory(folder: Path, method: str) -> tuple[int, int]:
    """The peak RSS for a small model and for one of ten times the layers.

    Raises:
        DisagreementError: It grew by more than a fifth of what the files did. These layers are so
            small that what is kept of each tensor (8 to 11 KB: plan, manifest) is a fifteenth.
    """
    peaks, moved = [], []
    for size in (SMALL, replace(SMALL, layers=10 * SMALL.layers)):
        base, *tunes = family(folder, size, 2)
        merge = contestants.merges(base, tunes)[method]
        out = folder / "flat"
        peaks.append(min(contestants.by_mergecore(merge, out).peak_rss_bytes for _ in _again(out)))
        moved.append(2 * size.parameters * (1 + len(merge.inputs)))
    if peaks[1] - peaks[0] > (moved[1] - moved[0]) / 5:
        short, tall = (megabytes(peak) for peak in peaks)
        raise DisagreementError(f"{method}: {short} MB of RSS, and {tall} with 10 times the layers")
    return peaks[0], peaks[1]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    about, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="models of a few MB")
    parser.add_argument("--large", action="store_true", help="tensors of a 70 B model")
    parser.add_argument("--layers", type=int, metavar="N", help="instead of 22 (4, 80)")
    parser.add_argument("--models", default=2, type=int, metavar="N", help="fine-tunes  [2]")
    parser.add_argument("--runs", default=3, type=int, metavar="N", help="rounds  [3]")
    parser.add_argument("--method", action="append", default=[], help="only this one; repeatable")
    parser.add_argument("--dir", type=Path, help="where; its models are kept  [a temporary folder]")
    parser.add_argument(
        "--mergekit",
        type=Path,
        metavar="PATH",
        default=os.environ.get("MERGEKIT") or None,
        help="an environment that has mergekit, or its python  [$MERGEKIT]",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    for method in options.method:
        if method not in mergecore.methods():
            parser.error(f"--method {method}: choose from {', '.join(mergecore.methods())}")
    for name, least in (("models", 2), ("runs", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name} must be {least} or more")
    return options


def _again(out: Path) -> Iterator[None]:
    """Three times, with `out` gone after each: the least of three peaks is the work's own."""
    for _ in range(3):
        yield
        shutil.rmtree(out)


if __name__ == "__main__":
    sys.exit(main())
