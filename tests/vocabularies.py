"""Models that speak differently: tiny Llama weights, and tokenizers trained on other texts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

import checkpoints

TEXTS = {
    "tales": "the fox and the hound went over the hill and under the bridge to the other side",
    "sums": "seven and eleven make eighteen, eleven and eighteen make twenty nine: so they say",
}


def bpe(text: str, size: int, added: Iterable[str] = ()) -> Tokenizer:
    """A byte-level BPE tokenizer of a text, with special tokens, and some that are added later."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text] * 4, trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in added])
    return tokenizer


def unigram(text: str, size: int, added: Iterable[str] = ()) -> Tokenizer:
    """A Unigram tokenizer of a text, with tokens that are added behind its words."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=size,
        special_tokens=["<s>", "</s>", "<unk>"],
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyz,:"),
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator([text] * 4, trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in added])
    return tokenizer


def words(names: Iterable[str], added: Iterable[str] = ()) -> Tokenizer:
    """A tokenizer that knows whole words, numbered as they come."""
    known = ["<s>", "</s>", "<unk>", *names]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(known)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = ["<s>", "</s>", "<unk>", *added]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    return tokenizer


def save(
    folder: Path,
    tokenizer: Tokenizer,
    seed: int,
    *,
    rows: int | None = None,
    tied: bool = False,
    template: str | None = None,
    **config: Any,
) -> Path:
    """Writes a model with that tokenizer; its embedding may have rows beyond its tokens."""
    rng = np.random.default_rng(seed)
    rows = tokenizer.get_vocab_size() if rows is None else rows
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (rows, 8),
        "model.norm.weight": (8,),
    }
    if not tied:
        shapes["lm_head.weight"] = (rows, 8)
    for name, shape in {
        "input_layernorm": (8,),
        "mlp.down_proj": (8, 12),
        "mlp.gate_proj": (12, 8),
        "mlp.up_proj": (12, 8),
        "post_attention_layernorm": (8,),
        "self_attn.k_proj": (8, 8),
        "self_attn.o_proj": (8, 8),
        "self_attn.q_proj": (8, 8),
        "self_attn.v_proj": (8, 8),
    }.items():
        shapes[f"model.layers.0.{name}.weight"] = shape
    weights = {n: rng.normal(0, 0.1, shape).astype(np.float32) for n, shape in shapes.items()}
    about = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "vocab_size": rows,
        "tie_word_embeddings": tied,
        "torch_dtype": "float32",
        "bos_token_id": tokenizer.token_to_id("<s>"),
        "eos_token_id": tokenizer.token_to_id("</s>"),
    }
    checkpoints.save(folder, weights, **{**about, **config})
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
    }
    if template is not None:
        settings["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def rows(folder: Path, tensor: str = "model.embed_tokens.weight") -> dict[str, np.ndarray]:
    """The rows of a model's tokens."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    weight = checkpoints.load(folder)[tensor]
    return {token: weight[row] for token, row in tokenizer.get_vocab().items() if row < len(weight)}
