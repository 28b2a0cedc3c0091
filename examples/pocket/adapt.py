"""How does an adapter learn a task? LoRA on every linear layer of the base."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from fit import fit
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from mergecore.pocket.tasks import Example

RANK, ALPHA = 8, 16


def adapt(
    base: LlamaForCausalLM,
    tokenizer: Tokenizer,
    stream: Iterator[Example],
    steps: int,
    rate: float,
    seed: int,
) -> tuple[PeftModel, float]:
    """An adapter of `base`, and the loss averaged over the last tenth of the steps."""
    torch.manual_seed(seed)
    settings = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base, settings)
    return model, fit(model, tokenizer, stream, steps, rate)


def save(model: PeftModel, folder: Path, base: str) -> None:
    """The adapter's weights in bfloat16, and a config that names the base by a relative path."""
    model.to(torch.bfloat16).save_pretrained(folder)
    file = folder / "adapter_config.json"
    settings = json.loads(file.read_text())
    # peft writes lists from sets, in an order that changes from run to run.
    settings["target_modules"] = sorted(settings["target_modules"])
    settings["base_model_name_or_path"] = base
    file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
