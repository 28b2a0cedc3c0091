"""How do the figures of the systematic study look alike? One colour a method."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mergecore.study.papers.systematic.gains import METHODS, Merge

COLORS = ("#1f5fbf", "#3aa6a0", "#d9480f", "#7a5cc7", "#b0307a", "#8a6d1d", "#6b7280")


def shown(merges: Iterable[Merge]) -> list[str]:
    """The methods that some of them are of, in the paper's order."""
    there = {merge.method for merge in merges}
    return [method for method in METHODS if method in there]


def color(methods: Iterable[str]) -> Any:
    """The colours of methods, which are the same in all figures."""
    import altair as alt

    named = list(methods)
    values = [COLORS[METHODS.index(method)] for method in named]
    scale = alt.Scale(domain=named, range=values)
    return alt.Color("method:N", title=None, scale=scale)
