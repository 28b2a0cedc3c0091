"""What do the rows of a model come to? Figures with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mergecore.evaluate.intervals import bootstrap, mcnemar, mean_interval, wilson
from mergecore.evaluate.judge.verdict import LABELS
from mergecore.evaluate.rows import Row, by_id

if TYPE_CHECKING:
    import numpy as np

LOWEST = 100
"""The study of degeneration looks at the 100 responses of lowest reward (Qing et al., §4.1)."""


def degenerate(verdict: Row) -> bool | None:
    """Whether a response shows any of the labels; None where the judge gave no verdict."""
    said = [verdict.get(label) for label in LABELS]
    return None if any(label is None for label in said) else any(said)


def lowest(rewards: Sequence[Row], count: int = LOWEST) -> list[str]:
    """The ids of the responses of lowest reward; of equals the first in the file."""
    return [row["id"] for row in sorted(rewards, key=lambda row: float(row["reward"]))[:count]]


def tally(
    responses: Sequence[Row], rewards: Sequence[Row], verdicts: Sequence[Row]
) -> dict[str, Any]:
    """Sums up one model.

    Args:
        responses: Its answers.
        rewards: Of them; none if no reward model was asked.
        verdicts: Of them, or of the lowest.

    Returns:
        Figures by name. Rates come as `{hits, count, rate, interval}`; rows of which the judge made
        nothing are counted as `errors` and are in no rate. What needs rows that are not there is
        None.
    """
    of_reward = {row["id"]: float(row["reward"]) for row in rewards}
    judged = {row["id"]: degenerate(row) for row in verdicts}
    clear = {identity: bad for identity, bad in judged.items() if bad is not None}
    values = list(of_reward.values())
    capped = sum(row.get("finish_reason") == "length" for row in responses)
    covers = judged.keys() >= {row["id"] for row in responses}
    return {
        "responses": len(responses),
        "reward": _mean(values),
        "truncated": sum(bool(row.get("truncated")) for row in rewards),
        "degeneration": _rate(clear.values()) if covers else None,
        "degeneration_of_lowest": _of_lowest(rewards, judged),
        "labels": {label: sum(row.get(label) is True for row in verdicts) for label in LABELS},
        "judged": len(clear),
        "errors": len(judged) - len(clear),
        "length_capped": _share(capped, len(responses)),
        "output_tokens": _mean_of([row.get("output_tokens") for row in responses]),
    }


def compare(
    one: tuple[Sequence[Row], Sequence[Row]], other: tuple[Sequence[Row], Sequence[Row]]
) -> dict[str, Any]:
    """What sets a model apart from another, over the ids that both have.

    Args:
        one: Rewards and verdicts of the first.
        other: Of the second.

    Returns:
        `reward`: the mean difference, first minus second, with a paired bootstrap interval;
        `degeneration`: how many ids only one of them is degenerate on, and McNemar's p.
    """
    rewards = [{row["id"]: float(row["reward"]) for row in rows} for rows, _ in (one, other)]
    shared = [identity for identity in rewards[0] if identity in rewards[1]]
    verdicts = [{row["id"]: degenerate(row) for row in rows} for _, rows in (one, other)]
    pairs = [
        (bad, verdicts[1][identity])
        for identity, bad in verdicts[0].items()
        if bad is not None and verdicts[1].get(identity) is not None
    ]
    first_only = sum(bool(a and not b) for a, b in pairs)
    second_only = sum(bool(b and not a) for a, b in pairs)
    return {
        "reward": _mean([rewards[0][i] - rewards[1][i] for i in shared]),
        "degeneration": None
        if not pairs
        else {
            "shared": len(pairs),
            "first_only": first_only,
            "second_only": second_only,
            "p": mcnemar(first_only, second_only),
        },
    }


def _of_lowest(rewards: Sequence[Row], judged: Mapping[str, bool | None]) -> dict[str, Any] | None:
    """The rate over the lowest 100; its interval selects the 100 anew in each resample.

    That the 100 are themselves a choice widens it: an interval for a rate of 100 given ones would
    be too narrow. It needs a verdict on every response; where only the lowest were judged, there is
    Wilson's, which says so. Where the judge failed, the row is in no count.
    """
    ids = lowest(rewards)
    if not ids or any(identity not in judged for identity in ids):
        return None
    clear = {identity: bad for identity, bad in judged.items() if bad is not None}
    ids = [identity for identity in ids if identity in clear]
    if not ids:
        return None
    count = len(ids)
    hits = sum(clear[identity] for identity in ids)
    found = {"hits": hits, "count": count, "rate": hits / count}
    by = by_id(rewards)
    if any(identity not in clear for identity in by):
        return {**found, "interval": wilson(hits, count), "method": "wilson"}
    import numpy as np

    table = np.array([(float(row["reward"]), clear[name]) for name, row in by.items()], float)

    def rate(sample: np.ndarray) -> Any:
        places = np.argpartition(sample[:, :, 0], count - 1, axis=1)[:, :count]
        return np.take_along_axis(sample[:, :, 1], places, axis=1).mean(axis=1)

    interval = bootstrap(table, rate)
    if interval is None or interval[0] == interval[1]:
        # Of rows that are all alike a bootstrap would be certain.
        return {**found, "interval": wilson(hits, count), "method": "wilson"}
    return {**found, "interval": interval, "method": "bootstrap"}


def _rate(bad: Any) -> dict[str, Any]:
    hits = list(bad)
    return {**_share(sum(hits), len(hits)), "method": "wilson"}


def _share(hits: int, count: int) -> dict[str, Any]:
    rate = hits / count if count else None
    return {"hits": hits, "count": count, "rate": rate, "interval": wilson(hits, count)}


def _mean(values: Sequence[float]) -> dict[str, Any] | None:
    if not values:
        return None
    return {
        "mean": sum(values) / len(values),
        "count": len(values),
        "interval": mean_interval(values),
    }


def _mean_of(counts: Sequence[int | None]) -> float | None:
    known = [count for count in counts if count is not None]
    return sum(known) / len(known) if known else None
