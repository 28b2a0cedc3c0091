"""What does the engine say of some models? The sums over their weights, in one pass.

Nothing here needs NumPy, which takes as long to import as a twentieth of 1.1 B × 4 weights to read:
what does need it is imported while the engine reads.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from threading import Thread
from typing import Any, TypeAlias

from mergecore import recipe
from mergecore.diagnose import origin
from mergecore.errors import MergecoreError, RecipeError
from mergecore.planning import Progress, prepare

PathLike: TypeAlias = str | os.PathLike[str]


@dataclass(frozen=True)
class Reading:
    """The sums, as the engine tells them."""

    summary: dict[str, Any]
    """What is said of the plan: models, base, notes."""
    tensors: list[dict[str, Any]]
    notes: list[str]


def read(
    models: Sequence[PathLike],
    base: PathLike | None,
    *,
    ignore: Sequence[str] | None,
    threads: int | None,
    progress: Progress | None,
) -> Reading:
    """Reads all weights once; see `geometry.compare`."""
    if isinstance(models, str | os.PathLike):
        raise RecipeError(f"models is a list of models, not the one name {os.fspath(models)!r}")
    given = [os.fspath(model) for model in models]
    if not given:
        raise RecipeError("no models: give one or more")
    made_of = {model: origin.of_model(model) for model in given}
    notes: list[str] = []
    alone = made_of[given[0]] if len(given) == 1 else None
    if alone is not None and not alone.lost:
        given += alone.parents
        notes.append(f"{given[0]} is a merge: it is compared with {', '.join(given[1:])}, too")
    if base is None:
        bases = {found.base for found in made_of.values() if found is not None and found.base}
        base = bases.pop() if len(bases) == 1 else None
    request = recipe.build(
        "task_arithmetic",
        given,
        None if base is None else os.fspath(base),
        {},
        ignore=None if ignore is None else list(ignore),
    )
    try:
        prepared = prepare(request, threads=threads, quiet=progress is None)
    except MergecoreError as error:
        raise _speaking_of_compare(error) from error
    # On two cores, with four models of 1.1 B: 0.07 s that nobody waits for.
    Thread(target=import_module, args=("mergecore.diagnose.geometry",)).start()
    return Reading(prepared.summary, json.loads(prepared.plan.geometry(progress)), notes)


def _speaking_of_compare(error: MergecoreError) -> MergecoreError:
    """The plan is that of a merge; its errors are told as this command's."""
    message = str(error).replace("task_arithmetic", "compare").replace("merges at least", "takes")
    ways = {
        "align them with --tokenizer-source union (recipe key tokenizer_source)": (
            "leave them out (--ignore '*embed_tokens*' --ignore 'lm_head*')"
        ),
        " (base_model in a recipe)": "",
        ", in a recipe the key ignore,": "",
    }
    for words, others in ways.items():
        message = message.replace(words, others)
    return type(error)(message)
