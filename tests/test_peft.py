"""Is `model+adapter` what peft's merge_and_unload makes? Runs where peft is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import adapters
import checkpoints
import mergecore

pytest.importorskip("torch", exc_type=ImportError)
pytest.importorskip("peft", exc_type=ImportError)

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

LLAMA = LlamaConfig(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=32,
    tie_word_embeddings=False,
)
GPT2 = GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=32)
BERT = BertConfig(
    vocab_size=61,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
)
T5 = T5Config(vocab_size=61, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
CLASSES = {
    LlamaConfig: LlamaForCausalLM,
    GPT2Config: GPT2LMHeadModel,
    BertConfig: BertForSequenceClassification,
    T5Config: T5ForConditionalGeneration,
}
PROJECTIONS = ["q_proj", "k_proj", "o_proj", "up_proj", "down_proj"]

CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "lora": (LLAMA, {"r": 8, "lora_alpha": 16, "target_modules": PROJECTIONS}),
    "rslora": (LLAMA, {"r": 6, "lora_alpha": 5, "target_modules": PROJECTIONS, "use_rslora": True}),
    "dora": (LLAMA, {"r": 4, "target_modules": PROJECTIONS, "use_dora": True}),
    "patterns": (
        LLAMA,
        {
            "r": 4,
            "lora_alpha": 7,
            "target_modules": PROJECTIONS,
            "rank_pattern": {
                "layers.1.self_attn.q_proj": 2,
                r"layers\.\d\..*up_proj": 8,
                "proj": 1,
            },
            "alpha_pattern": {"^model.layers.0.self_attn.q_proj": 32, "down_proj": 1, "q_proj": 3},
        },
    ),
    "embedding": (LLAMA, {"r": 4, "target_modules": ["embed_tokens", "lm_head", "v_proj"]}),
    "dora-embedding": (LLAMA, {"r": 4, "target_modules": ["embed_tokens"], "use_dora": True}),
    "saved": (
        LLAMA,
        {"r": 4, "target_modules": ["gate_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    ),
    "gpt2": (GPT2, {"r": 4, "target_modules": ["c_attn", "c_proj", "c_fc"]}),
    "gpt2-square": (GPT2, {"r": 4, "target_modules": ["attn.c_proj"]}),
    "gpt2-dora": (GPT2, {"r": 4, "target_modules": ["c_attn", "c_proj"], "use_dora": True}),
    "bert": (
        BERT,
        {"r": 4, "target_modules": ["query", "attention.output.dense"], "task_type": "SEQ_CLS"},
    ),
    "bert-embedding": (BERT, {"r": 4, "target_modules": ["word_embeddings"]}),
    "t5": (T5, {"r": 4, "target_modules": ["q", "v", "wo"], "task_type": "SEQ_2_SEQ_LM"}),
    "t5-embedding": (T5, {"r": 4, "target_modules": ["shared", "q"]}),
}


def model_of(config: Any) -> Any:
    return CLASSES[type(config)](config)


@pytest.mark.filterwarnings("ignore")  # peft's own, of embeddings that are saved and the like
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("case", CASES)
def test_the_same_weights(tmp_path: Path, case: str, dtype: str) -> None:
    torch.manual_seed(3)
    config, options = CASES[case]
    kind = getattr(torch, dtype)
    base = model_of(config).to(kind)
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.copy_(torch.randn_like(parameter, dtype=torch.float32) * 0.3)
    base.save_pretrained(tmp_path / "base")
    # Factors that are not the zeros that training begins with.
    tuned = get_peft_model(base, LoraConfig(init_lora_weights=False, **options))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_magnitude" in name:
                parameter.mul_(torch.rand_like(parameter) + 0.5)
            elif "lora_" in name or "modules_to_save" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    tuned.save_pretrained(tmp_path / "adapter")

    loaded = type(base).from_pretrained(tmp_path / "base", dtype=kind)
    PeftModel.from_pretrained(loaded, tmp_path / "adapter").merge_and_unload().save_pretrained(
        tmp_path / "peft"
    )
    reference = f"{tmp_path}/base+{tmp_path}/adapter"
    mergecore.merge([reference], "linear", out=tmp_path / "ours")

    ours, want = checkpoints.load(tmp_path / "ours"), checkpoints.load(tmp_path / "peft")
    before = checkpoints.load(tmp_path / "base")
    changed = [n for n in want if not np.array_equal(want[n], before.get(n))]
    assert changed, "the adapter does nothing"
    # An embedding's product is rounded to 16 bits by peft before it is added, and not here. DoRA
    # divides by a norm, which torch sums in float32 and mergecore in float64: in float32 that is a
    # few units for a whole row or column.
    allowed = 6 if dtype == "float32" and "dora" in case else 1
    assert ours.keys() == want.keys()
    for name, tensor in ours.items():
        if name.endswith("DenseReluDense.wo.weight"):  # float16 is float32 to transformers here
            want[name] = want[name].astype(tensor.dtype)
        assert tensor.dtype == before[name].dtype == want[name].dtype
        inputs = [before[name]] if name in before else []
        error = adapters.ulps(tensor, want[name].astype(np.float64), *inputs)
        assert error <= allowed, f"{name}: {error} units in the last place"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_peft_reads_what_is_extracted(tmp_path: Path, config: Any) -> None:
    from mergecore.models.extraction import extract

    torch.manual_seed(4)
    base = model_of(config)
    base.save_pretrained(tmp_path / "base")
    with torch.no_grad():
        for name, parameter in base.named_parameters():
            if not name.endswith(("c_attn.bias", "c_proj.bias", "c_fc.bias")):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    base.save_pretrained(tmp_path / "tuned")
    places = (tmp_path / place for place in ("tuned", "base", "adapter"))
    parts = extract(*places, rank=6, base_name=str(tmp_path / "base"))
    assert {part.how for part in parts} == {"lora", "whole"}

    loaded = type(base).from_pretrained(tmp_path / "base")
    PeftModel.from_pretrained(loaded, tmp_path / "adapter").merge_and_unload().save_pretrained(
        tmp_path / "peft"
    )
    mergecore.merge([f"{tmp_path}/base+{tmp_path}/adapter"], "linear", out=tmp_path / "ours")
    ours, want = checkpoints.load(tmp_path / "ours"), checkpoints.load(tmp_path / "peft")
    before = checkpoints.load(tmp_path / "base")
    assert ours.keys() == want.keys()
    for name, tensor in ours.items():
        assert adapters.ulps(tensor, want[name].astype(np.float64), before[name]) <= 1, name
        assert not np.array_equal(tensor, before[name]) or name.endswith(".bias")
