"""How is a sweep spread over processes of this machine? One configuration after the other each.

Small models leave most of a machine idle; large ones fill it, and take one process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
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
    waiting = groups(work, configurations)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    failed: dict[str, str] = {}
    # Not forked: threads of torch and of the engine do not survive it.
    context = multiprocessing.get_context("spawn")
    begin = (work.sweep, work.run, threads)
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=begin)
    try:
        given = {pool.submit(_configurations, group): group for group in waiting}
        for number, done in enumerate(as_completed(given), start=1):
            group = given[done]
            try:
                reasons = done.result()
            except Exception as error:  # a process that was killed
                reasons = {c.name: in_one_line(error) for c in group}
            failed |= reasons
            for configuration in group:
                reason = reasons.get(configuration.name)
                said = f"failed: {reason}" if reason else "done"
                tell(f"[{number}/{len(given)}] {configuration.name}: {said}")
    finally:
        pool.shutdown(cancel_futures=True)
    return failed


def _begin(sweep: Sweep, place: Path, threads: int) -> None:
    from mergecore.study.sweep import judge_of

    os.environ["RAYON_NUM_THREADS"] = str(threads)
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(threads)
    _work.append(Work(sweep, place, judge_of(sweep.judging)))


def _configurations(group: list[Configuration]) -> dict[str, str]:
    from mergecore.study.sweep import everything

    return everything(_work[0], group, lambda _: None)
