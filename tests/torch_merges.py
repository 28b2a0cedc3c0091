"""What `test_torch_arithmetic` merges, and by what parameters: read off the registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

import mergecore
from mergecore import cuda, registry
from mergecore.cuda.formula import Formula

Array = np.ndarray
DENSE = [name for name, method in cuda.METHODS.items() if method.solve is not Formula.solve]
OF_TASK_VECTORS = [name for name, method in cuda.METHODS.items() if method.of_task_vectors]
_WITHOUT = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, _WITHOUT])]
NUMBERS = (0.7, -0.4, 1.0, 0.0, 2.5)
DENSITIES = (0.3, 1.0, 0.0, 0.85, 1e-5)


def complete(method: str, models: int, **given: Any) -> dict[str, Any]:
    """A method's parameters as a plan has them; those given are not the default's."""
    return _complete(registry.methods()[method].parameters, models, given)


def modifier(name: str, **given: Any) -> dict[str, Any]:
    parameters = registry.modifiers()[name].parameters
    return {"name": name, "parameters": _complete(parameters, 1, given)}


def _complete(
    parameters: Sequence[registry.Parameter], models: int, given: Mapping[str, Any]
) -> dict[str, Any]:
    found = {}
    for parameter in parameters:
        value = given.get(parameter.name, parameter.default)
        value = 1 / models if value == "1/N" else value
        several = parameter.per_model and not isinstance(value, list | tuple)
        found[parameter.name] = [value] * models if several else value
    assert set(given) <= set(found)
    return found


def counts(method: str) -> list[int]:
    """How many models the method is tried with."""
    known = registry.methods()[method]
    most = known.max_models or 5
    return list(range(known.min_models, min(most, 5) + 1))


def variations(method: str, models: int) -> Iterator[dict[str, Any]]:
    """Complete parameters: the defaults, each changed by itself, and some of them together."""
    yield complete(method, models)
    known = registry.methods()[method].parameters
    together = {}
    for parameter in known:
        values = [v for v in _values(parameter, models) if v != parameter.default]
        together[parameter.name] = values[-1] if values else parameter.default
        for value in values:
            given = {parameter.name: value}
            if cuda.runs(method, complete(method, models, **given)) is None:
                yield complete(method, models, **given)
    together |= {"scope": "tensor"} if "scope" in together else {}
    yield complete(method, models, **together)
    for density in (0.4, [DENSITIES[(i + 1) % 5] for i in range(models)]):
        l1 = {k: v for k, v in {"density": density, "rescale": "l1"}.items() if k in together}
        if l1:
            yield complete(method, models, **together | l1)


def _values(parameter: registry.Parameter, models: int) -> list[Any]:
    if parameter.kind == "bool":
        return [False, True]
    if parameter.kind == "choice":
        return list(parameter.choices)
    if parameter.per_model:
        numbers = DENSITIES if parameter.maximum == 1 else NUMBERS
        return [*numbers[:3], [numbers[(i + 1) % 5] for i in range(models)]]
    if parameter.maximum is None:
        return [0.3, 1.0, -1.7, 0.0]
    return [0.25, 0.5, 1e-3]


def engine(
    method: str, models: Sequence[Array], base: Array | None, parameters: Mapping[str, Any], **more
) -> Array:
    """What the engine computes, not rounded to the inputs' dtypes."""
    keywords = {p.name: p.keyword for p in registry.methods()[method].parameters}
    options = {keywords[name]: value for name, value in parameters.items()}
    wide = any(x.dtype == np.float64 for x in (*models, *([] if base is None else [base])))
    first = {} if base is None else {"base": base}
    merge = getattr(mergecore, method)
    merged = merge(models, **first, **options, dtype="float64" if wide else "float32", **more)
    return np.asarray(merged)


def tensors(arrays: Sequence[Array], device: str = "cpu") -> list[torch.Tensor]:
    """Arrays as tensors, bfloat16 too."""
    return [tensor(x).to(device) for x in arrays]


def tensor(array: Array) -> torch.Tensor:
    contiguous = np.array(array, order="C", copy=True).reshape(array.shape)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(contiguous.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(contiguous)


def streamed(
    method: str,
    models: Sequence[torch.Tensor],
    base: torch.Tensor | None,
    parameters: Mapping[str, Any],
    steps: int,
    *,
    dtype: torch.dtype = torch.float32,
    name: str = "",
    seed: int = 42,
) -> torch.Tensor:
    """Chunk by chunk, of so many of the stream's steps; the last chunk is merged first."""
    shape = models[0].shape
    place = cuda.Place(tuple(shape), dtype, len(models), name, seed)
    stream = cuda.stream(method, parameters, place)
    size = stream.step * steps
    rows = [model.reshape(-1) for model in models]
    start = None if base is None else base.reshape(-1)

    def chunk(first: int, stop: int) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        cut = slice(first, min(first + size, stop))
        return [row[cut] for row in rows], None if start is None else start[cut]

    while (wanted := stream.wanted) is not None:
        for first in range(wanted.start, wanted.stop, size):
            stream.observe(*chunk(first, wanted.stop), first)
        stream.conclude()
    merged = torch.empty(place.elements, dtype=dtype, device=models[0].device)
    for first in reversed(range(0, place.elements, size)):
        part = stream.merge(*chunk(first, place.elements), first)
        merged[first : first + size] = part
    return merged.view(shape)


def merged(method, arrays, base, parameters, device="cpu", **options) -> torch.Tensor:
    """A whole tensor at once."""
    start = None if base is None else tensor(base).to(device)
    return cuda.merge(method, tensors(arrays, device), start, parameters, **options)
