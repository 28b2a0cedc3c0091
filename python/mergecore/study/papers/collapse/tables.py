"""How much is lost, and is it collapse or one answer to everything? Tables 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from mergecore.diagnose.association import mean_and_deviation
from mergecore.study.papers.collapse import answers, charts
from mergecore.study.papers.collapse.answers import Answers
from mergecore.study.papers.collapse.losses import CORRECTED, Group, known
from mergecore.study.papers.collapse.published import MEANS, METHODS
from mergecore.study.results import Results
from mergecore.study.sections import Cell, Section, Table

COLLAPSE = -30
"""Percent: from which loss on the paper speaks of severe collapse."""


@dataclass(frozen=True)
class Told:
    """A group with what its models answered."""

    group: Group
    results: Results

    @cached_property
    def answers(self) -> dict[str, dict[str, Answers]]:
        """By method and task."""
        return {
            method: answers.by_task(self.results, self.group.part, row["configuration"])
            for method, row in self.group.merges.items()
        }

    @cached_property
    def chances(self) -> list[float | None]:
        """Of each member's task."""
        own = [
            {} if row is None else answers.by_task(self.results, self.group.part, _name(row))
            for row in self.group.own
        ]
        found = [told.get(task) for told, task in zip(own, self.group.tasks, strict=True)]
        return [None if one is None else one.chance for one in found]

    def adjusted(self, method: str) -> list[float | None]:
        """Losses of what is above chance."""
        g = self.group
        each = zip(g.merged(method), g.tuned, self.chances, strict=True)
        return [answers.adjusted(now, tuned, chance) for now, tuned, chance in each]

    def told(self, method: str) -> list[Answers | None]:
        """A merge's answers in each task."""
        return [self.answers.get(method, {}).get(task) for task in self.group.tasks]

    def collapsed(self) -> Iterator[tuple[str, str, bool]]:
        """Method and member where much is lost, and whether it always answers the same."""
        for method in self.group.methods(METHODS):
            each = zip(self.group.members, self.group.loss(method), self.told(method), strict=True)
            for member, loss, told in each:
                if loss is not None and loss < COLLAPSE:
                    yield method, member, told is not None and told.constant


def section(results: Results, groups: Sequence[Group]) -> Section | None:
    """Tables 1 and 2, with what corrects them; None if no family was merged."""
    if not groups:
        return None
    told = [Told(group, results) for group in groups]
    tables = [_means(told), *(_as_printed(one.group) for one in told), _in_full(told)]
    drawn = [charts.losses(one.group) for one in told if one.group.methods()]
    words = [line for one in told for line in _words(one)]
    words.append("The paper: means of 13 to 66 % on its families, DARE's the largest on six of 8.")
    cautions = [line for one in told for line in _cautions(one)]
    return Section("RQ1: what do merges of all experts lose?", words, tables, drawn, cautions)


def _means(told: Sequence[Told]) -> Table:
    rows: list[list[Cell]] = []
    for one in told:
        group = one.group
        for method in group.methods():
            losses = known(group.loss(method))
            above = known(one.adjusted(method))
            constant = [answer.constant for answer in one.told(method) if answer is not None]
            length, beside = (_length(group, name) for name in (method, "TA"))
            printed: tuple[Cell, Cell] = (None, None)
            if group.name in MEANS and method in METHODS:
                printed = MEANS[group.name][METHODS.index(method)]
            rows.append(
                [
                    group.name, method, *mean_and_deviation(losses), len(losses), -min(losses),
                    -sum(above) / len(above) if above else None,
                    sum(constant) if constant else None, length,
                    length / beside if length and beside else None, *printed,
                ]
            )  # fmt: skip
    heads = (
        "family", "method", "mean loss, %", "±", "tasks", "worst", "mean above chance",
        "constant", "‖Δ‖", "‖Δ‖ / TA's", "paper's mean", "paper's ±",
    )  # fmt: skip
    note = (
        "Losses of eq. 1 as positive numbers, ± the population's deviation over tasks as in the"
        " paper. Above chance: (merged − chance) / (own − chance) − 1, chance being the share of"
        " the commonest reference. Constant: tasks in which all answers are the same."
    )
    return Table("table-1", "Table 1: mean loss by family and method", heads, rows, note)


def _as_printed(group: Group) -> Table:
    rows: list[list[Cell]] = []
    if group.base is not None:
        rows.append(["base", *(_percent(score) for score in group.before)])
    rows.append(["own model", *(_percent(score) for score in group.tuned)])
    for method in group.methods():
        pairs = zip(group.merged(method), group.loss(method), strict=True)
        rows.append(
            [method, *(_percent(now) + ("" if x is None else f" ({x:.1f})") for now, x in pairs)]
        )
    title = f"Table 2: scores and losses, {group.name}"
    note = "Percent after merging, in brackets the loss; “own model” is the task's own expert."
    return Table(f"table-2-{_file(group.name)}", title, ("", *group.members), rows, note)


def _in_full(told: Sequence[Told]) -> Table:
    rows: list[list[Cell]] = []
    for one in told:
        g = one.group
        for method in g.methods():
            row = g.merges[method]
            each = zip(
                g.members, g.tasks, g.tuned, g.merged(method), g.loss(method), one.chances,
                one.adjusted(method), one.told(method), strict=True,
            )  # fmt: skip
            for member, task, tuned, now, loss, chance, above, answer in each:
                ends = row.get(f"task.{task}_low"), row.get(f"task.{task}_high")
                of_answers: list[Cell] = [None, None]
                if answer is not None:
                    of_answers = ["yes" if answer.constant else "", answer.unusable]
                numbers = (tuned, now, *ends, loss, chance, above)
                rows.append([g.name, method, member, *numbers, *of_answers])
    heads = (
        "family", "method", "task", "own model", "merged", "low", "high", "loss, %", "chance",
        "loss above chance, %", "constant", "unusable",
    )  # fmt: skip
    note = (
        "Unusable: the share of answers that are empty or, in a task of few labels, none of them."
        " The interval is the merged score's, 95 %."
    )
    return Table("table-2-in-full", "Table 2 with what the losses are made of", heads, rows, note)


def _words(one: Told) -> Iterator[str]:
    group = one.group
    mean = {m: mean_and_deviation(known(group.loss(m)))[0] for m in group.methods()}
    if not mean:
        return
    five = {method: mean[method] for method in METHODS if method in mean}
    listed = ", ".join(f"{method} {loss:.1f}" for method, loss in five.items())
    yield f"{group.name}: mean losses in percent are {listed}."
    at_length = [
        f"{name} {mean[name]:.1f} % at its own length and {mean[other]:.1f} % at TA's"
        for name, other in (("TIES", CORRECTED[0]), ("DARE", CORRECTED[1]))
        if name in mean and other in mean
    ]
    if "TA" in mean and CORRECTED[2] in mean:
        at_length.append(f"TA {mean['TA']:.1f} % as a mean and {mean[CORRECTED[2]]:.1f} % as a sum")
    if at_length:
        yield f"{group.name}: by the length of the step, {'; '.join(at_length)}."
    lost = list(one.collapsed())
    constant = sum(always for *_, always in lost)
    cells = sum(len(known(group.loss(method))) for method in group.methods(METHODS))
    yield (
        f"{group.name}: {len(lost)} of {cells} losses by the five methods are above 30 %,"
        f" {constant} of them of a model that gives every question the same answer."
    )


def _cautions(one: Told) -> Iterator[str]:
    group = one.group
    if undefined := group.undefined():
        yield (
            f"{group.name}: {', '.join(undefined)} have own models that score 0, so that their"
            " losses are not defined and are in no mean and no test."
        )
    pairs = zip(group.members, group.tuned, one.chances, strict=True)
    weak = [name for name, tuned, c in pairs if tuned and c is not None and tuned <= c]
    if weak:
        yield f"{group.name}: {', '.join(weak)} have own models no better than chance."
    rows = [(row, task) for row in group.merges.values() for task in group.tasks]
    spans = [
        (row[f"task.{task}_high"] - row[f"task.{task}_low"], row[f"task.{task}_n"])
        for row, task in rows
        if row.get(f"task.{task}_high") is not None
    ]
    if spans:
        yield (
            f"{group.name}: scores are of {min(n for _, n in spans)} items or more; their 95 %"
            f" intervals are {100 * fmean(span for span, _ in spans):.0f} points wide on average."
        )
    missing = [name for name, row in zip(group.members, group.own, strict=True) if row is None]
    missing += [method for method in METHODS if method not in group.methods()]
    if missing:
        yield f"{group.name}: no result of {', '.join(missing)}: it failed or was not run."


def _length(group: Group, method: str) -> float | None:
    row = group.merges.get(method)
    return None if row is None else row.get("delta_norm")


def _name(row: dict[str, object]) -> str:
    return str(row["configuration"])


def _percent(score: float | None) -> str:
    return "" if score is None else f"{100 * score:.1f}"


def _file(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in name)
