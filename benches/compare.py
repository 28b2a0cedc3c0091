"""How fast does `mergecore compare` read? Beside `cat` of the same files.

    python benches/compare.py --small        seconds; what CI runs
    python benches/compare.py                a base and 4 fine-tunes of 1.1 B parameters, 11 GB

Whole processes from the page cache, in turn with `cat`. The answer is asserted: norms, cosines and
sign changes of one tensor must be those that NumPy finds. Times and memory are printed, and never
asserted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import contestants
from agreement import DisagreementError
from contestants import FailedError, timed
from figures import about, in_words, machine, megabytes, print_table, seconds
from llama import FULL, SMALL, Checkpoint, Size, family, widened
from workspace import check_space, say, workspace

_TENSOR = "model.layers.1.mlp.up_proj.weight"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the bench; 1 if an answer was wrong."""
    options = _options(arguments)
    print(about(machine(Path.cwd())))
    try:
        with workspace(options.dir) as folder:
            size = SMALL if options.small else FULL
            rows = [["models", "compare s", "CPU s", "RSS MB", "cat s", "ratio"]]
            rows += [_row(folder, size, count, options.runs) for count in options.models]
            print(f"\na base and its fine-tunes of {in_words(size)}")
            print_table(rows)
    except (DisagreementError, FailedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _row(folder: Path, size: Size, tunes: int, runs: int) -> list[str]:
    check_space(folder, size, tunes + 1)
    say(f"making {tunes + 1} models of {size.parameters:,} parameters in {folder}")
    models = family(folder, size, tunes)
    command = [sys.executable, "-m", "mergecore", "compare", "--json"]
    command += [str(model.folder) for model in models[1:]]
    command += ["--base", str(models[0].folder)]
    _check(command, models)
    files = [str(file) for model in models for file in model.files()]
    ours, raw = [], []
    for number in range(runs):
        contestants.settle(models)
        raw.append(timed(["sh", "-c", 'cat "$@" > /dev/null', "sh", *files]))
        ours.append(timed(command))
        say(f"round {number + 1} of {runs}: compare {ours[-1].seconds:.2f} s")
    ratio = statistics.median(
        mine.seconds / theirs.seconds for mine, theirs in zip(ours, raw, strict=True)
    )
    return [
        str(tunes),
        seconds([run.seconds for run in ours]),
        seconds([run.cpu_seconds for run in ours]),
        f"{megabytes(max(run.peak_rss_bytes for run in ours))}",
        seconds([run.seconds for run in raw]),
        f"{ratio:.2f}x",
    ]


def _check(command: Sequence[str], models: Sequence[Checkpoint]) -> None:
    done = subprocess.run([*command, "--tensors"], capture_output=True, text=True)
    if done.returncode != 0:
        raise FailedError(f"{' '.join(command)} failed: {done.stderr}")
    told: dict[str, Any] = next(
        t for t in json.loads(done.stdout)["tensors"] if t["name"] == _TENSOR
    )
    base, *tunes = (widened(model[_TENSOR]).ravel().astype(np.float64) for model in models)
    deltas = [tune - base for tune in tunes]
    for i, one in enumerate(deltas):
        _demand(told["norms"][i], float(np.linalg.norm(one)), "norm")
        for j in range(i + 1, len(deltas)):
            other = deltas[j]
            cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
            _demand(told["cosine"][i][j], float(cosine), "cosine")
            _demand(told["sign_change"][i][j], float((one * other < 0).mean()), "sign change")


def _demand(got: float, want: float, what: str) -> None:
    if abs(got - want) > 1e-6 * max(abs(want), 1e-3):
        raise DisagreementError(f"{_TENSOR}: the {what} is {got}, and NumPy's {want}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    words, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=words, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="seconds")
    parser.add_argument("--models", type=int, nargs="+", metavar="N", help="fine-tunes  [4]")
    parser.add_argument("--runs", type=int, metavar="N", help="rounds  [3, small 1]")
    parser.add_argument("--dir", type=Path, help="where; its models are kept  [a temporary folder]")
    options = parser.parse_args(arguments)
    options.models = options.models or [4]
    options.runs = options.runs or (1 if options.small else 3)
    return options


if __name__ == "__main__":
    sys.exit(main())
