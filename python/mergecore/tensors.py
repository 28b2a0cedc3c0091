"""How do arrays in memory reach the engine, and how do its tensors come out? As views of their
bytes, never as copies of them.

Three kinds are known: NumPy arrays, with ml_dtypes' bfloat16; torch tensors on the CPU, bfloat16
included; and nothing else. torch is asked about only if the caller has imported it already.
"""

from __future__ import annotations

import sys
from typing import Any, Protocol, TypeAlias

import numpy as np

from mergecore.errors import ModelError, RecipeError

View: TypeAlias = tuple[str, list[int], np.ndarray[Any, np.dtype[np.uint8]]]
"""dtype name, shape, and a flat contiguous view of the bytes."""

FLOATS = ("float64", "float32", "bfloat16", "float16")


class Kind(Protocol):
    """What must be known of a kind of array.

    `converted` is a contiguous copy in another dtype, and what the engine writes the merge into:
    what it does not write (derived buffers) is then right already.
    """

    def dtype_name(self, array: Any) -> str: ...
    def view(self, array: Any) -> View: ...
    def converted(self, array: Any, dtype: str | None) -> Any: ...
    def equal(self, left: Any, right: Any) -> bool: ...
    def copy(self, array: Any) -> Any: ...


def kind_of(array: object) -> Kind:
    """The kind of an array.

    Raises:
        TypeError: It is neither a NumPy array nor a torch tensor.
    """
    if isinstance(array, np.ndarray | np.generic):
        return _Numpy()
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        return _Torch()
    raise TypeError(
        f"expected NumPy arrays, torch tensors or dicts of them, not {type(array).__name__}"
    )


def dtype_name(dtype: object) -> str:
    """The name of a dtype given as a string, a NumPy dtype or a torch dtype.

    Raises:
        ModelError: It is not one that weights are written in.
    """
    name = str(dtype).removeprefix("torch.") if not isinstance(dtype, str | type) else dtype
    if isinstance(name, type):
        name = np.dtype(name).name
    name = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}.get(name, name)
    if name not in FLOATS:
        raise ModelError(f"dtype {name} is not one of {', '.join(FLOATS)}")
    return name


class Framework(Protocol):
    """What makes tensors of bytes."""

    def check(self, dtype: str) -> None:
        """Refuses a dtype that it does not have."""

    def made(self, flat: Any, dtype: str, shape: tuple[int, ...]) -> Any:
        """A tensor on the memory of a flat array of uint8."""


def framework(name: str) -> Framework:
    """What makes NumPy arrays (`np`) or torch tensors (`pt`).

    Raises:
        RecipeError: Another name; or torch is not installed.
    """
    if name == "np":
        return _Numpy()
    if name != "pt":
        raise RecipeError(f'framework is "np" or "pt", not {name!r}')
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise RecipeError("torch is not installed: pip install 'mergecore[torch]'") from error
    return _Torch()


class _Numpy:
    def check(self, dtype: str) -> None:
        _numpy_dtype(dtype, np.dtype(np.uint8))

    def made(self, flat: Any, dtype: str, shape: tuple[int, ...]) -> Any:
        return flat.view(_numpy_dtype(dtype, flat.dtype)).reshape(shape)

    def dtype_name(self, array: Any) -> str:
        return str(array.dtype.name)

    def view(self, array: Any) -> View:
        native = np.asarray(array, dtype=array.dtype.newbyteorder("="))
        flat = np.ascontiguousarray(native).reshape(-1)
        return self.dtype_name(array), list(array.shape), flat.view(np.uint8)

    def converted(self, array: Any, dtype: str | None) -> Any:
        with np.errstate(over="ignore", invalid="ignore"):  # it is the merge whose range matters
            return np.array(array, _numpy_dtype(dtype or array.dtype.name, array.dtype), order="C")

    def equal(self, left: Any, right: Any) -> bool:
        return bool(left.shape == right.shape and np.array_equal(left, right))

    def copy(self, array: Any) -> Any:
        return np.array(array)


class _Torch:
    def check(self, dtype: str) -> None:
        """It has them all."""

    def made(self, flat: Any, dtype: str, shape: tuple[int, ...]) -> Any:
        torch = sys.modules["torch"]
        return torch.from_numpy(flat).view(getattr(torch, dtype)).reshape(shape)

    def dtype_name(self, array: Any) -> str:
        return str(array.dtype).removeprefix("torch.")

    def view(self, array: Any) -> View:
        torch = sys.modules["torch"]
        if array.device.type != "cpu":
            raise ModelError(
                f"a tensor is on {array.device}; merges run on the CPU: pass tensor.cpu()"
            )
        if array.layout != torch.strided:
            raise ModelError(f"a tensor has the layout {array.layout}; pass tensor.to_dense()")
        # NumPy has no bfloat16; bytes need none.
        flat = array.detach().contiguous().reshape(-1).view(torch.uint8)
        return self.dtype_name(array), list(array.shape), flat.numpy()

    def converted(self, array: Any, dtype: str | None) -> Any:
        torch = sys.modules["torch"]
        kind = getattr(torch, dtype) if dtype else array.dtype
        return array.detach().to(kind, copy=True, memory_format=torch.contiguous_format)

    def equal(self, left: Any, right: Any) -> bool:
        return bool(sys.modules["torch"].equal(left, right))

    def copy(self, array: Any) -> Any:
        return array.detach().clone()


def _numpy_dtype(name: str, like: np.dtype[Any]) -> np.dtype[Any]:
    if like.name == name:
        native: np.dtype[Any] = like.newbyteorder("=")
        return native
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError:
        raise ModelError(
            "NumPy has no bfloat16 of its own: pip install ml_dtypes, or pass another dtype="
        ) from None
    bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return bfloat16
