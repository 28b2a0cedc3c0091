"""How are many recipes run with one reading of the models that they share?

The engine does it, for recipes of one document each; all are checked before the first byte of any
output is written. Files of several documents are run after them, one after the other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from mergecore import chain, documents, planning
from mergecore._mergecore import Opened, check_outputs
from mergecore._mergecore import merge_many as merge_together
from mergecore.documents import Document
from mergecore.errors import MergecoreError, RecipeError
from mergecore.merging import MergeReport, PathLike
from mergecore.planning import Progress
from mergecore.recipe import Recipe


def merge_many(
    recipes: Sequence[PathLike | Recipe],
    out: Sequence[PathLike],
    *,
    threads: int | None = None,
    max_memory: int | None = None,
    shard_size: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[MergeReport]:
    """Runs many recipes over the same models, and reads those once.

    Every output has the very bytes that `run` would give it. Recipes that have models in common are
    merged side by side: each piece of a model is read and decoded once for all of them, also where
    a method looks twice, and only what they do with it is done for each. They share one
    `max_memory`; if they do not fit into it together (400 MB, if none is given), they are run in
    groups, as many at a time as fit. Recipes run alone, one after the other, where sharing would
    gain little: those that have no model in common with another, that see matrices whole (`tsv`,
    `iso_c`, `iso_cts`, `boost`), that need facts of the whole model (`scope: model`, `match_norm`),
    and files of several documents, which come last.

    All recipes are checked first: if one is wrong, nothing is written for any. Stopped by Ctrl-C or
    a kill, the same call goes on where it was: an output that is whole stays as it is (unless
    `overwrite`, which makes all again), each of the others has a journal in its OUT.partial. Only
    a file of several documents whose output is there must be left out then.

    Args:
        recipes: Recipe files or dicts, as `run` takes them.
        out: The folder to make of each, in the same order.
        threads: As in `merge`, for all together, and so are the others.
        max_memory: In bytes, for all together.
        shard_size: In bytes.
        overwrite: Replace outputs that are there.
        progress: Called with the bytes done and the bytes in all, of the groups begun so far; what
            is read once counts for each that it serves. After that, of one document after another.

    Returns:
        The reports, in the order of the recipes. The seconds are those of the group that an output
        was made in, and the bytes read are all that it was made of.

    Raises:
        RecipeError: The lists are not of one length, or a recipe is wrong; its number is told.
        OutputExistsError: An output is there, is an input of any of them, or lies in another.
        MergecoreError: As `merge` does, for any of them.

    Example:
        >>> recipe = {"merge_method": "task_arithmetic", "base_model": "base", "models": [...]}
        >>> recipes = [{**recipe, "parameters": {"lambda": x}} for x in (0.5, 1.0, 1.5)]
        >>> reports = mergecore.merge_many(recipes, out=["half", "whole", "more"])
    """
    for name, given in (("recipes", recipes), ("out", out)):
        if isinstance(given, str | os.PathLike | dict):
            raise RecipeError(f"{name} is a list, one for each merge, not the one {given!r}")
    if len(recipes) != len(out):
        raise RecipeError(f"{len(recipes)} recipes and {len(out)} outputs: give one for each")
    limits: dict[str, Any] = {
        "threads": threads,
        "max_memory": max_memory,
        "shard_size": shard_size,
    }
    orders = [
        _Order(number, request, planning.checked_name(place))
        for number, (request, place) in enumerate(zip(recipes, out, strict=True), 1)
    ]
    opened = Opened()
    merges: list[tuple[_Order, planning.Prepared]] = []
    chains: list[tuple[_Order, chain.Checked]] = []
    for order in orders:
        with order.named():
            listed = order.documents()
            if listed is not None and len(listed) > 1:
                chains.append((order, chain.check(listed, **limits)))
                continue
            request = listed[0].recipe if listed else order.request
            assert isinstance(request, dict)
            from_file = listed is not None
            named = request.get("device") or planning.CPU
            prepared = planning.prepare(
                request, from_file=from_file, opened=opened, device=planning.CPU, **limits
            )
            if named != planning.CPU:
                note = f"not on {named}: many merges in one reading are made on the CPU"
                prepared.summary["notes"].append(note)
            merges.append((order, prepared))
    others = [place for _, checked in chains for place in checked.inputs]
    read = [str(place) for _, prepared in merges for place in prepared.places]
    outs = [order.out for order, _ in [*merges, *chains]]
    check_outputs(outs, [*read, *others], len(merges), overwrite)
    reports: dict[int, dict[str, Any]] = {}
    made = merge_together(
        [(o.title, prepared.plan, o.out, prepared.side_files(o.out)) for o, prepared in merges],
        others,
        threads=threads,
        max_memory=max_memory,
        overwrite=overwrite,
        progress=progress if merges else None,
    )
    for (order, prepared), said in zip(merges, made, strict=True):
        reports[order.number] = prepared.told(said)
    for order, checked in chains:
        with order.named():
            reports[order.number] = checked.run(
                order.out, overwrite, lambda _: nullcontext(progress)
            )
    return [MergeReport.from_json(reports[order.number]) for order in orders]


@dataclass(frozen=True)
class _Order:
    """One of the merges asked for."""

    number: int
    request: PathLike | Recipe
    out: str

    @property
    def title(self) -> str:
        file = "" if isinstance(self.request, dict) else f" ({os.fspath(self.request)})"
        return f"recipe {self.number}{file}"

    def documents(self) -> list[Document] | None:
        """Those of a file."""
        return None if isinstance(self.request, dict) else documents.load(self.request)

    @contextmanager
    def named(self) -> Iterator[None]:
        try:
            yield
        except MergecoreError as error:
            raise type(error)(f"{self.title}: {error}") from error
