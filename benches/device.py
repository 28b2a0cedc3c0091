"""What does a device gain? Every method that has a path there, beside the engine on the CPU.

    python benches/device.py --small          seconds; what CI runs, by torch on the CPU
    python benches/device.py                  1.1 B parameters on the GPU that is there

It makes a base and two fine-tunes (Llama-shaped, bf16) and merges them by each method twice: with
the engine's own arithmetic, and with `device=`. Answers are asserted: the same bytes where a method
goes element by element, and where it looks at singular values as near as the engine's certificate.
Told are the seconds of the merge itself, without starting up (the second of two runs in a process,
inputs in the page cache), GB/s of what is read and written, and the ratio; on torch on a CPU they
say nothing about a GPU.

(It is not called torch.py: the other benches import torch, and would get this file.)
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import contestants
from agreement import DisagreementError
from contestants import FailedError
from llama import FULL, SMALL, Checkpoint, family, widened
from workspace import check_space, say, workspace

ELEMENTWISE = (
    *("linear", "slerp", "task_arithmetic", "ties", "dare_linear", "dare_ties", "model_stock"),
)
DENSE = ("tsv", "iso_c", "iso_cts", "boost")
CERTIFICATE = 1e-5

_RUN = """
import json, sys, mergecore
request, out, device = map(json.loads, sys.argv[1:])
for _ in range(2):
    report = mergecore.run(request, out, device=device, overwrite=True)
print(json.dumps({"seconds": report.seconds, "notes": report.notes,
                  "bytes": report.bytes_read + report.bytes_written}))
"""
_NAME = """
import platform, torch
print(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the bench; 1 if an answer was wrong."""
    options = _options(arguments)
    size = SMALL if options.small else FULL
    size = replace(size, layers=options.layers or size.layers)
    name = _python(_NAME)
    device = options.device or ("cpu-torch" if name == "no GPU" else "cuda")
    try:
        with workspace(options.dir) as folder:
            check_space(folder, size, 5)
            say(f"making 3 models of {size.parameters:,} parameters in {folder}")
            models = family(folder, size, 2)
            print(f"{device} ({name})")
            print(f"  {'':16} {'CPU s':>8} {'GB/s':>7} {'there s':>9} {'GB/s':>7} {'ratio':>7}")
            for method in options.method or (*ELEMENTWISE, *DENSE):
                _show(method, *measure(folder, models, method, device))
    except (DisagreementError, FailedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def measure(
    folder: Path, models: Sequence[Checkpoint], method: str, device: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Merges both ways; what the merges tell.

    Raises:
        DisagreementError: The answers differ.
    """
    home = folder / "device"
    contestants.settle(models, home)
    found = []
    for where in ("cpu", device):
        given = [json.dumps(x) for x in (_recipe(models, method), str(home / where), where)]
        found.append(json.loads(_python(_RUN, *given)))
    if not any("works out" in note for note in found[1]["notes"]):
        raise DisagreementError(f"{method}: nothing was worked out there: {found[1]['notes']}")
    _check(method, Checkpoint(home / "cpu"), Checkpoint(home / device), models[0])
    contestants.settle([], home)
    return found[0], found[1]


def _check(method: str, ours: Checkpoint, theirs: Checkpoint, base: Checkpoint) -> None:
    for name in ours:
        where = np.flatnonzero(ours[name] != theirs[name])
        if method in ELEMENTWISE:
            if where.size:
                raise DisagreementError(f"{method}, {name}: {where.size} elements differ")
            continue
        one, other, start = (widened(x[name]).astype(np.float64) for x in (ours, theirs, base))
        # Of the change, in bf16: a number that lay on the edge may be rounded to either side.
        allowed = CERTIFICATE * np.linalg.norm(one - start) + 2.0**-7 * np.linalg.norm(one[where])
        if np.linalg.norm(one - other) > allowed:
            raise DisagreementError(f"{method}, {name}: not within the certificate")


def _recipe(models: Sequence[Checkpoint], method: str) -> dict[str, Any]:
    base, *tunes = (str(model.folder) for model in models)
    request: dict[str, Any] = {"merge_method": method, "models": [{"model": t} for t in tunes]}
    if method == "slerp":
        return {**request, "parameters": {"t": 0.4}}
    if method == "boost":
        request |= {"merge_method": "task_arithmetic", "modifiers": ["boost"]}
    return request if method == "linear" else {**request, "base_model": base}


def _python(script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FailedError(done.stderr.strip().splitlines()[-1])
    return done.stdout.strip()


def _show(method: str, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    speeds = [told["bytes"] / told["seconds"] / 1e9 for told in (ours, theirs)]
    print(
        f"  {method:16} {ours['seconds']:>8.2f} {speeds[0]:>7.2f} {theirs['seconds']:>9.2f}"
        f" {speeds[1]:>7.2f} {ours['seconds'] / theirs['seconds']:>6.2f}x"
    )
    sys.stdout.flush()


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    about, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="models of a few MB")
    parser.add_argument("--layers", type=int, metavar="N", help="instead of 22 (or 4)")
    parser.add_argument("--device", help="cuda, cuda:N or cpu-torch  [a GPU if there is one]")
    every = (*ELEMENTWISE, *DENSE)
    parser.add_argument("--method", action="append", choices=every, help="only this; repeatable")
    parser.add_argument("--dir", type=Path, help="where; its models are kept  [a temporary folder]")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
