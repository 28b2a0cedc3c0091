"""How is a sweep spread over processes of this machine? One configuration after the other each.

Small models leave most of a machine idle; large ones fill it, and take one process.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from mergecore.study.cluster import groups
from mergecore.study.spec import Configuration, Sweep
from mergecore.study.work import Work, in_one_line

_work: list[Work] = []
"""Of this process, when it is one of a pool's: the reward model is loaded once for all."""


def run(
    work: Work, configurations: Sequence[Configuration], jobs: int, tell: Callable[[str], Any]
) -> dict[str, str]:
    """Runs the configurations in so many processes at a time.

    Returns:
        Why some failed, by name.
    """
    left = groups(work, configurations)
    count, failed = len(left), dict[str, str]()
    finished = itertools.count(1)

    def report(group: list[Configuration], reasons: dict[str, str]) -> None:
        failed.update(reasons)
        number = next(finished)
        for configuration in group:
            reason = reasons.get(configuration.name)
            said = f"failed: {reason}" if reason else "done"
            tell(f"[{number}/{count}] {configuration.name}: {said}")

    while left:
        left = _pooled(work, left, jobs, report)
        # A process was killed, and with it the pool. Those that were at work then are tried alone:
        # whoever kills it again has failed, and the others go on.
        suspects, left = left[:jobs], left[jobs:]
        for group in suspects:
            if _pooled(work, [group], 1, report):
                reason = "its process was killed (out of memory?)"
                report(group, {c.name: reason for c in group})
    return failed


def _pooled(
    work: Work,
    waiting: Sequence[list[Configuration]],
    jobs: int,
    report: Callable[[list[Configuration], dict[str, str]], Any],
) -> list[list[Configuration]]:
    """Runs groups in one pool; gives back those that were not done when a process was killed."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    # Not forked: threads of torch and of the engine do not survive it.
    context = multiprocessing.get_context("spawn")
    begin = (work.sweep, work.run, threads)
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=begin)
    lost = []
    try:
        given = {pool.submit(_configurations, group): group for group in waiting}
        for done in as_completed(given):
            try:
                reasons = done.result()
            except BrokenProcessPool:
                lost.append(given[done])
                continue
            except Exception as error:
                reasons = {c.name: in_one_line(error) for c in given[done]}
            report(given[done], reasons)
    finally:
        pool.shutdown(cancel_futures=True)
    return [group for group in waiting if group in lost]


def _begin(sweep: Sweep, place: Path, threads: int) -> None:
    from mergecore.study.sweep import judge_of

    os.environ["RAYON_NUM_THREADS"] = str(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(threads)
    _work.append(Work(sweep, place, judge_of(sweep.judging)))


def _end_with_parent() -> None:
    """A killed parent has no time to end its pool, and the next run must not meet its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _configurations(group: list[Configuration]) -> dict[str, str]:
    from mergecore.study.sweep import everything

    return everything(_work[0], group, lambda _: None)
