"""In what order is a sweep run? Merges and answers first, then the reward model once for all.

A configuration that fails is a row of the table, and the others go on.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mergecore import __version__
from mergecore.errors import OutputExistsError, RecipeError
from mergecore.evaluate.backends import need
from mergecore.evaluate.judge import choice
from mergecore.study import estimate as estimates
from mergecore.study import table
from mergecore.study.spec import Configuration, Judging, Sweep
from mergecore.study.work import Work, in_one_line

Step = Callable[[Configuration, Callable[[str], Any]], None]


@dataclass(frozen=True)
class Swept:
    """What a sweep came to."""

    out: str
    configurations: int
    failed: dict[str, str]
    """Why, by name."""
    table: str
    seconds: float


def run(
    sweep: Sweep,
    out: str | Path,
    *,
    store: str | Path | None = None,
    engine: str = "local",
    address: str | None = None,
    jobs: int = 1,
    announce: Callable[[str], Any] | None = None,
    foresee: Callable[[estimates.Estimate], Any] | None = None,
) -> Swept:
    """Runs whatever of a sweep is not there yet, and writes its table.

    Args:
        sweep: What is to be run.
        out: The run's folder; the same call goes on after an interruption.
        store: Where results lie, if several runs share them; OUT itself if None.
        engine: `local`, or `ray` for a cluster whose nodes share the folder.
        address: The cluster's, for ray; one on this machine if None.
        jobs: Configurations at a time, each in a process of its own, without a cluster.
        announce: Is told what is done now.
        foresee: Is told what it will take, before anything is done.

    Returns:
        Where the table is, and what failed.

    Raises:
        RecipeError: The sweep says what cannot be done, or a package is missing.
        SpaceError: The disk is too small.
        OutputExistsError: Another process is at work on the folder.
    """
    need("pyarrow", "report")
    begun = time.perf_counter()
    tell = announce or (lambda _: None)
    place = Path(out).expanduser()
    shared = place if store is None else Path(store).expanduser()
    with _held(shared):
        place.mkdir(parents=True, exist_ok=True)
        work = Work(sweep, shared, judge_of(sweep.judging))
        told = estimates.estimate(work)
        if foresee is not None:
            foresee(told)
        estimates.check_space(told)
        failed = dict(told.impossible)
        left = [c for c in sweep.configurations if c.name not in failed]
        if engine == "ray":
            from mergecore.study import cluster

            failed |= cluster.run(work, left, told.memory, address, tell)
        elif jobs > 1 and told.left > 1:
            from mergecore.study import pool

            failed |= pool.run(work, left, jobs, tell)
        else:
            try:
                failed |= everything(work, left, tell)
            finally:
                gc.unfreeze()  # what `Work` froze for the sweep's time
        failed |= _unanswered(work, failed)
        if not sweep.keep:
            # What an interrupted run has left.
            shutil.rmtree(shared / "weights", ignore_errors=True)
        file = table.write(work, failed, place / "results.parquet")
        about = {"mergecore": __version__, "name": sweep.name, **_provenance(work, failed)}
        about["store"] = os.path.relpath(shared, place)
        text = json.dumps(about, indent=2, ensure_ascii=False, default=str) + "\n"
        (place / "run.json").write_text(text, "utf-8")
    seconds = time.perf_counter() - begun
    return Swept(str(out), len(sweep.configurations), failed, str(file), seconds)


def everything(
    work: Work, configurations: Sequence[Configuration], tell: Callable[[str], Any]
) -> dict[str, str]:
    """All stages of these configurations; why some failed, by name."""
    failed: dict[str, str] = {}
    for step in (work.make, work.test, work.score, work.judge_it):
        left = [c for c in configurations if c.name not in failed]
        for number, configuration in enumerate(left, start=1):
            title = f"[{number}/{len(left)}] {configuration.name}"
            if step == work.make:
                work.merge_ahead(left[number - 1 :], _titled(title, tell))
            if reason := _tried(step, configuration, title, tell):
                failed[configuration.name] = reason
        if step == work.make:
            work.serving.check(tell)
        failed |= _distrusted(work, configurations, failed, tell)
    return failed


def _distrusted(
    work: Work,
    configurations: Sequence[Configuration],
    failed: Mapping[str, str],
    tell: Callable[[str], Any],
) -> dict[str, str]:
    """Those whose answers were deleted, since the engine that gave them lost its weights."""
    found = {}
    for configuration in configurations:
        if work.distrusted and configuration.name not in failed:
            reason = work.distrusted.get(work.weights(configuration))
            if reason is not None:
                found[configuration.name] = reason
                tell(f"{configuration.name}: failed: {reason}")
    return found


def _unanswered(work: Work, failed: Mapping[str, str]) -> dict[str, str]:
    """Those that were done by another process, which has deleted what they answered since."""
    found = {}
    for configuration in work.sweep.configurations:
        if configuration.name not in failed:
            file = work.answers(configuration)
            if file is not None and not work.is_whole(file, work.prompts):
                found[configuration.name] = "its answers are not there any more: run it again"
    return found


def _titled(title: str, tell: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda what: tell(f"{title}: {what}")


def judge_of(said: Judging | None) -> Any:
    """Who judges.

    Raises:
        RecipeError: The language model is not named.
    """
    if said is None:
        return None
    if said.who == "rules":
        return choice.rules()
    if said.model is None:
        raise RecipeError("judge: who: openai needs model: the name on the server")
    limits = (said.prices, said.max_cost, said.concurrency)
    return choice.language_model(said.model, said.url, *limits)[0]


def _tried(
    step: Step, configuration: Configuration, title: str, tell: Callable[[str], Any]
) -> str | None:
    """Does a step; says in one line why it failed."""
    try:
        step(configuration, _titled(title, tell))
    except Exception as error:  # whatever it is, the other configurations are to be run
        reason = in_one_line(error)
        tell(f"{title}: failed: {reason}")
        return reason
    return None


def _provenance(work: Work, failed: dict[str, str]) -> dict[str, Any]:
    """Where everything of the run lies, and what it was made with."""
    by_reference = {c.model: c.name for c in work.sweep.configurations if c.model is not None}
    found = []
    for configuration in work.sweep.configurations:
        entry: dict[str, Any] = {"name": configuration.name, "point": configuration.point}
        entry["parents"] = [by_reference[p] for p in configuration.parents if p in by_reference]
        if configuration.name in failed:
            entry["error"] = failed[configuration.name]
        else:
            files = {
                "answers": work.answers(configuration),
                "rewards": work.rewards(configuration),
                "verdicts": work.verdicts(configuration),
                "tasks": work.tasks(configuration),
                "merge": work.merge(configuration),
            }
            entry |= {stage: str(f.relative_to(work.run)) for stage, f in files.items() if f}
        found.append(entry)
    sweep = work.sweep
    stages = {
        "generate": None if sweep.answers is None else asdict(sweep.answers),
        "reward": None if sweep.rewards is None else asdict(sweep.rewards),
        "judge": None if sweep.judging is None else asdict(sweep.judging),
        "tasks": sweep.tasks,
    }
    ids = [row["id"] for row in work.prompts]
    return {"stages": stages, "prompts": ids, "configurations": found}


@contextlib.contextmanager
def _held(place: Path) -> Iterator[None]:
    """The folder, for this process alone."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = (place / ".lock").open("w")
    except OSError as error:
        raise RecipeError(f"{place}: {(error.strerror or str(error)).lower()}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutputExistsError(
                f"{place}: another process is at work on it; wait for it, or give another --out"
            ) from error
        yield
