"""A model of several parts that mergecore and mergekit both merge: T5's shapes, made-up weights."""

from __future__ import annotations

HIDDEN, FFN, HEADS, BUCKETS, VOCABULARY = 18, 29, 3, 8, 43

CONFIG = {
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


def shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
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


MODULAR = {"modular": (shapes(), CONFIG)}
