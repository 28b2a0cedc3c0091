"""Which tasks are there? The registry: each in its own file, everything else by the harness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches

from mergecore.errors import RecipeError
from mergecore.evaluate.tasks import exact, glue, gsm8k, mbpp, rouge_l
from mergecore.evaluate.tasks.task import Task

TASKS: dict[str, Task] = {
    task.name: task for task in (gsm8k.TASK, mbpp.TASK, exact.TASK, rouge_l.TASK, *glue.TASKS)
}
OPEN = (exact.TASK.name, rouge_l.TASK.name)
"""Those that only say how rows are scored: `exact:NAME` is one of several sets of rows."""
GROUPS = {"glue": tuple(task.name for task in glue.TASKS)}
HARNESS = "harness:"
"""Before the name of a task: the harness's own, also where mergecore has one of that name."""


def chosen(names: Sequence[str]) -> tuple[list[Task], list[str]]:
    """The tasks that are meant.

    Args:
        names: Of tasks and groups, in any order; `harness:NAME` for the harness's own,
            `exact:NAME` and `rouge_l:NAME` for several sets of rows.

    Returns:
        Tasks of mergecore, and names of the harness's.

    Raises:
        RecipeError: None is named, one is named twice, or one is refused.
    """
    flat = [part for name in names for part in GROUPS.get(name, (name,))]
    if not flat:
        raise RecipeError(f"no task is named ({', '.join([*TASKS, *GROUPS])}, or the harness's)")
    for name in flat:
        if flat.count(name) > 1:
            raise RecipeError(f"{name} is named twice")
        if name in glue.REFUSED:
            raise RecipeError(f"{name}: {glue.REFUSED[name]}")
    found = {name: _native(name) for name in flat}
    native = [task for task in found.values() if task is not None]
    return native, [name.removeprefix(HARNESS) for name, task in found.items() if task is None]


def _native(name: str) -> Task | None:
    kind, colon, own = name.partition(":")
    if colon and own and kind in OPEN:
        return replace(TASKS[kind], name=name)
    return TASKS.get(name)


def near(name: str) -> str:
    """`; did you mean "x"?` for the nearest name of a task."""
    found = get_close_matches(name, [*TASKS, *GROUPS], n=1)
    return f'; did you mean "{found[0]}"?' if found else ""
