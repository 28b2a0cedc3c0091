"""Merging arrays in memory: one function for every registered method.

The functions are made from the engine's registry: name, signature and docstring. They take NumPy
arrays, torch tensors, or dicts of either (state dicts), and give back the same kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from mergecore import _mergecore, docstrings, recipe, registry
from mergecore.errors import ModelError, RecipeError
from mergecore.registry import Method
from mergecore.tensors import FLOATS, View, dtype_name, kind_of


@cache
def function(name: str) -> Callable[..., Any]:
    """The function of the method called `name`, with its own signature and docstring."""
    method = registry.methods()[name]
    signature = docstrings.signature(method)

    def merge_in_memory(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        return _merge(method, given)

    merge_in_memory.__name__ = merge_in_memory.__qualname__ = name
    merge_in_memory.__module__ = "mergecore"
    merge_in_memory.__doc__ = docstrings.docstring(method)
    merge_in_memory.__signature__ = signature  # type: ignore[attr-defined]
    merge_in_memory.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    return merge_in_memory


def random_mask(
    seed: int = 42, name: str = "", model: int = 0, *, count: int, density: float
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """The very mask by which the `dare` methods keep or drop elements.

    Philox4x32-10 with a key hashed from seed, tensor name and model; element i is kept where the
    upper 24 bits of its lane are below `density * 2**24`. No state, no order: element i of the
    mask does not depend on `count`.

    Args:
        seed: The merge's seed.
        name: The output tensor's name; in memory a bare array's is `""` unless `name=` was given.
        model: The model's position in the list, from 0.
        count: How many elements, that is, the tensor's size.
        density: The share kept, from 0 to 1.

    Returns:
        Booleans of shape (count,): True where the element is kept.

    Raises:
        RecipeError: The density is outside [0, 1], or another number is negative or too large.
    """
    for what, number in (("seed", seed), ("model", model), ("count", count)):
        if not 0 <= number < 2**64:
            raise RecipeError(f"{what} is {number}: it must be from 0 to 2^64 - 1")
    if not 0 <= density <= 1:
        raise RecipeError(f"density is {density}: it must be between 0 and 1")
    mask = np.empty(count, np.bool_)
    _mergecore.random_mask(seed, name, model, density, mask)
    return mask


def _merge(method: Method, given: Mapping[str, Any]) -> Any:
    settings = dict(given)
    models = settings.pop("models")
    if isinstance(models, Mapping) or not isinstance(models, Sequence):
        raise TypeError(f"{method.name}: models is a list of arrays, tensors or dicts of them")
    base, onto = settings.pop("base", None), settings.pop("onto", None)
    name, dtype = settings.pop("name", ""), settings.pop("dtype", None)
    modifiers = settings.pop("modifiers", None)
    inputs = {f"model {i}": model for i, model in enumerate(models)}
    inputs |= {"base": base} if base is not None else {}
    inputs |= {"onto": onto} if onto is not None else {}
    if not inputs:
        raise ModelError(f"{method.name}: no models")
    bare = [not isinstance(model, Mapping) for model in inputs.values()]
    if any(bare) != all(bare):
        raise TypeError(f"{method.name}: arrays and dicts of arrays cannot be merged together")
    states = {k: {name: model} if all(bare) else model for k, model in inputs.items()}
    request = recipe.build(
        method.name,
        [f"model {i}" for i in range(len(models))],
        "base" if base is not None else None,
        {k: v for k, v in settings.items() if k != "seed"},
        modifiers=modifiers,
        seed=settings.get("seed", 42),
        onto="onto" if onto is not None else None,
        dtype=None if dtype is None else dtype_name(dtype),
    )
    merged = _merge_states(request, states)
    return merged[name] if all(bare) else merged


def _merge_states(
    request: recipe.Recipe, states: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Merges dicts of arrays; `states` maps the recipe's references to them."""
    template = states.get("base", states.get("model 0", {}))
    counters = {
        name
        for state in states.values()
        for name, array in state.items()
        if kind_of(array).dtype_name(array) not in FLOATS
    }
    fixed = {name: _same_in_all(name, states) for name in sorted(counters)}

    def views(state: Mapping[str, Any]) -> dict[str, View]:
        return {name: kind_of(a).view(a) for name, a in state.items() if name not in fixed}

    inputs = {reference: views(state) for reference, state in states.items()}
    merged = {
        name: fixed[name]
        if name in fixed
        else kind_of(array).converted(array, request.get("dtype"))
        for name, array in template.items()
    }
    if len(fixed) < len(merged):
        base, onto = inputs.pop("base", None), inputs.pop("onto", None)
        models = list(inputs.values())
        _mergecore.merge_arrays(recipe.to_json(request), models, base, onto, views(merged))
    return merged


def _same_in_all(name: str, states: Mapping[str, Mapping[str, Any]]) -> Any:
    """A copy of a tensor that is no float, and so has to be equal in all models."""
    called = f"tensor {name}" if name else "the array"
    first: Any = None
    for reference, state in states.items():
        array = state.get(name)
        if array is None:
            raise ModelError(f"{called}: {reference} does not have it")
        first = array if first is None else first
        kind = kind_of(array)
        dtype = kind.dtype_name(array)
        if "float" in dtype or "complex" in dtype:
            raise ModelError(f"{called}: {dtype} weights cannot be merged; convert them first")
        if kind_of(first).dtype_name(first) != dtype or not kind.equal(first, array):
            raise ModelError(f"{called}: {dtype} values are not averaged, and the models' differ")
    return kind_of(first).copy(first)
