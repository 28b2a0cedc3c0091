"""The compiled engine. It takes and gives JSON; the Python files around it give that its types."""

from collections.abc import Callable
from typing import Any, TypeAlias, final

from numpy import bool_, uint8
from numpy.typing import NDArray

_Tensors: TypeAlias = dict[str, tuple[str, list[int], NDArray[uint8]]]

__all__ = [
    "Bytes",
    "Claim",
    "Opened",
    "Plan",
    "Stream",
    "__version__",
    "check_outputs",
    "checkpoint",
    "claim",
    "free_space",
    "merge_arrays",
    "merge_many",
    "modifiers",
    "random_mask",
    "recipe_models",
    "registry",
    "text_facts",
    "verify",
]

__version__: str

def registry() -> str: ...
def modifiers() -> str: ...
def recipe_models(recipe: str, from_file: bool = False) -> list[str]: ...
def checkpoint(path: str, adapter: str | None = None) -> str: ...
def verify(
    path: str,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> str: ...
def merge_arrays(
    recipe: str,
    models: list[_Tensors],
    base: _Tensors | None,
    onto: _Tensors | None,
    out: _Tensors,
    threads: int | None = None,
) -> str: ...
def merge_many(
    orders: list[tuple[str, Plan, str, list[tuple[str, bytes | str]]]],
    inputs: list[str],
    threads: int | None = None,
    max_memory: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]: ...
def check_outputs(
    outs: list[str], inputs: list[str], first: int, overwrite: bool = False
) -> None: ...
def claim(out: str, inputs: list[str], request: str, overwrite: bool = False) -> Claim: ...
def text_facts(
    text: str, prose: str, shortest: int, window: tuple[int, int]
) -> tuple[
    list[tuple[int, int, int]],
    list[tuple[int, int, int, int, int]],
    list[tuple[int, int, float]],
    list[tuple[int, int, str, bool]],
    list[tuple[int, int, str | None]],
]: ...
def free_space(path: str) -> int: ...
def random_mask(seed: int, name: str, model: int, density: float, out: NDArray[bool_]) -> None: ...

@final
class Bytes:
    @property
    def __array_interface__(self) -> dict[str, Any]: ...

@final
class Claim: ...

@final
class Opened:
    def __new__(cls) -> Opened: ...

@final
class Plan:
    def __new__(
        cls,
        recipe: str,
        locations: dict[str, str],
        *,
        adapters: dict[str, str] | None = None,
        vocabulary: tuple[int, dict[str, bytes], list[list[tuple[str, int]]]] | None = None,
        opened: Opened | None = None,
        from_file: bool = False,
        threads: int | None = None,
        max_memory: int | None = None,
        shard_size: int | None = None,
        tile: int | None = None,
    ) -> Plan: ...
    def summary(self) -> str: ...
    def steps(self) -> str: ...
    def tensors(self) -> str: ...
    def geometry(self, progress: Callable[[int, int], None] | None = None) -> str: ...
    def is_made(self, out: str, side_files: list[tuple[str, bytes | str]]) -> bool: ...
    def run(
        self,
        out: str,
        side_files: list[tuple[str, bytes | str]],
        overwrite: bool = False,
        progress: Callable[[int, int], None] | None = None,
        device: object | None = None,
    ) -> str: ...

@final
class Stream:
    def __new__(cls, plan: Plan, ahead: int, device: object | None = None) -> Stream: ...
    def next(self) -> tuple[int, Bytes] | None: ...
    def close(self) -> None: ...
    def report(self) -> str | None: ...
    def digest(self) -> str | None: ...
