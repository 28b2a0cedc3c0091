"""`mergecore verify`: is a merged model still what its manifest says?"""

from __future__ import annotations

import json
import sys
import time

import click

from mergecore import _mergecore
from mergecore.cli import options, terminal


@click.command()
@click.argument("folder", metavar="DIR")
@click.option("--threads", type=click.IntRange(min=1), help="Threads  [all cores]")
@options.printing
def verify(folder: str, threads: int | None, as_json: bool, quiet: bool) -> int:
    """Check a merged model against its manifest, mergecore.json.

    Prints one line if every byte is as it was written; else the problems, with exit status 1.
    """
    start = time.perf_counter()
    with terminal.progress("verifying", shown=not (as_json or quiet)) as progress:
        found = json.loads(_mergecore.verify(folder, threads, progress))
    found["seconds"] = time.perf_counter() - start
    if as_json:
        terminal.object_as_json(found)
    elif found["ok"]:
        if not quiet:
            rate = found["bytes"] / 1e9 / max(found["seconds"], 1e-9)
            terminal.say(
                f"ok: {terminal.plural(found['tensors'], 'tensor')} in "
                f"{terminal.plural(found['files'], 'file')}, "
                f"{terminal.size(found['bytes'])}, {found['seconds']:.2f} s, {rate:.2f} GB/s"
            )
    else:
        for problem in found["problems"]:
            terminal.say(f"error: {terminal.plain(problem)}", err=True)
    sys.stdout.flush()
    return 0 if found["ok"] else 1
