"""Checkpoints on disk: what the commands merge, run, extrapolate and verify do, from Python."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from mergecore import _mergecore, chain, documents, recipe
from mergecore.errors import RecipeError
from mergecore.planning import Progress, prepare
from mergecore.recipe import Modifiers, Recipe, Value

PathLike: TypeAlias = str | os.PathLike[str]


@dataclass(frozen=True)
class MergeReport:
    """What a merge did."""

    out: str
    """The output folder."""
    method: str
    base: str | None
    models: list[str]
    parameters: dict[str, Any]
    """The method's parameters as resolved; one that each model has for itself is a list."""
    modifiers: list[dict[str, Any]]
    """`{"name": ..., "parameters": {...}}` of each, in the order in which they acted."""
    tensors: int
    parameter_count: int
    bytes_read: int
    bytes_written: int
    seconds: float
    peak_rss_bytes: int
    seed: int
    delta_norm: float | None
    """‖output − base‖ over all tensors, before rounding; None if the method has no base."""
    delta_norm_rounded: float | None
    """The same of the output as it was written."""
    nan: int
    """How many NaN the output holds."""
    inf: int
    inputs_nan: int
    inputs_inf: int
    resumed_tensors: int
    """Tensors that an earlier, interrupted run of the same merge had finished."""
    notes: list[str]
    warnings: list[str]
    files: list[Any]

    @classmethod
    def from_json(cls, report: dict[str, Any]) -> MergeReport:
        """The report from the engine's words for it; keys that are not known are passed over."""
        return cls(**{field.name: report[field.name] for field in fields(cls)})


def merge(
    models: Sequence[PathLike],
    method: str,
    *,
    out: PathLike,
    base: PathLike | None = None,
    onto: PathLike | None = None,
    donor: PathLike | None = None,
    ignore: Sequence[str] | None = None,
    dtype: str | None = None,
    seed: int = 42,
    tokenizer_source: PathLike | None = None,
    chat_template: str | None = None,
    modifiers: Modifiers | None = None,
    threads: int | None = None,
    max_memory: int | None = None,
    shard_size: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    device: str | None = None,
    **parameters: Value | None,
) -> MergeReport:
    """Merges models on disk into a new folder.

    Args:
        models: Folders, weights files or hub ids `org/name[@revision]`, in order; a LoRA adapter on
            a model is `model+adapter`.
        method: The merge method, for example `"dare_ties"`; `mergecore.methods()` lists them.
        out: The folder to make. It appears when the merge is whole, and not before.
        base: The model that the others were fine-tuned from. If left out and the method needs one,
            the models' own cards and configs are asked.
        onto: The model that the merged change is added to; the base if left out.
        donor: The model whose config, tokenizer and side files the output gets.
        ignore: Globs of tensor names to pass over.
        dtype: The output's dtype, for example `"bfloat16"`; else each tensor's own in the base,
            else in the first model. Arithmetic is float32, or float64 if any input is.
        seed: The seed of random masks.
        tokenizer_source: `"union"`, `"base"` or a model: models of different vocabularies are
            aligned to this tokenizer, row by row of their embeddings and heads.
        chat_template: The output's instead of the donor's: a name (`"chatml"`), `"auto"` for the
            one that most models have, or a Jinja template.
        modifiers: What acts on the merged change, in order: names or mappings of one name to its
            parameters, like `["boost"]` or `[{"boost": {"beta": 0.2}}]`; `mergecore.modifiers()`
            lists them. Only for methods that merge changes from a base.
        threads: How many threads work; all cores if None. The output's bytes do not depend on it.
        max_memory: The most memory to take, in bytes.
        shard_size: The size of an output shard, in bytes.
        overwrite: Replace `out` if it is there.
        progress: Called about ten times a second with the bytes done and the bytes in all.
        device: Where formulas are worked out: `"cpu"`, `"cuda"` (all GPUs), `"cuda:1"`, or
            `"cpu-torch"`, which is the GPUs' arithmetic on the CPU. Only some methods can be; the
            report's notes say which tensors were not.
        **parameters: The method's own parameters, for example `density=0.5`, `weights=[0.7, 0.3]`
            or `lambda_=0.8`: one value for all models, or a list with one a model.

    Returns:
        The report: parameters as resolved, sizes, time, peak memory, the norm of the change.

    Raises:
        RecipeError: An unknown method, modifier or parameter, or a value out of its range.
        ModelNotFoundError: A model is not to be had.
        ModelError: A model is malformed, or does not fit the others.
        OutputExistsError: `out` is there and `overwrite` is not set, or it is an input.
        SpaceError: The disk or the memory allowed is too small.
        RunError: It failed while running; the same call goes on where it was.

    Example:
        >>> report = mergecore.merge(["a", "b"], "dare_ties", base="base", out="c", density=0.5)
    """
    if isinstance(models, str | os.PathLike):
        raise RecipeError(f"models is a list of models, not the one name {os.fspath(models)!r}")
    request = recipe.build(
        method,
        [os.fspath(model) for model in models],
        None if base is None else os.fspath(base),
        parameters,
        modifiers,
        onto=None if onto is None else os.fspath(onto),
        donor=None if donor is None else os.fspath(donor),
        ignore=None if ignore is None else list(ignore),
        dtype=dtype,
        seed=seed,
        tokenizer_source=None if tokenizer_source is None else os.fspath(tokenizer_source),
        chat_template=chat_template,
    )
    return run(
        request,
        out,
        threads=threads,
        max_memory=max_memory,
        shard_size=shard_size,
        overwrite=overwrite,
        progress=progress,
        device=device,
    )


def extrapolate(
    sft: PathLike,
    rl: PathLike,
    *,
    alpha: float,
    out: PathLike,
    method: str = "task_arithmetic",
    **options: Any,
) -> MergeReport:
    """Goes on from one model in the direction that it took from another: rl + alpha * f(rl - sft).

    Args:
        sft: The model that `rl` was trained from.
        rl: The model to go on from; config and tokenizer are its.
        alpha: How far; 0.3 to 0.5 is usual.
        out: The folder to make.
        method: The f of the formula, any method of task vectors; `task_arithmetic` is the identity.
        **options: Everything else that `merge` takes.

    Raises:
        MergecoreError: As `merge` does.
    """
    options.setdefault("weights", 1.0)
    return merge([rl], method, base=sft, onto=rl, out=out, lambda_=alpha, **options)


def run(
    request: PathLike | Recipe,
    out: PathLike,
    *,
    threads: int | None = None,
    max_memory: int | None = None,
    shard_size: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    device: str | None = None,
) -> MergeReport:
    """Runs a recipe.

    Args:
        request: A recipe file, YAML or JSON, or a recipe as a dict. A file that leaves `density`
            out means mergekit's 1.0 by it; a dict means what `merge` does. A file of several
            documents is run one after the other; the report is the output's.
        out: The folder to make.
        threads: As in `merge`, and so are the others.
        max_memory: In bytes.
        shard_size: In bytes.
        overwrite: Replace `out` if it is there.
        progress: Called with the bytes done and the bytes in all, of one document after the other.
        device: As in `merge`; the recipe's `device` if None.

    Raises:
        MergecoreError: As `merge` does.
    """
    limits: dict[str, Any] = {
        "threads": threads,
        "max_memory": max_memory,
        "shard_size": shard_size,
        "device": device,
    }
    listed = None if isinstance(request, dict) else documents.load(request)
    if listed is not None and len(listed) > 1:
        checked = chain.check(listed, **limits)
        report = checked.run(out, overwrite, lambda _: nullcontext(progress))
        return MergeReport.from_json(report)
    single = listed[0].recipe if listed else request
    assert isinstance(single, dict)
    prepared = prepare(single, from_file=listed is not None, **limits)
    return MergeReport.from_json(prepared.run(out, overwrite=overwrite, progress=progress))


def verify(out: PathLike, *, threads: int | None = None) -> list[str]:
    """Checks a merged model against its manifest, byte for byte.

    Returns:
        The problems, each naming the file or tensor; an empty list if it is whole.

    Raises:
        MergecoreError: There is no manifest to check against.
    """
    problems: list[str] = json.loads(_mergecore.verify(os.fspath(out), threads))["problems"]
    return problems
