"""The models that mergecore and mergekit both merge: real shapes, made-up weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - so that numpy knows bfloat16
import numpy as np
from architectures import ARCHITECTURES, Shapes
from modular import MODULAR

import adapters
import checkpoints
from mergecore import recipe as mergecore_recipe

DTYPES = {
    "bf16": "bfloat16",
    "f16": "float16",
    "f32": "float32",
    "tied": "bfloat16",
    "deep": "float32",
    **dict.fromkeys([*ARCHITECTURES, *MODULAR], "float32"),
}
"""The families, and the dtype of each."""

ADAPTED = {"deep": ["q_proj", "down_proj"], "gpt2": ["c_attn", "mlp.c_proj"]}
"""Families with adapters, lora and rslora, and the modules that those adapt."""

STEPPED = ("bf16", "f16", "f32", "tied")
"""Families whose changes tie at thresholds."""


def write_family(folder: Path, family: str, seed: int) -> None:
    """A base, fine-tunes a and b of it, and a model called far that is none."""
    rng = np.random.default_rng(seed)
    written = ARCHITECTURES | MODULAR
    shapes, config = written[family] if family in written else llama(family)
    config = {**config, "torch_dtype": DTYPES[family]}
    dtype = np.dtype(DTYPES[family])
    base = {name: rng.normal(0, 0.02, shape).astype(dtype) for name, shape in shapes.items()}
    counted = {n: np.arange(base[n].size)[None] for n in base if n.endswith("position_ids")}
    checkpoints.save(folder / "base", base | counted, **config)
    for model in ("a", "b"):
        state = {
            name: x.astype(np.float64) + change(rng, x.shape, steps=family in STEPPED)
            for name, x in base.items()
        }
        state = {name: x.astype(dtype) for name, x in state.items()}
        checkpoints.save(folder / model, state | counted, shards=2, **config)
    far = {name: rng.normal(0, 0.02, shape).astype(dtype) for name, shape in shapes.items()}
    checkpoints.save(folder / "far", far | counted, **config)
    for adapter in ("lora", "rslora") if family in ADAPTED else ():
        write_adapter(folder / adapter, shapes, ADAPTED[family], rng)


def write_adapter(folder: Path, shapes: Shapes, modules: list[str], rng: Any) -> None:
    """LoRA of rank 4 on some modules of every layer, with a scale of 1.25, or by rsLoRA of 2.5."""
    factors = {}
    for name, shape in shapes.items():
        module = name.removesuffix(".weight")
        if module != name and module.endswith(tuple(modules)):
            transposed = name.startswith("transformer.h.")  # peft's own are (out, in) all the same
            factors |= adapters.factors(rng, module, shape[::-1] if transposed else shape, 4)
    options = {"r": 4, "lora_alpha": 5, "target_modules": modules}
    scaled = {name: (x * 0.15).astype(x.dtype) for name, x in factors.items()}
    adapters.save(folder, scaled, use_rslora=folder.name == "rslora", **options)


def in_place(file: Path, content: dict, family: Path | str) -> Path:
    """Writes a recipe that names a family's models, as it finds them."""

    def found(reference: str) -> str:
        return "+".join(f"{family}/{part}" for part in reference.split("+"))

    recipe = mergecore_recipe.with_references(content, found)
    file.write_text(json.dumps(recipe))  # JSON is YAML
    return file


def llama(family: str) -> tuple[Shapes, dict[str, Any]]:
    """Tiny Llama models of odd shapes; `tied` has one embedding, larger than a threshold's list,
    and `deep` has layers enough for slices and gradients."""
    vocabulary, hidden, ffn, head = (16_411, 66, 29, 22) if family == "tied" else (43, 18, 29, 6)
    shapes: Shapes = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
    }
    if family != "tied":
        shapes["lm_head.weight"] = (vocabulary, hidden)
    layers = 5 if family == "deep" else 2
    for layer in range(layers):
        within = {
            "input_layernorm": (hidden,),
            "mlp.down_proj": (hidden, ffn),
            "mlp.gate_proj": (ffn, hidden),
            "mlp.up_proj": (ffn, hidden),
            "post_attention_layernorm": (hidden,),
            "self_attn.k_proj": (head, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.v_proj": (head, hidden),
        }
        shapes |= {f"model.layers.{layer}.{n}.weight": shape for n, shape in within.items()}
    return shapes, {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // head,
        "num_key_value_heads": 1,
        "head_dim": head,
        "vocab_size": vocabulary,
        "tie_word_embeddings": family == "tied",
    }


def change(rng: np.random.Generator, shape: tuple[int, ...], *, steps: bool) -> np.ndarray:
    """What a fine-tune adds: small noise; with `steps` zeros, too, and equal magnitudes whose signs
    cancel or agree, so that many tie at a threshold."""
    noise = rng.normal(0, 4e-4, shape)
    if not steps:
        return noise
    coarse = rng.choice([0.0, 0.0, 2.0**-11, -(2.0**-11)], shape)
    return np.where(rng.random(shape) < 0.7, noise, coarse)
