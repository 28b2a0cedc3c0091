"""How does a method of the registry read as a Python function? Its signature and docstring."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from inspect import Parameter as Argument
from inspect import Signature

from mergecore.registry import Method, Parameter

_WIDTH = 100


def signature(method: Method) -> Signature:
    """`(models, base, *, weights=None, density=0.2, ..., dtype=None, name="", seed=42)`.

    Annotations are text, as in a file that postpones them.
    """
    return Signature(list(_arguments(method)), return_annotation="Tensors")


def docstring(method: Method) -> str:
    """A Google docstring of a method's function, from what the registry says of it."""
    lines = [_sentence(method.summary), "", *textwrap.wrap(method.formula, _WIDTH - 4)]
    lines += ["", *textwrap.wrap(f"Source: {_sentence(method.paper)}", _WIDTH - 4), "", "Args:"]
    for name, text in _arguments_doc(method):
        lines += textwrap.wrap(
            f"{name}: {text}", _WIDTH - 4, initial_indent=" " * 4, subsequent_indent=" " * 8
        )
    lines += [
        "",
        "Returns:",
        "    The merge: an array of the inputs' kind and shape, or a dict of them.",
        "",
        "Raises:",
        "    RecipeError: A parameter is unknown or out of its range.",
        "    ModelError: Names, shapes or dtypes do not fit together.",
    ]
    return "\n".join(lines)


def _arguments(method: Method) -> Iterator[Argument]:
    either, keyword = Argument.POSITIONAL_OR_KEYWORD, Argument.KEYWORD_ONLY
    yield Argument("models", either, annotation="Sequence[Tensors]")
    if method.base == "required":
        yield Argument("base", either, annotation="Tensors")
        yield Argument("onto", keyword, default=None, annotation="Tensors | None")
    else:
        yield Argument("base", either, default=None, annotation="Tensors | None")
    for parameter in method.parameters:
        default = None if parameter.default == "1/N" else parameter.default
        yield Argument(
            parameter.keyword,
            keyword,
            default=Argument.empty if parameter.is_required else default,
            annotation=_annotation(parameter),
        )
    if method.takes_modifiers:
        yield Argument("modifiers", keyword, default=None, annotation="Modifiers | None")
    yield Argument("dtype", keyword, default=None, annotation="object")
    yield Argument("name", keyword, default="", annotation="str")
    yield Argument("seed", keyword, default=42, annotation="int")


def _annotation(parameter: Parameter) -> str:
    words = f"Literal[{', '.join(map(_quoted, parameter.choices))}]"
    if parameter.kind == "choice":
        return words + (" | bool" if parameter.flags else "")
    one = _TYPES[parameter.kind]
    if parameter.kind == "number" and parameter.choices:
        one += f" | {words}"
    several = f" | Sequence[{one}]" if parameter.per_model else ""
    may_be_none = parameter.default == "1/N" or parameter.kind == "mapping"
    return one + several + (" | None" if may_be_none else "")


_TYPES = {
    "number": "float",
    "integer": "int",
    "bool": "bool",
    "method": "str",
    "mapping": "Mapping[str, object]",
}


def _quoted(word: str) -> str:
    return f'"{word}"'


def _arguments_doc(method: Method) -> Iterator[tuple[str, str]]:
    yield (
        "models",
        "NumPy arrays, CPU torch tensors (bfloat16 included), or dicts of either; all alike.",
    )
    if method.base == "required":
        yield "base", "What the models were fine-tuned from."
        yield "onto", "What the merged change is added to; the base if None."
    elif method.base == "optional":
        yield "base", "If given, changes from it are merged, and added to it; else the models are."
    elif method.base == "joins":
        yield "base", "One more input, the last, if given."
    elif method.base == "first":
        yield "base", "The first of the inputs, if given."
    for parameter in method.parameters:
        text = _sentence(parameter.doc)
        if parameter.kind == "number" and parameter.choices:
            text += f" A float or {' or '.join(map(_quoted, parameter.choices))}."
        spread = " One value, or one a model." if parameter.per_model else ""
        yield parameter.keyword, text + spread
    if method.takes_modifiers:
        only = "" if method.base == "required" else " Only with a base."
        text = "What acts on the merged change, in order: names, or mappings of one name to its"
        yield "modifiers", f"{text} parameters; or one of them.{only}"
    yield (
        "dtype",
        "The output's dtype; else that of the base, else of the first model.",
    )
    yield "name", "The name of a bare array, of which random masks are made."
    yield "seed", "The seed of random masks."


def _sentence(text: str) -> str:
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
