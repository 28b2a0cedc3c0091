"""How near could any merge be to all of its models? Theorem 1's bounds, and what is exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mergecore.diagnose.mergeability import Mergeability
from mergecore.study.measures import Measured
from mergecore.study.papers.collapse import charts
from mergecore.study.papers.collapse.losses import Group
from mergecore.study.sections import Cell, Section, Table

HEADS = (
    "models", "N", "Δ²", "Δ²/4", "exact radius²", "(N − 1)/(2N) Δ²", "Jung's, as published",
    "Jung's / exact", "mean to centroid", "models that hold the ball",
)  # fmt: skip
_SHOWN = 3


def section(
    measured: Sequence[Measured], adapters: Sequence[Group], of_adapters: Measured | None
) -> Section | None:
    """Every family's bounds, and the curves; None if nothing was measured."""
    states = {one.of: one.states for one in measured if one.states is not None}
    if of_adapters is not None and of_adapters.states is not None:
        for group in adapters[:_SHOWN]:
            states[group.name] = among(of_adapters, group.members)
    if not states:
        return None
    rows = [row(name, found) for name, found in states.items()]
    note = (
        "Squared distances of last hidden states of unit length, mean over texts. No merge does"
        " better in the worst case than the exact radius²; it is D*, where one model begins to do."
    )
    table = Table("bounds", "Bounds on the squared distance of a merge", HEADS, rows, note)
    words = [
        f"{name}: Δ² is {found.diameter:.3g}; some point is within {found.radius:.3g} of all"
        f" models, where the published bound is {found.jung:.3g}"
        f" ({found.jung / found.radius:.2f} times that), and on average within"
        f" {found.to_centroid:.3g}."
        for name, found in states.items()
        if found.radius
    ]
    return Section(
        "Theorem 1: how far must one model be from all?",
        words, [table], [charts.curves(states)], _CAUTIONS,
    )  # fmt: skip


def among(measured: Measured, members: Sequence[str]) -> Mergeability:
    """The same of some of the models."""
    assert measured.states is not None
    places = [measured.place(name) for name in members]
    square = np.ix_(places, places)
    found = measured.states
    return replace(
        found,
        models=[found.models[place] for place in places],
        distances=found.distances[square],
        squares=found.squares[square],
    )


def row(name: str, found: Mergeability) -> list[Cell]:
    """The bounds of one group of models."""
    radius = found.radius
    return [
        name, len(found.models), found.diameter, found.diameter / 4, radius, found.simplex,
        found.jung, found.jung / radius if radius else None, found.to_centroid,
        int((found.center > 1e-6).sum()),
    ]  # fmt: skip


_CAUTIONS = (
    "The points of the ball are mixtures of hidden states, and a merge of weights need not have"
    " any of them: linear mode connectivity speaks of losses, not of states.",
    "The published bound takes the hidden size for the dimension, though N models span N − 1; and"
    " its step from log2 N bits to none is a curve.",
)
