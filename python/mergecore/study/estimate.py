"""What will a sweep take? Disk and time, told before the first byte is written."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

from mergecore._mergecore import free_space
from mergecore.errors import ModelError, ModelNotFoundError, SpaceError
from mergecore.study.forecast import planned
from mergecore.study.spec import Configuration
from mergecore.study.work import Work


@dataclass(frozen=True)
class Estimate:
    """Of what is left to do."""

    configurations: int
    left: int
    merges: int
    """Different merges that are still to be made."""
    bytes_to_read: int
    bytes_to_write: int
    disk: int
    """The most that is on the disk at a time."""
    free: int
    memory: int
    """The most that a merge takes."""
    seconds: float | None
    """By what the finished configurations took; None if there are none yet."""
    impossible: dict[str, str]
    """Configurations whose models are not to be had or do not fit together, and why."""


def estimate(work: Work) -> Estimate:
    """Plans every merge that is still to be made; headers are read, nothing more.

    Raises:
        RecipeError: A recipe is wrong.
    """
    found: dict[str, tuple[int, int, int]] = {}
    took, left, impossible = [], 0, {}
    for configuration in work.sweep.configurations:
        try:
            seconds = _took(work, configuration)
            if seconds is not None:
                took.append(seconds)
                continue
            left += 1
            merge = work.merge(configuration)
            wanted = work.needs_weights(configuration)
            if merge is not None and wanted and merge.stem not in found:
                reads, writes, memory = planned(configuration)
                writes = 0 if work.streams(configuration) else writes
                found[merge.stem] = (reads, writes, memory)
        except (ModelError, ModelNotFoundError) as error:
            impossible[configuration.name] = str(error)
    writing = [entry[1] for entry in found.values()]
    together = sum(sorted(writing)[-work.sweep.together :])
    free = free_space(str(Path(work.run).absolute()))
    return Estimate(
        len(work.sweep.configurations),
        left,
        len(found),
        sum(entry[0] for entry in found.values()),
        sum(writing),
        sum(writing) if work.sweep.keep else max(max(writing, default=0), min(together, free // 2)),
        free,
        max((entry[2] for entry in found.values()), default=0),
        left * statistics.mean(took) if took else None,
        impossible,
    )


def check_space(told: Estimate) -> None:
    """Refuses to begin what the disk cannot hold.

    Raises:
        SpaceError: It cannot.
    """
    if told.free < told.disk:
        raise SpaceError(
            f"merged weights take {told.disk:,} bytes at a time, and {told.free:,} are free; give"
            " another --out"
        )


def _took(work: Work, configuration: Configuration) -> float | None:
    """How long a finished configuration took; None if it is not finished."""
    merge = work.note(work.merge(configuration))
    if configuration.model is None and not merge:
        return None
    total = float(merge.get("seconds", 0))
    if work.needs_weights(configuration):
        return None
    of_answers = (
        work.answers(configuration),
        work.rewards(configuration),
        work.verdicts(configuration),
    )
    files = [(file, work.prompts) for file in of_answers if file is not None]
    tasks = work.tasks(configuration)
    files += [(tasks, [])] if tasks is not None else []
    if not all(work.is_whole(file, wanted) for file, wanted in files):
        return None
    return total + sum(float(work.note(file)["seconds"]) for file, _ in files)
