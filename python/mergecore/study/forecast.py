"""What will one configuration's merge take? By its plan: headers are read, nothing more."""

from __future__ import annotations

from typing import Any

from mergecore import chain, documents
from mergecore.study.spec import Configuration


def planned(configuration: Configuration) -> tuple[int, int, int]:
    """Bytes read, bytes written and memory of a configuration's merge.

    Raises:
        MergecoreError: Its recipe is wrong, or its models do not fit together.
    """
    checked = chain.check(documents.of(configuration.recipe, configuration.name))
    summaries: list[dict[str, Any]] = [plan.summary for plan in checked.plans.values()]
    # Documents that wait for others have no plan yet; each writes a model of the same size.
    share = len(checked.documents) / max(len(summaries), 1)
    return (
        int(share * sum(summary["bytes_to_read"] for summary in summaries)),
        int(share * sum(summary["bytes_to_write"] for summary in summaries)),
        max((summary["memory_bytes"] for summary in summaries), default=0),
    )
