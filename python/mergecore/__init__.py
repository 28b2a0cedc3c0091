"""mergecore merges LLM checkpoints at disk speed in a few hundred megabytes of memory.

This file is the list of the public names and where each one lives. They are looked up when first
used, so that `import mergecore` costs next to nothing: neither NumPy nor the compiled engine is
loaded before it is needed. The functions for arrays (`ties`, `slerp`, ...) are not listed: there is
one for every method in the engine's registry.
"""

from __future__ import annotations

import importlib
import sys

_HOMES = {
    "merge": "merging",
    "run": "merging",
    "merge_many": "many",
    "stream": "streaming",
    "load": "streaming",
    "Stream": "streaming",
    "extrapolate": "merging",
    "verify": "merging",
    "MergeReport": "merging",
    "compare": "diagnose.geometry",
    "Geometry": "diagnose.geometry",
    "mergeability": "diagnose.mergeability",
    "Mergeability": "diagnose.mergeability",
    "random_mask": "arrays",
    "methods": "registry",
    "modifiers": "registry",
    "Method": "registry",
    "Modifier": "registry",
    "Parameter": "registry",
    "MergecoreError": "errors",
    "RecipeError": "errors",
    "ModelError": "errors",
    "ModelNotFoundError": "errors",
    "OutputExistsError": "errors",
    "SpaceError": "errors",
    "RunError": "errors",
    "__version__": "_mergecore",
}


def _method_names() -> list[str]:
    from mergecore.registry import methods

    return list(methods())


def __getattr__(name: str) -> object:
    if name in _HOMES:
        value = getattr(importlib.import_module(f"mergecore.{_HOMES[name]}"), name)
    elif name == "__all__":
        return sorted([*_HOMES, *_method_names()])
    elif not name.startswith("_") and name in _method_names():
        from mergecore.arrays import function

        value = function(name)
    else:
        raise AttributeError(f"module 'mergecore' has no attribute {name!r}")
    setattr(sys.modules[__name__], name, value)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_method_names()})
