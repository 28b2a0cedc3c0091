"""Models of several parts that mergecore and mergekit both merge: T5's shapes (`modular`) and
Gemma 3's (`vision`), made-up weights."""

from __future__ import annotations

from typing import Any

Shapes = dict[str, tuple[int, ...]]

HIDDEN, FFN, HEADS, BUCKETS, VOCABULARY = 18, 29, 3, 8, 43

T5 = {
    "architectures": ["T5ForConditionalGeneration"],
    "model_type": "t5",
    "is_encoder_decoder": True,
    "d_model": HIDDEN,
    "d_kv": HIDDEN // HEADS,
    "d_ff": FFN,
    "num_heads": HEADS,
    "num_layers": 3,
    "num_decoder_layers": 4,
    "relative_attention_num_buckets": BUCKETS,
    "feed_forward_proj": "gated-gelu",
    "vocab_size": VOCABULARY,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}


GEMMA = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "num_hidden_layers": 4,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 1,
        "head_dim": HIDDEN // HEADS,
        "vocab_size": VOCABULARY,
        "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
    },
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "num_hidden_layers": 3,
        "num_attention_heads": HEADS,
        "patch_size": 4,
        "image_size": 12,
        "vision_use_head": False,
    },
    "torch_dtype": "float32",
}


def _t5() -> Shapes:
    shapes: Shapes = {
        "shared.weight": (VOCABULARY, HIDDEN),
        "lm_head.weight": (VOCABULARY, HIDDEN),
    }
    for part, layers in (("encoder", 3), ("decoder", 4)):
        attentions = {"encoder": ["SelfAttention"], "decoder": ["SelfAttention", "EncDecAttention"]}
        for block in range(layers):
            for place, attention in enumerate(attentions[part]):
                layer = f"{part}.block.{block}.layer.{place}"
                shapes[f"{layer}.layer_norm.weight"] = (HIDDEN,)
                for projection in "qkvo":
                    shapes[f"{layer}.{attention}.{projection}.weight"] = (HIDDEN, HIDDEN)
            layer = f"{part}.block.{block}.layer.{len(attentions[part])}"
            shapes[f"{layer}.layer_norm.weight"] = (HIDDEN,)
            shapes[f"{layer}.DenseReluDense.wi_0.weight"] = (FFN, HIDDEN)
            shapes[f"{layer}.DenseReluDense.wi_1.weight"] = (FFN, HIDDEN)
            shapes[f"{layer}.DenseReluDense.wo.weight"] = (HIDDEN, FFN)
        first = f"{part}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        shapes[first] = (BUCKETS, HEADS)
        shapes[f"{part}.final_layer_norm.weight"] = (HIDDEN,)
    return shapes


def _gemma() -> Shapes:
    tower, text = "vision_tower.vision_model", "language_model.model"
    shapes: Shapes = {
        f"{text}.embed_tokens.weight": (VOCABULARY, HIDDEN),
        f"{text}.norm.weight": (HIDDEN,),
        "multi_modal_projector.mm_input_projection_weight": (HIDDEN, HIDDEN),
        "multi_modal_projector.mm_soft_emb_norm.weight": (HIDDEN,),
        f"{tower}.embeddings.patch_embedding.weight": (HIDDEN, 3, 4, 4),
        f"{tower}.embeddings.patch_embedding.bias": (HIDDEN,),
        f"{tower}.embeddings.position_embedding.weight": (9, HIDDEN),
        f"{tower}.post_layernorm.weight": (HIDDEN,),
        f"{tower}.post_layernorm.bias": (HIDDEN,),
    }
    head = HIDDEN // HEADS
    within: Shapes = {
        "input_layernorm": (HIDDEN,),
        "post_attention_layernorm": (HIDDEN,),
        "pre_feedforward_layernorm": (HIDDEN,),
        "post_feedforward_layernorm": (HIDDEN,),
        "self_attn.q_norm": (head,),
        "self_attn.k_norm": (head,),
        "self_attn.q_proj": (HIDDEN, HIDDEN),
        "self_attn.k_proj": (head, HIDDEN),
        "self_attn.v_proj": (head, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HIDDEN),
        "mlp.gate_proj": (FFN, HIDDEN),
        "mlp.up_proj": (FFN, HIDDEN),
        "mlp.down_proj": (HIDDEN, FFN),
    }
    for layer in range(4):
        shapes |= {f"{text}.layers.{layer}.{name}.weight": x for name, x in within.items()}
    within = {f"self_attn.{x}_proj": (HIDDEN, HIDDEN) for x in ("q", "k", "v", "out")}
    within |= {"mlp.fc1": (FFN, HIDDEN), "mlp.fc2": (HIDDEN, FFN)}
    within |= {"layer_norm1": (HIDDEN,), "layer_norm2": (HIDDEN,)}
    for layer in range(3):
        for name, shape in within.items():
            shapes[f"{tower}.encoder.layers.{layer}.{name}.weight"] = shape
            shapes[f"{tower}.encoder.layers.{layer}.{name}.bias"] = shape[:1]
    return shapes


MODULAR: dict[str, tuple[Shapes, dict[str, Any]]] = {
    "modular": (_t5(), T5),
    "vision": (_gemma(), GEMMA),
}
"""The shapes of every tensor, and the config, of a family."""
