"""How many instructions does an element take? Counted under callgrind: no neighbour disturbs it.

    python benches/instructions.py            compares; 1 if a count has grown by 5 % or more
    python benches/instructions.py --write    writes benches/instructions.json again

The counts are those of one compiler on one width of vectors: another rustc, or a processor without
AVX2, is told and compared with nothing. Skipped where valgrind is missing. What is run is
benches/instructions/main.rs, on the engine as it is shipped, each piece of work once and three
times: the difference is the work, without what goes before it.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TABLE = Path(__file__).with_suffix(".json")
TOLERANCE = 0.05


def main(arguments: Sequence[str] | None = None) -> int:
    """Counts, prints, and compares or writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--write", action="store_true", help="write the table again")
    parser.add_argument("--jobs", type=int, default=2, help="counted at a time  [2]")
    options = parser.parse_args(arguments)
    missing = [tool for tool in ("valgrind", "cargo") if shutil.which(tool) is None]
    if missing:
        print(f"skipped: {missing[0]} is not installed (apt-get install valgrind)")
        return 0
    program = _built()
    known = json.loads(TABLE.read_text("utf-8")) if TABLE.is_file() else {}
    now: dict[str, Any] = {"about": _about(), "per_element": {}}
    named = [line.split("\t") for line in _said([program]).splitlines()]
    with ThreadPoolExecutor(options.jobs) as pool:
        counted = pool.map(lambda entry: _per_element(program, entry[0], int(entry[1])), named)
        now["per_element"] = dict(zip([name for name, _ in named], counted, strict=True))
    differs = _difference(known.get("about", {}), now["about"])
    before = {} if differs else known["per_element"]
    grown = _shown(now["per_element"], before)
    if options.write:
        TABLE.write_text(json.dumps(now, indent=2) + "\n", "utf-8")
        print(f"written: {TABLE.name}")
        return 0
    if differs:
        print(f"not compared: {differs}")
        return 0
    if grown or set(before) != set(now["per_element"]):
        odd = grown or sorted(set(before) ^ set(now["per_element"]))
        print(
            f"error: {', '.join(odd)}: not as in {TABLE.name}; if so meant, --write",
            file=sys.stderr,
        )
        return 1
    return 0


def _built() -> str:
    """The program, built if need be."""
    command = ["cargo", "build", "--locked", "--release", "--package", "instructions"]
    command += ["--message-format", "json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    messages = map(json.loads, done.stdout.splitlines())
    (program,) = {m["executable"] for m in messages if m.get("executable")}
    return str(program)


def _said(command: list[str]) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def _about() -> dict[str, str]:
    """What besides the code decides a count."""
    return {
        "rustc": _said(["rustc", "--version"]).split()[1],
        "vectors": _vectors(),
    }


def _vectors() -> str:
    """The widest that valgrind gives the program: AVX2, where the processor has it."""
    try:
        flags = set(re.findall(r"\w+", Path("/proc/cpuinfo").read_text("utf-8")))
    except OSError:
        return "unknown"
    return "avx2" if {"avx2", "fma", "f16c"} <= flags else "baseline"


def _per_element(program: str, name: str, elements: int) -> float:
    once, thrice = (_count([program, name, times]) for times in ("1", "3"))
    return round((thrice - once) / 2 / elements, 3)


def _count(command: list[str]) -> int:
    watched = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *command]
    said = subprocess.run(watched, capture_output=True, text=True, check=True).stderr
    return int(re.findall(r"Collected : (\d+)", said)[0])


def _difference(known: dict[str, str], now: dict[str, str]) -> str:
    """Why two tables cannot be compared; nothing if they can."""
    differing = [key for key in now if known.get(key) != now[key]]
    said = [f"{key} is {now[key]}, and the table is of {known.get(key)}" for key in differing]
    return "; ".join(said)


def _shown(now: dict[str, float], before: dict[str, float]) -> list[str]:
    """Prints the table; the names of those that have grown."""
    odd = []
    for name, count in now.items():
        change = count / before[name] - 1 if name in before else None
        print(
            f"{name:18} {count:>9.2f} an element" + ("" if change is None else f"  {change:+.1%}")
        )
        if change is not None and change > TOLERANCE:
            odd.append(name)
    return odd


if __name__ == "__main__":
    sys.exit(main())
