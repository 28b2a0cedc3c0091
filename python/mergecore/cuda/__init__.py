"""Merging on torch tensors of any device: the engine's arithmetic, for where a GPU pays.

`METHODS` and `MODIFIERS` are what has a path here, and `runs` says whether a merge has; the others
run on the CPU, in the engine. What comes out is what the engine computes before it rounds to the
output's dtype: equal for methods that go element by element, and within the certificate
(`spectral.account.BOUND`) for those that look at singular values.

`merge` is for a tensor that fits the device's memory. A larger one is merged in chunks by the
`Stream` that `stream` gives, or, where its plan says that it is made of matrices, unit by unit by
the `Request` that `matrices` gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mergecore.cuda.formula import Formula, Parameters, Place
from mergecore.cuda.methods.dare_linear import DareLinear
from mergecore.cuda.methods.dare_ties import DareTies
from mergecore.cuda.methods.iso_c import IsoC
from mergecore.cuda.methods.iso_cts import IsoCts
from mergecore.cuda.methods.linear import Linear
from mergecore.cuda.methods.model_stock import ModelStock
from mergecore.cuda.methods.slerp import Slerp
from mergecore.cuda.methods.task_arithmetic import TaskArithmetic
from mergecore.cuda.methods.ties import Ties
from mergecore.cuda.methods.tsv import Tsv
from mergecore.cuda.parts import Whole
from mergecore.cuda.stream import Stream
from mergecore.cuda.whole import Request, Told

METHODS: dict[str, type[Formula]] = {
    "linear": Linear,
    "slerp": Slerp,
    "task_arithmetic": TaskArithmetic,
    "ties": Ties,
    "dare_linear": DareLinear,
    "dare_ties": DareTies,
    "model_stock": ModelStock,
    "tsv": Tsv,
    "iso_c": IsoC,
    "iso_cts": IsoCts,
}
"""The merge methods that have a path here, by their names in the engine's registry."""

MODIFIERS = ("boost",)
"""The modifiers that have one."""

Modifiers = Sequence[Mapping[str, Any]]
"""`{"name": …, "parameters": …}` each, as in a plan's summary; parameters are complete."""


def runs(method: str, parameters: Parameters, modifiers: Modifiers = ()) -> str | None:
    """Why a merge has no path here, in a few words; None if it has.

    Args:
        method: Its name in the registry.
        parameters: Complete, as in a plan's steps.
        modifiers: Those of the recipe.
    """
    if method not in METHODS:
        return f"{method} runs on the CPU only"
    for modifier in modifiers:
        if modifier["name"] not in MODIFIERS:
            return f"{modifier['name']} runs on the CPU only"
    refused = METHODS[method].refuses(parameters)
    return f"{method} with {refused} runs on the CPU only" if refused else None


def stream(method: str, parameters: Parameters, place: Place) -> Stream:
    """What merges one tensor chunk by chunk, where its plan names no matrices.

    Args:
        method: One of `METHODS`.
        parameters: Complete, as in a plan's steps.
        place: The tensor, and the dtype of the arithmetic.

    Raises:
        ValueError: `runs` says that this has no path here.
    """
    return Stream(_bound(method, parameters, (), place))


def matrices(
    method: str,
    parameters: Parameters,
    place: Place,
    whole: Mapping[str, Any],
    *,
    stored: Sequence[str],
    modifiers: Modifiers = (),
    sources: Sequence[str] | None = None,
) -> Request:
    """What merges one tensor unit by unit, where its plan says that it is made of matrices.

    Args:
        method: One of `METHODS`.
        parameters: Complete, as in a plan's steps.
        place: The tensor, and the dtype of the arithmetic.
        whole: What the plan says of it, see `parts`.
        stored: The dtype that each model was stored in ("bfloat16"), for `rank_tol: storage`.
        modifiers: Those of the recipe.
        sources: What messages call the base, then each model.

    Raises:
        ValueError: `runs` says that this has no path here.
    """
    formula = _bound(method, parameters, modifiers, place)
    named = sources or ["base", *(f"model {i}" for i in range(place.models))]
    return Request(method, formula, modifiers, Whole.of(whole), stored, named)


def merge(
    method: str,
    models: Sequence[Tensor],
    base: Tensor | None,
    parameters: Parameters,
    *,
    onto: Tensor | None = None,
    modifiers: Modifiers = (),
    name: str = "",
    seed: int = 42,
    places: Sequence[int] | None = None,
    whole: Mapping[str, Any] | None = None,
    stored: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
    wide: bool = False,
    told: list[Told] | None = None,
) -> Tensor:
    """Merges one tensor that fits the device's memory.

    Args:
        method: One of `METHODS`.
        models: Of one shape and on one device, of any float dtype; they are not written to.
        base: What task vectors are taken from. For `linear` it is one more model, after the
            others; for `slerp` the first of the two.
        parameters: Complete, as in a plan's steps: a list where each model has its own.
        onto: What the merged task vector is added to, where that is not the base.
        modifiers: Those of the recipe.
        name: The output tensor's, for masks and messages; "" for a bare array.
        seed: For masks.
        places: Where each model stands in the recipe's list, for masks; in their order if None.
        whole: What the plan says of the tensor's matrices, see `parts`; None if it names none,
            and then a method that looks at singular values gives the mean.
        stored: The dtype that each model was stored in, for `rank_tol: storage`; that of the
            tensors if None.
        sources: What messages call the base, then each model.
        wide: Arithmetic in float64 even where no input is float64.
        told: What is known of each merged matrix is appended to it.

    Returns:
        The merged tensor, float32, or float64 where any input is; on the models' device.

    Raises:
        ValueError: `runs` says that this has no path here, or the tensors do not fit together.
        RunError: A matrix holds NaN or infinities, or a result is not certified.
    """
    models = list(models)
    if base is not None and not METHODS[method].of_task_vectors:
        models = [base, *models] if method == "slerp" else [*models, base]
        base = None
    given = [t for t in (base, *models, onto) if t is not None]
    if any(t.shape != given[0].shape for t in given):
        raise ValueError(f"the shapes differ: {', '.join(str(tuple(t.shape)) for t in given)}")
    wide = wide or any(t.dtype == torch.float64 for t in given)
    dtype = torch.float64 if wide else torch.float32
    shape = tuple(given[0].shape)
    place = Place(shape, dtype, len(models), name, seed, places)
    rows = [model.reshape(-1) for model in models]
    start = None if base is None else base.reshape(-1)
    end = None if onto is None else onto.reshape(-1)
    if whole is None:
        one = Stream(_bound(method, parameters, modifiers, place))
        one.survey(rows, start)
        return one.merge(rows, start, 0, onto=end).view(shape)
    if start is None:
        raise ValueError("a tensor is merged as matrices only as its change from a base")
    known = stored or [str(model.dtype).removeprefix("torch.") for model in models]
    request = matrices(
        *(method, parameters, place, whole),
        stored=known,
        modifiers=modifiers,
        sources=sources,
    )
    merged = torch.empty(place.elements, dtype=dtype, device=start.device)
    for unit in request.whole.units:
        span = slice(unit.elements.start, unit.elements.stop)
        some = None if end is None else end[span]
        merged[span] = request.merge([row[span] for row in rows], start[span], unit, some)
    if told is not None:
        told += request.told
    return merged.view(shape)


def _bound(method: str, parameters: Parameters, modifiers: Modifiers, place: Place) -> Formula:
    """The method, bound to a tensor."""
    if reason := runs(method, parameters, modifiers):
        raise ValueError(reason)
    for name, value in parameters.items():
        if isinstance(value, list | tuple) and len(value) != place.models:
            raise ValueError(f"{name} has {len(value)} values for {place.models} models")
    return METHODS[method](parameters, place)
