"""The recipes that are run by both: name → family and recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml
from architectures import ARCHITECTURES
from deviations import MERGEKIT_KEEPS_LAYERS, MERGEKIT_REFUSES
from families import ADAPTED, DTYPES


def recipe(family: str, method: str, *models: str, each: Sequence[dict], **shared: object) -> dict:
    """A recipe as its file has it, models relative to the family's folder."""
    listed = [{"model": m, "parameters": p} for m, p in zip(models, each, strict=True)]
    base = {} if method in ("linear", "passthrough") else {"base_model": "base"}
    dtypes = {"dtype": "float32", "out_dtype": DTYPES[family]}
    return {"merge_method": method, "models": listed, "parameters": shared, **base, **dtypes}


def weights(*values: float, density: Sequence[float] = ()) -> list[dict]:
    each: list[dict] = [{"weight": value} for value in values]
    for parameters, value in zip(each, density, strict=False):
        parameters["density"] = value
    return each


def _case(family, method, models, each, **shared):
    return family, recipe(family, method, *models, each=each, **shared)


AB, NONE = ["a", "b"], [{}, {}]
CASES = {
    "linear": _case("bf16", "linear", AB, weights(0.3, 0.7)),
    "linear-sum": _case("f32", "linear", AB, weights(1, 2), normalize=False),
    "linear-negative": _case("f16", "linear", AB, weights(0.75, -0.25)),
    "linear-all": _case("tied", "linear", ["base", *AB], weights(1, 1, 0.1)),
    "arithmetic": _case("bf16", "task_arithmetic", AB, weights(0.6, 0.4)),
    "arithmetic-lambda": _case("f32", "task_arithmetic", AB, weights(1, -0.5), **{"lambda": 0.7}),
    "arithmetic-mean": _case("f16", "task_arithmetic", AB, weights(3, 0.5), normalize=True),
    "arithmetic-cancel": _case("bf16", "task_arithmetic", AB, weights(1, -1), normalize=True),
    "slerp-near": _case("bf16", "slerp", ["base", "a"], NONE, t=0.4),
    "slerp-start": _case("f32", "slerp", ["base", "far"], NONE, t=0),
    "slerp-end": _case("f16", "slerp", ["base", "far"], NONE, t=1),
    "slerp-between": _case("f32", "slerp", ["base", "far"], NONE, t=0.3),
    "slerp-beyond": _case("bf16", "slerp", ["far", "base"], NONE, t=1.4),
    "slerp-before": _case("tied", "slerp", ["base", "far"], NONE, t=-0.2),
    "ties": _case("bf16", "ties", AB, weights(0.5, 0.5, density=(0.2, 0.2))),
    "ties-uneven": _case("f32", "ties", AB, weights(1, 0.3, density=(0.5, 0.1)), **{"lambda": 1.5}),
    "ties-negative": _case("f16", "ties", AB, weights(1, -0.4, density=(0.7, 0.7))),
    "ties-sum": _case("f32", "ties", AB, weights(1, 1, density=(0.9, 0.6)), normalize=False),
    "ties-all": _case("bf16", "ties", AB, weights(0.5, 0.5)),
    "ties-nothing": _case("f32", "ties", AB, weights(0.5, 0.5, density=(0, 0))),
    "ties-large": _case("tied", "ties", AB, weights(0.5, 0.8, density=(0.3, 0.6))),
    "ties-three": _case("tied", "ties", [*AB, "far"], weights(1, 1, 1, density=(0.2, 0.2, 0.2))),
    "ties-l1": _case("f32", "ties", AB, weights(0.6, 0.4, density=(0.3, 0.5)), rescale=True),
    "dare-linear": _case("bf16", "dare_linear", AB, weights(0.5, 0.9, density=(1, 0))),
    "dare-ties": _case("f32", "dare_ties", AB, weights(0.5, 0.9), **{"lambda": 0.8}),
    "dare-ties-mean": _case("f16", "dare_ties", AB, weights(0.5, 0.9), normalize=True),
    "della": _case("bf16", "della", AB, weights(0.5, 0.9, density=(1, 0))),
    "della-all": _case("f32", "della", AB, weights(0.5, 0.9)),
    "della-linear": _case("f16", "della_linear", AB, weights(0.5, 0.9, density=(0, 1))),
    "crumbs": _case("bf16", "breadcrumbs", AB, weights(0.5, 0.5, density=(0.9, 0.3))),
    "crumbs-few": _case("f32", "breadcrumbs", AB, weights(1, 0.3, density=(0.001, 0.1)), gamma=0.2),
    "crumbs-many": _case("f16", "breadcrumbs", AB, weights(1, -0.4, density=(0.9, 1)), gamma=0.5),
    "crumbs-l1": _case("f32", "breadcrumbs", AB, weights(1, 1, density=(0.5, 0.7)), rescale=True),
    "crumbs-ties": _case("f32", "breadcrumbs_ties", AB, weights(1, 0.5, density=(0.5, 0.7))),
    "crumbs-large": _case("tied", "breadcrumbs_ties", AB, weights(1, 1, density=(0.3, 0.6))),
    "sce": _case("bf16", "sce", AB, NONE),
    "sce-half": _case("f32", "sce", AB, NONE, select_topk=0.5),
    "sce-far": _case("f32", "sce", [*AB, "far"], [*NONE, {}], select_topk=0.3),
    "sce-one": _case("f32", "sce", ["a"], [{}], select_topk=0.5),
    "sce-large": _case("tied", "sce", [*AB, "far"], [*NONE, {}], select_topk=0.1),
    "ram": _case("bf16", "ram", AB, NONE),
    "ram-three": _case("f32", "ram", [*AB, "far"], [*NONE, {}], epsilon=4e-4),
    "ramplus": _case("f32", "ramplus_tl", AB, NONE),
    "ramplus-three": _case(
        "f16", "ramplus_tl", [*AB, "far"], [*NONE, {}], epsilon=3e-4, r=0.7, alpha=5
    ),
    "nearswap": _case("bf16", "nearswap", ["a"], [{}], t=2e-4),
    "nearswap-far": _case("f32", "nearswap", ["far"], [{}], t=0.01),
    "fusion": _case("f32", "arcee_fusion", ["far"], [{}]),
    "fusion-bf16": _case("bf16", "arcee_fusion", ["far"], [{}]),
    "passthrough": _case("bf16", "passthrough", ["a"], [{}]),
    "passthrough-scale": _case("f32", "passthrough", ["a"], [{"scale": 0.7}]),
}

# What only mergecore merges.
REFUSED = {
    family: _case(family, "task_arithmetic", AB, weights(0.3, 0.7)) for family in MERGEKIT_REFUSES
}

# Every architecture, with gradients over its layers and filters of its names.
_ATTENTION = [{"filter": part, "value": [0, 0.5, 1]} for part in ("ttention", "attn")]
_RISING, _FALLING = [0.1, 0.5, 1], [1, 0.2]
for _family in [family for family in ARCHITECTURES if family not in MERGEKIT_REFUSES]:
    CASES |= {
        f"{_family}-linear": _case(_family, "linear", AB, weights(0.3, 0.7)),
        f"{_family}-arithmetic": _case(
            _family, "task_arithmetic", AB, weights(_RISING, _FALLING), **{"lambda": 0.8}
        ),
        f"{_family}-ties": _case(
            _family, "ties", AB, weights(0.5, _RISING, density=(_FALLING, 0.3))
        ),
        f"{_family}-slerp": _case(
            _family, "slerp", ["base", "far"], NONE, t=[*_ATTENTION, {"value": 0.4}]
        ),
        f"{_family}-dare-ties": _case(_family, "dare_ties", AB, weights(_FALLING, 0.9)),
    }

# Their layers stacked; what lies before and behind them is of different models.
for _family in ("bert-mlm", "gpt2", "qwen2"):
    _slices = [
        {"sources": [{"model": model, "layer_range": layers} for model in pair]}
        for pair, layers in (
            (["a", "far"], [0, 2]),
            (["b", "base"], [1, 3]),
            (["far", "a"], [2, 3]),
        )
    ]
    _shared = {"parameters": {"weight": [0.3, 0.5]}, "dtype": "float32"}
    _cases = REFUSED if _family in MERGEKIT_KEEPS_LAYERS else CASES
    _cases[f"{_family}-slices"] = _family, {"merge_method": "linear", "slices": _slices, **_shared}

# Adapters, which mergekit merges with peft before it begins.
for _family in ADAPTED:
    for _adapter in ("lora", "rslora"):
        _with = [f"base+{_adapter}", "a"]
        CASES |= {
            f"{_family}-{_adapter}": _case(_family, "linear", _with, weights(0.6, 0.4)),
            f"{_family}-{_adapter}-changes": _case(
                _family, "task_arithmetic", [f"a+{_adapter}", "b"], weights(0.7, 0.5)
            ),
            f"{_family}-{_adapter}-ties": _case(
                _family, "ties", _with, weights(1, 0.5, density=(0.4, 0.6))
            ),
        }

# Outputs in shards of so many bytes.
SHARD_SIZES = {"shards-linear": 4_000, "shards-ties": 20_000, "shards-slices": 7_000}
CASES |= {
    "shards-linear": _case("bf16", "linear", AB, weights(0.3, 0.7)),
    "shards-ties": _case("t5", "ties", AB, weights(0.5, 0.5, density=(0.4, 0.3))),
}

# Recipes as users write them, one file a construct, in a folder called like the family.
for _file in sorted(Path(__file__).with_name("recipes").glob("*/*.yml")):
    CASES[_file.stem] = (_file.parent.name, yaml.safe_load(_file.read_text("utf-8")))
