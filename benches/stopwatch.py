"""Runs one command and prints what it took, as one JSON object: seconds, CPU seconds, peak RSS.

It is a program of its own because Linux lets a child's peak RSS begin at that of the process that
it was forked from: started by a parent that holds a gigabyte of NumPy arrays, every command seems
to hold a gigabyte. This one holds ten megabytes.
"""

from __future__ import annotations

import json
import os
import sys
import time


def main(command: list[str]) -> None:
    """Runs the command with its output on stderr, since stdout is for the answer."""
    start = time.perf_counter()
    actions = [(os.POSIX_SPAWN_DUP2, 2, 1)]
    child = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
    _, status, usage = os.wait4(child, 0)
    answer = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_rss_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "status": os.waitstatus_to_exitcode(status),
    }
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
