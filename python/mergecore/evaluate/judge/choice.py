"""Who judges? The rules, or a language model with what it may spend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mergecore.evaluate.judge.cost import Bill


def rules() -> Any:
    """The offline judge."""
    from mergecore.evaluate.judge.offline import RulesJudge

    return RulesJudge()


def language_model(
    name: str,
    url: str | None,
    prices: str | None,
    max_cost: float | None,
    concurrency: int,
    batch: Path | None = None,
) -> tuple[Any, Bill]:
    """A language model as the judge, and its bill.

    Args:
        name: What its server calls it.
        url: The server; OpenAI's if None.
        prices: A file of prices.
        max_cost: The most to spend, in dollars.
        concurrency: Requests at a time.
        batch: Where the id of a batch is kept; None for single requests.

    Raises:
        MergecoreError: The prices cannot be read, or a package is missing.
    """
    from mergecore.evaluate.judge import cache, cost
    from mergecore.evaluate.judge.batch import BatchJudge
    from mergecore.evaluate.judge.openai import OpenAiJudge

    table = cost.prices(prices) if prices else {}
    bill = Bill(table.get(name), max_cost, half_price=batch is not None)
    kept = cache.Cache(cache.default_folder() / "verdicts.jsonl")
    options: dict[str, Any] = {"bill": bill, "base_url": url, "cache": kept}
    if batch is not None:
        return BatchJudge(name, state=batch, **options), bill
    return OpenAiJudge(name, concurrency=concurrency, **options), bill
