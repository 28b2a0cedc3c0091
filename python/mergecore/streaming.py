"""How are merged tensors had without a file? One by one, as the engine finishes them."""

from __future__ import annotations

import atexit
import json
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np

from mergecore import _mergecore, documents, planning, tensors
from mergecore.errors import ModelError, RecipeError, RunError
from mergecore.merging import MergeReport, PathLike
from mergecore.planning import Prepared
from mergecore.recipe import Recipe
from mergecore.side_files import SideFile

Framework: TypeAlias = Literal["np", "pt"]

AHEAD = 256 << 20
"""Bytes of finished tensors that may wait to be taken."""


_running: weakref.WeakSet[_mergecore.Stream] = weakref.WeakSet()


@atexit.register
def _stop() -> None:
    """An engine's thread that asks Python for a device's work must end before Python does."""
    for engine in list(_running):
        engine.close()


class Stream:
    """A merge whose tensors are taken one by one; it is run once, when it is first iterated over.

    Attributes:
        tensors: The dtype and shape of each, by name, known before the first is merged.
        summary: What the plan says: the recipe as resolved, sizes, notes, warnings.
        report: What the merge did, `out` empty; None until the last tensor was taken.
        digest: One BLAKE3 digest of all tensors, equal for equal weights; None until then.
    """

    def __init__(
        self,
        prepared: Prepared,
        framework: Framework = "np",
        ahead: int = AHEAD,
        tell: Callable[[MergeReport], Any] | None = None,
    ) -> None:
        """Begins nothing yet.

        Args:
            prepared: The merge.
            framework: Of the tensors: `np`, or `pt` for torch.
            ahead: Bytes of finished tensors that may wait to be taken. In memory are these and the
                tensors in work, one a thread and one.
            tell: Is told the report, once the last tensor was taken.

        Raises:
            RecipeError: Another framework.
            ModelError: NumPy is to hold bfloat16 without ml_dtypes.
        """
        self.summary = prepared.summary
        planned = json.loads(prepared.plan.tensors())
        self.tensors: dict[str, tuple[str, tuple[int, ...]]] = {
            name: (dtype, tuple(shape)) for name, dtype, shape in planned
        }
        self.report: MergeReport | None = None
        self.digest: str | None = None
        self._framework = tensors.framework(framework)
        for dtype in sorted({dtype for dtype, _ in self.tensors.values()}):
            self._framework.check(dtype)
        self._prepared = prepared
        self._ahead = ahead
        self._tell = tell or (lambda _: None)
        self._is_begun = False

    def side_files(self) -> list[SideFile]:
        """What would lie beside the weights: names, and bytes or the path of a file to copy.

        Raises:
            ModelError: The donor's files cannot be read.
        """
        return self._prepared.side_files("")

    def __len__(self) -> int:
        return len(self.tensors)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        if self._is_begun:
            raise RunError("a stream is read once: call stream(...) again")
        self._is_begun = True
        return self._merged()

    def _merged(self) -> Iterator[tuple[str, Any]]:
        engine = _mergecore.Stream(self._prepared.plan, self._ahead, self._prepared.device)
        order = list(self.tensors.items())
        _running.add(engine)
        try:
            while (merged := engine.next()) is not None:
                number, held = merged
                name, (dtype, shape) = order[number]
                yield name, self._framework.made(np.asarray(held), dtype, shape)
        finally:
            engine.close()
        words = engine.report()
        assert words is not None  # it has ended, and well
        self.report = MergeReport.from_json(self._prepared.told(words))
        self.digest = engine.digest()
        self._tell(self.report)


def stream(
    request: PathLike | Recipe,
    *,
    framework: Framework = "np",
    threads: int | None = None,
    max_memory: int | None = None,
    ahead: int = AHEAD,
    device: str | None = None,
) -> Stream:
    """Merges tensor by tensor, and writes nothing.

    The tensors come in the order in which they are finished, nearly that of the files, and have the
    very bytes that `run` would write. The engine works on while one is used. A loop that is left
    ends the merge.

    Args:
        request: A recipe file of one document, or a recipe as a dict, as `run` takes them.
        framework: Of the tensors: `"np"`, where bfloat16 is that of ml_dtypes, or `"pt"` for torch.
        threads: As in `merge`.
        max_memory: In bytes, for the engine; the tensors come to it.
        ahead: Bytes of finished tensors that may wait to be taken.
        device: As in `merge`.

    Returns:
        An iterable of (name, tensor), to be read once, with `tensors` beforehand and the `report`
        after it.

    Raises:
        RecipeError: The recipe is wrong, or is a file of several documents.
        ModelNotFoundError: A model is not to be had.
        ModelError: A model is malformed, or does not fit the others.
        RunError: While the tensors are read: an input could not be, or was changed.

    Example:
        >>> for name, tensor in mergecore.stream("recipe.yml", framework="pt"):
        ...     print(name, tensor.shape)
    """
    limits: dict[str, Any] = {"threads": threads, "max_memory": max_memory, "device": device}
    return Stream(prepared(request, **limits), framework, ahead)


def load(
    request: PathLike | Recipe,
    into: Any,
    *,
    threads: int | None = None,
    max_memory: int | None = None,
    device: str | None = None,
) -> MergeReport:
    """Merges into the weights of a torch model that is there.

    Its tensors keep their dtype and device: what is merged is converted to them as it is copied.
    Names are those of its state dict, the prefix of its base model (`model.`) set or left out.

    Args:
        request: As in `stream`.
        into: A `torch.nn.Module`, for example of transformers, or a dict of tensors.
        threads: As in `merge`.
        max_memory: As in `stream`.
        device: As in `merge`: where formulas are worked out, wherever the model is.

    Returns:
        The report of the merge.

    Raises:
        ModelError: The model lacks a tensor, has one that the merge has not, or one of another
            shape: nothing is changed then. Two tensors that are merged differently are one in the
            model: it is half filled then.
        MergecoreError: As `stream` does.

    Example:
        >>> model = AutoModelForCausalLM.from_pretrained("base")
        >>> mergecore.load("recipe.yml", into=model)
    """
    limits: dict[str, Any] = {"threads": threads, "max_memory": max_memory, "device": device}
    merged = stream(request, framework="pt", **limits)
    fill(into, merged)
    assert merged.report is not None
    return merged.report


def prepared(request: PathLike | Recipe, **limits: Any) -> Prepared:
    """A merge of one document, its models found.

    Args:
        request: As in `stream`.
        **limits: As `planning.prepare` takes them.

    Raises:
        MergecoreError: As `stream` does.
    """
    listed = None if isinstance(request, dict) else documents.load(request)
    if listed is not None and len(listed) > 1:
        raise RecipeError(
            f"{os.fspath(request)}: holds {len(listed)} documents, and one is merged without a"  # type: ignore[arg-type]
            " file: run it into a folder"
        )
    single = listed[0].recipe if listed else request
    assert isinstance(single, dict)
    return planning.prepare(single, from_file=listed is not None, **limits)


def fill(model: Any, merged: Stream) -> None:
    """Copies every tensor of a stream of torch into a model's, or into a dict's.

    Raises:
        ModelError: As `load` says.
    """
    state = model if isinstance(model, Mapping) else model.state_dict()
    places = _places(merged, state, getattr(model, "base_model_prefix", ""))
    filled: dict[tuple[Any, ...], str] = {}
    for name, tensor in merged:
        target = state[places[name]]
        # A head and an embedding that are tied are one memory under two names.
        memory = (target.device, target.data_ptr(), target.shape, target.stride())
        is_tied = target.numel() > 0 and memory in filled
        if is_tied and not _alike(tensor.to(target.dtype), target.cpu()):
            raise ModelError(
                f"tensors {filled[memory]} and {name} are merged differently and tied in the"
                " model: untie it in its config"
            )
        filled[memory] = name
        target.detach().copy_(tensor)


def _places(merged: Stream, state: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """The name in the model of each tensor that is merged."""
    places = {name: _place(name, state, prefix) for name in merged.tensors}
    if bare := [name for name, tensor in state.items() if tensor.is_meta]:
        raise ModelError(f"tensor {bare[0]}: has no memory to be filled: it is on meta")
    if lost := [name for name, place in places.items() if place not in state]:
        raise ModelError(f"tensor {lost[0]}: the model has none of that name{_more(lost)}")
    for name, (_, shape) in merged.tensors.items():
        if tuple(state[places[name]].shape) != shape:
            raise ModelError(
                f"tensor {name}: is merged as {list(shape)}, and the model's is"
                f" {list(state[places[name]].shape)}"
            )
    given = {state[place].data_ptr() for place in places.values()}
    passed_over = {_place(name, state, prefix) for name in merged.summary["ignored"]}
    lacking = [
        name
        for name, tensor in state.items()
        if tensor.data_ptr() not in given and name not in passed_over and tensor.numel()
    ]
    if lacking:
        raise ModelError(f"tensor {lacking[0]}: the merge has none of that name{_more(lacking)}")
    return places


def _place(name: str, state: Mapping[str, Any], prefix: str) -> str:
    """A model without a head has no prefix in its own file, and one within a model with a head."""
    if name in state or not prefix:
        return name
    bare = name.removeprefix(f"{prefix}.")
    return bare if bare in state else f"{prefix}.{name}"


def _alike(one: Any, other: Any) -> bool:
    """NaN is like NaN."""
    return bool(((one == other) | ((one != one) & (other != other))).all())


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
