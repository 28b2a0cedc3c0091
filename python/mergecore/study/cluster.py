"""How is a sweep spread over a cluster? One task of Ray for each configuration, on any node.

Results lie in the run's folder, which all nodes share; a node that dies costs the rows it was at
work on, and its tasks are done again elsewhere.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mergecore.evaluate.backends import need
from mergecore.study.spec import Configuration, Sweep
from mergecore.study.work import Work, in_one_line

_RETRIES = 4
"""How often a configuration is tried on another node when one dies."""


def run(
    work: Work,
    configurations: Sequence[Configuration],
    memory: int,
    address: str | None,
    tell: Callable[[str], Any],
) -> dict[str, str]:
    """Runs the configurations on a cluster.

    Args:
        work: What is to be run, what of a node each configuration takes, and the run's folder.
        configurations: Those that are to be run.
        memory: What a merge takes, for a sweep that does not say what a configuration does.
        address: The cluster's; one on this machine if None, unless this process has one already.
        tell: Is told what is done now.

    Returns:
        Why some failed, by name.
    """
    need("ray", "ray")
    import ray

    begun = not ray.is_initialized()
    if begun:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        wants = work.sweep.resources
        options: dict[str, Any] = {"num_cpus": wants.cpus, "num_gpus": wants.gpus}
        options |= {"memory": wants.memory or memory or None, "max_retries": _RETRIES}
        task = ray.remote(_configurations).options(**options)
        here = work.run.absolute()
        waiting = {
            task.remote(work.sweep, here, group, os.getcwd()): group
            for group in groups(work, configurations)
        }
        return _awaited(waiting, len(waiting), tell)
    finally:
        if begun:
            ray.shutdown()


def _awaited(
    waiting: dict[Any, list[Configuration]], count: int, tell: Callable[[str], Any]
) -> dict[str, str]:
    import ray

    failed: dict[str, str] = {}
    while waiting:
        finished, _ = ray.wait(list(waiting), num_returns=1)
        group = waiting.pop(finished[0])
        try:
            reasons = ray.get(finished[0])
        except Exception as error:  # a node that died too often, or a worker that was killed
            reasons = {c.name: in_one_line(error) for c in group}
        failed |= reasons
        for configuration in group:
            reason = reasons.get(configuration.name)
            said = f"failed: {reason}" if reason else "done"
            tell(f"[{count - len(waiting)}/{count}] {configuration.name}: {said}")
    return failed


def groups(work: Work, configurations: Sequence[Configuration]) -> list[list[Configuration]]:
    """Configurations of the same weights are one task: they share their files."""
    found: dict[str, list[Configuration]] = {}
    for configuration in configurations:
        found.setdefault(work.weights(configuration), []).append(configuration)
    return list(found.values())


def _configurations(
    sweep: Sweep, place: Path, group: list[Configuration], folder: str
) -> dict[str, str]:
    """What a node does."""
    from mergecore.study.sweep import everything, judge_of

    with contextlib.suppress(OSError):
        os.chdir(folder)  # paths in the sweep are relative to where it was begun
    return everything(Work(sweep, place, judge_of(sweep.judging)), group, lambda _: None)
