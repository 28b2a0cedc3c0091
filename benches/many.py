"""What does a further recipe over the same models cost? Beside a run of its own.

    python benches/many.py --small           seconds; what CI runs
    python benches/many.py                   1.1 B parameters, 7 GB of models and 18 GB of outputs

It makes a base and two fine-tunes (Llama-shaped, bf16) and runs k recipes of one method with other
parameters: by one `mergecore.merge_many`, and by k processes with a `mergecore.run` each. Answers
are asserted: the digests of every tensor must be the same, and `verify` finds the outputs whole.

The cost of a further recipe is (together of k - together of 1) / (k - 1), beside that of a run of
its own; "writing aside" takes from both what it costs to write as many bytes and sync them, by a
process that only does that, measured in the same round. Seconds of the clock and of the CPU are
both told: where others use the machine, or its disk is slow, those of the CPU say more. A digest of
what is written is counted as work, not as writing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import contestants
import mergecore
from agreement import DisagreementError
from contestants import FailedError, Timing, timed
from llama import FULL, SMALL, Checkpoint, family
from workspace import check_space, say, workspace

METHODS = {
    "task_arithmetic": ("lambda", 0.3, 0.1),
    "dare_ties": ("density", 0.2, 0.1),
    "ties": ("density", 0.1, 0.1),
}
"""Which parameter the recipes differ in, its first value, and how far it goes each time."""

_TOGETHER = "import json, sys, mergecore; mergecore.merge_many(*map(json.loads, sys.argv[1:]))"
_ALONE = "import json, sys, mergecore; mergecore.run(*map(json.loads, sys.argv[1:]))"
_WRITE = """
import os, sys
size, piece = int(sys.argv[2]), os.urandom(1 << 20)
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.posix_fallocate(file, 0, size)
for start in range(0, size, len(piece)):
    os.pwrite(file, piece[: size - start], start)
os.fsync(file)
os.unlink(sys.argv[1])
"""


@dataclass(frozen=True)
class Round:
    """Both ways of one method, measured in turn."""

    together: dict[int, Timing]
    """By the number of recipes."""
    alone: list[Timing]
    write: Timing

    def further(self, clock: str) -> tuple[float, float]:
        """What a further recipe costs, and a run of its own: writing aside."""
        first, last = min(self.together), max(self.together)
        span = getattr(self.together[last], clock) - getattr(self.together[first], clock)
        own = sum(getattr(one, clock) for one in self.alone) / len(self.alone)
        write = getattr(self.write, clock)
        return span / (last - first) - write, own - write


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the bench; 1 if an answer was wrong."""
    options = _options(arguments)
    size = SMALL if options.small else FULL
    size = replace(size, layers=options.layers or size.layers)
    try:
        with workspace(options.dir) as folder:
            check_space(folder, size, 4 + max(options.k))
            say(f"making 3 models of {size.parameters:,} parameters in {folder}")
            models = family(folder, size, 2)
            for method in options.method or METHODS:
                _show(method, measure(folder, models, method, sorted(options.k)))
    except (DisagreementError, FailedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def measure(folder: Path, models: Sequence[Checkpoint], method: str, counts: list[int]) -> Round:
    """Runs the method's recipes alone and together.

    Raises:
        DisagreementError: The two ways gave other bytes.
    """
    home = folder / "many"
    recipes = [_recipe(models, method, i) for i in range(max(counts))]
    alone, digests = [], []
    for request in recipes:
        contestants.settle(models, home)
        out = home / "alone"
        alone.append(
            timed([sys.executable, "-c", _ALONE, json.dumps(request), json.dumps(str(out))])
        )
        digests.append(_digests(out))
    together = {}
    for k in counts:
        contestants.settle(models, home)
        outs = [home / str(i) for i in range(k)]
        given = [json.dumps(recipes[:k]), json.dumps([str(out) for out in outs])]
        together[k] = timed([sys.executable, "-c", _TOGETHER, *given])
        for out, expected in zip(outs, digests, strict=False):
            if _digests(out) != expected or mergecore.verify(out):
                raise DisagreementError(f"{method}: {out.name} of {k} is not what it is alone")
        say(f"{method}: {k} together {together[k].seconds:.1f} s")
    contestants.settle(models, home)
    home.mkdir()
    written = sum(file.stat().st_size for file in models[0].files())
    write = timed([sys.executable, "-c", _WRITE, str(home / "written"), str(written)])
    contestants.settle([], home)
    return Round(together, alone, write)


def _recipe(models: Sequence[Checkpoint], method: str, number: int) -> dict[str, Any]:
    key, first, step = METHODS[method]
    base, *tunes = (str(model.folder) for model in models)
    return {
        "merge_method": method,
        "base_model": base,
        "models": [{"model": tune} for tune in tunes],
        "parameters": {key: round(first + step * number, 3)},
    }


def _digests(out: Path) -> dict[str, str]:
    manifest = json.loads((out / "mergecore.json").read_text())
    return {tensor["name"]: tensor["blake3"] for tensor in manifest["tensors"]}


def _show(method: str, measured: Round) -> None:
    print(f"{method}   {'seconds':>10} {'CPU s':>8}   {'apart':>8} {'CPU s':>8} {'peak MB':>9}")
    for k, timing in measured.together.items():
        apart, cpu = (
            sum(getattr(one, clock) for one in measured.alone[:k])
            for clock in ("seconds", "cpu_seconds")
        )
        print(
            f"  {k} recipes {timing.seconds:>12.2f} {timing.cpu_seconds:>8.2f}   {apart:>8.2f}"
            f" {cpu:>8.2f} {timing.peak_rss_bytes / 1e6:>9.0f}"
        )
    write = measured.write
    print(f"  writing one {write.seconds:>10.2f} {write.cpu_seconds:>8.2f}")
    if len(measured.together) > 1:
        for clock, words in (("seconds", "seconds"), ("cpu_seconds", "CPU s  ")):
            further, own = measured.further(clock)
            print(
                f"  a further one, writing aside: {further:.2f} {words}, alone {own:.2f}:"
                f" {further / own:.2f} of it"
            )
    sys.stdout.flush()


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    about, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="models of a few MB")
    parser.add_argument("--layers", type=int, metavar="N", help="instead of 22 (or 4)")
    parser.add_argument("--k", type=int, nargs="+", default=[1, 2, 4, 8], help="[1 2 4 8]")
    parser.add_argument("--method", action="append", choices=METHODS, help="only this; repeatable")
    parser.add_argument("--dir", type=Path, help="where; its models are kept  [a temporary folder]")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
