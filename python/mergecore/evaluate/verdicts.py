"""Is each response repetitive, code-switched, nonsense? Responses in, verdicts out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from mergecore.evaluate import tally
from mergecore.evaluate.judge.verdict import LABELS
from mergecore.evaluate.rows import Row, digest, instruction
from mergecore.evaluate.stage import open_stage

Tell: TypeAlias = Callable[[str, Row], None]
"""Called with an id and `{repetition, code_switching, nonsense, evidence, judge, error?}`."""


class Judge(Protocol):
    """Who gives verdicts."""

    name: str

    def about(self) -> dict[str, Any]:
        """What of it decides a verdict: versions, model, prompt."""

    def judge(self, asked: Sequence[tuple[str, str, str]], tell: Tell) -> None:
        """Judges `(id, instruction, output)`, each by itself."""


@dataclass(frozen=True)
class Judged:
    """What a run of this stage did, and what is in the file."""

    out: str | None
    judge: str
    n: int
    made: int
    degenerate: int
    repetition: int
    code_switching: int
    nonsense: int
    errors: int


def judge_all(
    responses: Sequence[Row],
    out: str | Path | None,
    judge: Judge,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Judged:
    """Judges responses, and goes on where an earlier run ended; rows that failed are tried again.

    Args:
        responses: Rows with `instruction` or `messages`, and `output`.
        out: The file of verdicts; None to count only.
        judge: Who judges.
        overwrite: Begin anew.
        progress: Called with the verdicts that are there and those that are wanted.

    Raises:
        MergecoreError: As the judge and `open_stage` say.
    """
    if out is None:
        rows: dict[str, Row] = {}
        _ask(responses, responses, rows, judge, lambda row: rows.update({row["id"]: row}), progress)
        return _summed(responses, rows, judge, None, len(rows))
    with open_stage(out, "judge", judge.about(), overwrite=overwrite) as stage:
        stage.forget(lambda row: row.get("error") is not None)
        before = len(stage.done)
        _ask(stage.left(responses, _digest), responses, stage.done, judge, stage.add, progress)
        return _summed(responses, stage.done, judge, str(out), len(stage.done) - before)


def of_lowest(responses: Sequence[Row], rewards: Sequence[Row], count: int) -> list[Row]:
    """The responses of lowest reward.

    Raises:
        RecipeError: A response has no reward.
    """
    from mergecore.errors import RecipeError

    known = {row["id"] for row in rewards}
    missing = [row["id"] for row in responses if row["id"] not in known]
    if missing:
        raise RecipeError(f"{len(missing)} responses have no reward, such as {missing[0]!r}")
    wanted = {row["id"] for row in responses}
    chosen = set(tally.lowest([row for row in rewards if row["id"] in wanted], count))
    return [row for row in responses if row["id"] in chosen]


def _digest(row: Row) -> str:
    return digest(instruction(row), row["output"])


def _ask(
    left: Sequence[Row],
    responses: Sequence[Row],
    done: dict[str, Row],
    judge: Judge,
    keep: Callable[[Row], None],
    progress: Callable[[int, int], None] | None,
) -> None:
    of = {row["id"]: _digest(row) for row in left}

    def tell(identity: str, verdict: Row) -> None:
        keep({"id": identity, **verdict, "of": of[identity]})
        if progress is not None:
            progress(sum(row["id"] in done for row in responses), len(responses))

    if left:
        judge.judge([(row["id"], instruction(row), str(row["output"])) for row in left], tell)


def _summed(
    responses: Sequence[Row], rows: dict[str, Row], judge: Judge, out: str | None, made: int
) -> Judged:
    wanted = [rows[row["id"]] for row in responses if row["id"] in rows]
    bad = [tally.degenerate(row) for row in wanted]
    counts = {label: sum(row.get(label) is True for row in wanted) for label in LABELS}
    return Judged(
        out,
        judge.name,
        len(wanted),
        made,
        sum(b is True for b in bad),
        **counts,
        errors=bad.count(None),
    )
