"""How many groups of adapters collapse, and does replacing one member help? Table 6."""

from __future__ import annotations

from collections.abc import Sequence

from mergecore.study.measures import Measured
from mergecore.study.papers.collapse import charts
from mergecore.study.papers.collapse.difficulty import scores
from mergecore.study.papers.collapse.losses import Group, known
from mergecore.study.papers.collapse.published import REPLACED, THREE
from mergecore.study.papers.collapse.tables import COLLAPSE
from mergecore.study.sections import Cell, Section, Table

_WITHIN = -10
"""Percent: what the paper takes for a group that holds."""


def shares(adapters: Sequence[Group]) -> Section | None:
    """Section 3.2's shares of groups; None if no group was merged."""
    rows: list[list[Cell]] = []
    for title, worst in _worst(adapters):
        if worst:
            bad = sum(loss < COLLAPSE for loss in worst)
            good = sum(loss >= _WITHIN for loss in worst)
            rows.append([title, len(worst), bad, bad / len(worst), good, good / len(worst)])
    if not rows:
        return None
    heads = ("losses by", "groups", "worst above 30 %", "share", "all within 10 %", "share")
    note = (
        "Of each group the worst loss over its tasks. The paper does not say by which method; in"
        " “the best of three” each task has its best method, in “the worst of three” its worst."
    )
    table = Table("groups", "Groups of adapters that collapse", heads, rows, note)
    words = [
        f"{row[0]}: {row[2]} of {row[1]} groups lose more than 30 % of some task, {row[4]} hold all"
        " within 10 %."
        for row in rows
    ]
    words.append("The paper: 2/3 of 25 groups, and one.")
    cautions = [
        f"{name}'s own adapter scores 0: its loss is not defined, and left out."
        for name in sorted({name for group in adapters for name in group.undefined()})
    ]
    title = "RQ1: how many groups of adapters collapse?"
    return Section(title, words, [table], (), cautions)


def _worst(adapters: Sequence[Group]) -> list[tuple[str, list[float]]]:
    """The worst loss of each group, by each method and over them."""
    found = [(m, [min(known(g.loss(m))) for g in adapters if known(g.loss(m))]) for m in THREE]
    for how in ("best", "worst"):
        each = [known(group.over(THREE, how)) for group in adapters]
        found.append((f"the {how} of three", [min(losses) for losses in each if losses]))
    return found


def replacements(
    groups: Sequence[Group], adapters: Sequence[Group], measured: Measured | None
) -> Section | None:
    """Table 6; None if it was not run."""
    if not groups:
        return None
    first = groups[0]
    stay = set(first.members).intersection(*(group.members for group in groups))
    rows: list[list[Cell]] = []
    for group in groups:
        score: Cell = None
        if measured is not None and measured.states is not None:
            score = max(scores(measured, group.members))
        for method in group.methods(("TIES", "TA")):
            lost = dict(zip(group.members, group.loss(method), strict=True))
            kept = known(lost[name] for name in group.members if name in stay)
            changed = known(lost[name] for name in group.members if name not in stay)
            printed: tuple[Cell, Cell] = REPLACED.get(group.name, (None, None))
            rows.append(
                [
                    group.name, method, min(known(lost.values())), score,
                    sum(kept) / len(kept) if kept else None, min(kept, default=None),
                    min(changed, default=None), *(printed if method == "TIES" else (None, None)),
                ]
            )  # fmt: skip
    heads = (
        "group", "method", "worst loss, %", "worst MDS", "mean loss of those that stay",
        "worst of those that stay", "worst of the other", "paper's worst loss", "paper's worst MDS",
    )  # fmt: skip
    note = (
        "(a) is the group in which TIES loses most of a task; in (a1) and (a2) its member of the"
        " highest score is replaced by the two that leave the lowest."
    )
    table = Table("table-6", "Table 6: one member replaced", heads, rows, note)
    title = "RQ3: does replacing the member of the highest score help?"
    words = _words(rows, groups, adapters, stay)
    return Section(title, words, [table], [charts.replaced(rows)] if rows else [], _CAUTIONS)


def _words(
    rows: Sequence[Sequence[Cell]],
    groups: Sequence[Group],
    adapters: Sequence[Group],
    stay: set[str],
) -> list[str]:
    first = groups[0]
    same = (g.name for g in adapters if set(g.members) == set(first.members))
    called = next(same, "none")
    dropped = ", ".join(name for name in first.members if name not in stay) or "nothing"
    found = [f"Group (a) is {called} of the run's groups; {dropped} is replaced."]
    for group in groups[1:]:
        new = ", ".join(name for name in group.members if name not in stay)
        found.append(f"In {group.name} it is {new}.")
    for method in ("TIES", "TA"):
        own = [row for row in rows if row[1] == method]
        if not own:
            continue
        worst = ", ".join(f"{row[2]:.1f} in {row[0]}" for row in own)
        kept = ", ".join("?" if row[4] is None else f"{row[4]:.1f}" for row in own)
        found.append(
            f"{method}: the worst loss is {worst}; the mean of the {len(stay)} that stay {kept}."
        )
    return [*found, "The paper, by TIES: −70.8, −17.8 and −19.1; it does not look at the others."]


_CAUTIONS = (
    "Group (a) is chosen for its worst loss, so that any change is likely to better it; and where"
    " the replaced member is the one that lost most, the worst loss falls by its leaving alone."
    " What the others gain is the mean of those that stay.",
)
