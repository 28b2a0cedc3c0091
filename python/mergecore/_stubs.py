"""Writes `__init__.pyi` from the registry.

`python -m mergecore._stubs [FILE]` writes it; `--check [FILE]` only says whether it is fresh. The
installed file is meant if none is named.
"""

from __future__ import annotations

import sys
from inspect import Parameter as Argument
from pathlib import Path

import mergecore
from mergecore import docstrings
from mergecore.registry import Method, methods

_TARGET = Path(__file__).with_name("__init__.pyi")

_HEAD = '''\
"""The public face of mergecore. Written by `make stubs`: do not edit."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, TypeVar

'''

_NAMES = """
_HOMES: dict[str, str]
_Tensors = TypeVar("_Tensors")  # an array, a tensor, or a dict of them
_Modifiers: TypeAlias = str | Mapping[str, object] | Sequence[str | Mapping[str, object]]

"""


def stubs() -> str:
    """The text of `__init__.pyi`: the public names, and a typed function for every method."""
    homes: dict[str, list[str]] = {}
    for name, module in mergecore._HOMES.items():
        homes.setdefault(module, []).append(name)
    imports = [
        f"from mergecore.{module} import {name} as {name}\n"
        for module, names in sorted(homes.items())
        for name in sorted(names)
    ]
    names = "".join(f'    "{name}",\n' for name in mergecore.__all__)
    listed = f"\n__all__ = [\n{names}]\n"
    functions = "".join(map(_stub, methods().values()))
    return "".join([_HEAD, *imports, listed, _NAMES, functions]).rstrip("\n") + "\n"


def _stub(method: Method) -> str:
    lines = [f"def {method.name}("]
    keywords = False
    for argument in docstrings.signature(method).parameters.values():
        if argument.kind is Argument.KEYWORD_ONLY and not keywords:
            lines.append("    *,")
            keywords = True
        default = "" if argument.default is Argument.empty else f" = {_literal(argument.default)}"
        annotation = argument.annotation.replace("Tensors", "_Tensors")
        annotation = annotation.replace("Modifiers", "_Modifiers")
        lines.append(f"    {argument.name}: {annotation}{default},")
    doc = docstrings.docstring(method).replace("\n", "\n    ").replace("\n    \n", "\n\n")
    return "\n".join([*lines, ") -> _Tensors:", f'    r"""{doc}\n    """', "", ""])


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def main(arguments: list[str]) -> int:
    """Writes the stubs to a file, or with `--check` says whether that is fresh."""
    check = arguments[:1] == ["--check"]
    named = arguments[1:] if check else arguments
    target = Path(named[0]) if named else _TARGET
    fresh = stubs()
    if not check:
        target.write_text(fresh, "utf-8")
    elif target.read_text("utf-8") != fresh:
        print(f"error: {target} is stale; run `make stubs`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
