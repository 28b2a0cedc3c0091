"""Models that are no Llama: the tensors of T5, BERT, GPT-2 and Qwen 2, as checkpoints have them."""

from __future__ import annotations

from typing import Any

Shapes = dict[str, tuple[int, ...]]

VOCABULARY, WIDTH, INNER = 43, 16, 28


def _t5(*, tied: bool, gated: bool = True) -> tuple[Shapes, dict[str, Any]]:
    """Uneven stacks: a gradient runs over each from its own first layer to its own last."""
    layers = {"encoder": 3, "decoder": 2}
    shapes: Shapes = {"shared.weight": (VOCABULARY, WIDTH)}
    if not tied:
        shapes["lm_head.weight"] = (VOCABULARY, WIDTH)
    for stack, count in layers.items():
        if tied:  # torch.save wrote one tensor under each of its names
            shapes[f"{stack}.embed_tokens.weight"] = (VOCABULARY, WIDTH)
        shapes[f"{stack}.final_layer_norm.weight"] = (WIDTH,)
        attentions = ["SelfAttention", "EncDecAttention"][: 2 if stack == "decoder" else 1]
        for number in range(count):
            block = f"{stack}.block.{number}.layer"
            for place, attention in enumerate(attentions):
                shapes[f"{block}.{place}.layer_norm.weight"] = (WIDTH,)
                for name in "qkvo":
                    shape = (WIDTH, 12) if name == "o" else (12, WIDTH)
                    shapes[f"{block}.{place}.{attention}.{name}.weight"] = shape
            last = len(attentions)
            shapes[f"{block}.{last}.layer_norm.weight"] = (WIDTH,)
            for name in ("wi_0", "wi_1") if gated else ("wi",):
                shapes[f"{block}.{last}.DenseReluDense.{name}.weight"] = (INNER, WIDTH)
            shapes[f"{block}.{last}.DenseReluDense.wo.weight"] = (WIDTH, INNER)
        first = f"{stack}.block.0.layer"
        shapes[f"{first}.0.SelfAttention.relative_attention_bias.weight"] = (8, 3)
    if tied:  # in every T5 checkpoint of 2020, and read by nothing
        unread = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
        shapes[unread] = (8, 3)
    return shapes, {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        "d_model": WIDTH,
        "d_kv": 4,
        "d_ff": INNER,
        "num_heads": 3,
        "num_layers": layers["encoder"],
        "num_decoder_layers": layers["decoder"],
        "relative_attention_num_buckets": 8,
        "feed_forward_proj": "gated-gelu" if gated else "relu",
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": tied,
    }


def _bert(*, head: bool) -> tuple[Shapes, dict[str, Any]]:
    """A bare encoder; or one as bert-base-uncased is, with heads and its old names of norms."""
    start, weight, bias = ("bert.", "gamma", "beta") if head else ("", "weight", "bias")
    shapes: Shapes = {}

    def norm(name: str) -> None:
        shapes[f"{name}.LayerNorm.{weight}"] = shapes[f"{name}.LayerNorm.{bias}"] = (WIDTH,)

    def dense(name: str, out: int = WIDTH, into: int = WIDTH) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, into), (out,)

    embeddings = {"word": VOCABULARY, "position": 24, "token_type": 2}
    for kind, rows in embeddings.items():
        shapes[f"{start}embeddings.{kind}_embeddings.weight"] = (rows, WIDTH)
    norm(f"{start}embeddings")
    for number in range(3):
        layer = f"{start}encoder.layer.{number}"
        for name in ("query", "key", "value"):
            dense(f"{layer}.attention.self.{name}")
        dense(f"{layer}.attention.output.dense")
        dense(f"{layer}.intermediate.dense", INNER, WIDTH)
        dense(f"{layer}.output.dense", WIDTH, INNER)
        norm(f"{layer}.attention.output")
        norm(f"{layer}.output")
    dense(f"{start}pooler.dense")
    if head:
        shapes["cls.predictions.bias"] = (VOCABULARY,)
        dense("cls.predictions.transform.dense")
        norm("cls.predictions.transform")
        dense("cls.seq_relationship", 2)
        shapes["bert.embeddings.position_ids"] = (1, 24)
    return shapes, {
        "model_type": "bert",
        "architectures": ["BertForMaskedLM" if head else "BertModel"],
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": 24,
        "vocab_size": VOCABULARY,
    }


def _gpt2() -> tuple[Shapes, dict[str, Any]]:
    """Conv1D: weights are (in, out), and query, key and value one tensor."""
    shapes: Shapes = {
        "transformer.wte.weight": (VOCABULARY, WIDTH),
        "transformer.wpe.weight": (24, WIDTH),
        "transformer.ln_f.weight": (WIDTH,),
        "transformer.ln_f.bias": (WIDTH,),
    }
    linear = {
        "attn.c_attn": (WIDTH, 3 * WIDTH),
        "attn.c_proj": (WIDTH, WIDTH),
        "mlp.c_fc": (WIDTH, 4 * WIDTH),
        "mlp.c_proj": (4 * WIDTH, WIDTH),
        "ln_1": (WIDTH,),
        "ln_2": (WIDTH,),
    }
    for number in range(4):
        for name, shape in linear.items():
            shapes[f"transformer.h.{number}.{name}.weight"] = shape
            shapes[f"transformer.h.{number}.{name}.bias"] = shape[-1:]
    return shapes, {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_embd": WIDTH,
        "n_layer": 4,
        "n_head": 4,
        "n_positions": 24,
        "vocab_size": VOCABULARY,
    }


def _qwen2() -> tuple[Shapes, dict[str, Any]]:
    """One embedding for both ends, and biases in attention."""
    shapes: Shapes = {"model.embed_tokens.weight": (VOCABULARY, WIDTH)}
    shapes["model.norm.weight"] = (WIDTH,)
    for number in range(4):
        layer = f"model.layers.{number}"
        for name, out in {"q": WIDTH, "k": 4, "v": 4}.items():
            shapes[f"{layer}.self_attn.{name}_proj.weight"] = (out, WIDTH)
            shapes[f"{layer}.self_attn.{name}_proj.bias"] = (out,)
        shapes[f"{layer}.self_attn.o_proj.weight"] = (WIDTH, WIDTH)
        for name in ("gate", "up"):
            shapes[f"{layer}.mlp.{name}_proj.weight"] = (INNER, WIDTH)
        shapes[f"{layer}.mlp.down_proj.weight"] = (WIDTH, INNER)
        for name in ("input", "post_attention"):
            shapes[f"{layer}.{name}_layernorm.weight"] = (WIDTH,)
    return shapes, {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": True,
    }


ARCHITECTURES: dict[str, tuple[Shapes, dict[str, Any]]] = {
    "t5": _t5(tied=True),
    "t5-untied": _t5(tied=False),
    "t5-2019": _t5(tied=True, gated=False),
    "bert": _bert(head=False),
    "bert-mlm": _bert(head=True),
    "gpt2": _gpt2(),
    "qwen2": _qwen2(),
}
"""The shapes of every tensor, and the config, of a family."""
