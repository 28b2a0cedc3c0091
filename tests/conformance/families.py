"""The models that mergecore and mergekit both merge: real shapes, made-up weights."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np

import checkpoints

DTYPES = {
    "bf16": "bfloat16",
    "f16": "float16",
    "f32": "float32",
    "tied": "bfloat16",
    "deep": "float32",
}
"""The families, and the dtype of each."""


def write_family(folder: Path, family: str, seed: int) -> None:
    """Tiny Llama models of odd shapes; `tied` has one embedding, larger than a threshold's list,
    and `deep` has layers enough for slices and gradients."""
    rng = np.random.default_rng(seed)
    dtype = {"f32": np.float32, "deep": np.float32, "f16": np.float16}.get(
        family, ml_dtypes.bfloat16
    )
    vocabulary, hidden, ffn, head = (16_411, 66, 29, 22) if family == "tied" else (43, 18, 29, 6)
    shapes = {
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
    config = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // head,
        "num_key_value_heads": 1,
        "head_dim": head,
        "vocab_size": vocabulary,
        "tie_word_embeddings": family == "tied",
        "torch_dtype": DTYPES[family],
    }
    base = {name: rng.normal(0, 0.02, shape).astype(dtype) for name, shape in shapes.items()}
    checkpoints.save(folder / "base", base, **config)
    for model in ("a", "b"):
        state = {
            name: x.astype(np.float64) + change(rng, x.shape, steps=family != "deep")
            for name, x in base.items()
        }
        state = {name: x.astype(dtype) for name, x in state.items()}
        checkpoints.save(folder / model, state, shards=2, **config)
    far = {name: rng.normal(0, 0.02, shape).astype(dtype) for name, shape in shapes.items()}
    checkpoints.save(folder / "far", far, **config)


def change(rng: np.random.Generator, shape: tuple[int, ...], *, steps: bool) -> np.ndarray:
    """What a fine-tune adds: small noise; with `steps` zeros, too, and equal magnitudes whose signs
    cancel or agree, so that many tie at a threshold."""
    noise = rng.normal(0, 4e-4, shape)
    if not steps:
        return noise
    coarse = rng.choice([0.0, 0.0, 2.0**-11, -(2.0**-11)], shape)
    return np.where(rng.random(shape) < 0.7, noise, coarse)
