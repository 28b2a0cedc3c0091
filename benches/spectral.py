"""How fast are the methods by singular values? Beside their authors' formulas in torch.linalg.svd.

    python benches/spectral.py --small            seconds; what CI runs
    python benches/spectral.py                    4096 x 14336, a quarter of an hour, 8 GB
    python benches/spectral.py --model --small    seconds
    python benches/spectral.py --model            1.1 B parameters, over half an hour, 9 GB of disk

One float32 matrix is merged in memory by Iso-C, Subspace Boosting and TSV-Merge, with mergecore and
with torch in turn, on as many threads and in one process; or whole models are, from disk to disk.
Answers are asserted: the two changes of the base must agree, with --exact mergecore's and that of
SVDs in float64, too; and a whole model's peak RSS must be within what was planned. Times are
printed, and never asserted.

GFLOP/s are the operations that `mergecore methods` states, over the whole time; the peak is torch's
product of two float64 matrices. To torch TSV-Merge is N + 2 SVDs: above --torch-tsv-models models
it is counted, as the time with fewer and that of one SVD for each of the others, and the answer
that is compared is that of a quarter of the rows and columns. "beside MB" is the most memory that
a call took beside its inputs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import gemm
import whole_model
from agreement import DisagreementError
from contestants import FailedError
from figures import about, machine
from llama import FULL, SMALL
from one_matrix import Bench
from workspace import workspace


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the bench; 1 if an answer was wrong."""
    options = _options(arguments)
    threads = _threads()
    torch.set_num_threads(threads)
    where = machine(Path.cwd())
    peak = gemm.peak(1024 if options.small else 4096)
    print(f"{about(where)}\n{threads} threads; f64 products at {peak / 1e9:.1f} GFLOP/s, the peak")
    try:
        if options.model:
            with workspace(options.dir) as folder:
                size = SMALL if options.small else FULL
                for tunes in options.models:
                    whole_model.run(folder, size, tunes, options.runs, peak)
        else:
            rows, columns = (256, 700) if options.small else (4096, 14336)
            bench = Bench(
                options.rows or rows,
                options.columns or columns,
                options.runs,
                options.torch_tsv_models,
                options.exact,
                peak,
            )
            bench.run(options.models)
    except (DisagreementError, FailedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    about, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    parser.add_argument("--small", action="store_true", help="seconds; all is run, and exact")
    parser.add_argument("--model", action="store_true", help="whole models, instead of one matrix")
    parser.add_argument("--rows", **number, help="[4096, small 256]")
    parser.add_argument("--columns", **number, help="[14336, small 700]")
    parser.add_argument("--models", **number, nargs="+", help="[2 8, of whole models 2]")
    parser.add_argument("--runs", **number, default=1, help="rounds  [1]")
    parser.add_argument(
        "--torch-tsv-models", **number, help="the most with which it is run, not counted  [2]"
    )
    parser.add_argument("--exact", action="store_true", help="compare with SVDs in float64, too")
    parser.add_argument("--dir", type=Path, help="where; its models are kept  [a temporary folder]")
    options = parser.parse_args(arguments)
    options.models = models = options.models or ([2] if options.model else [2, 8])
    if options.torch_tsv_models is None:
        options.torch_tsv_models = max(models) if options.small else 2
    options.exact |= options.small
    if min(models) < 1 or options.runs < 1:
        parser.error("--models and --runs must be 1 or more")
    if min(models) > options.torch_tsv_models and not options.model:
        parser.error(f"--torch-tsv-models {min(models)} or more: there is nothing to count from")
    return options


def _threads() -> int:
    """As many as mergecore takes."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
