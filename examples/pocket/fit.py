"""How does a model learn from examples? Plain supervised training on the CPU."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM
from vocabulary import BOS, EOS, PAD, SIZE

from mergecore.pocket.tasks import Example

BATCH = 64
POOL = 8  # batches drawn together and sorted by length, so that little is padding


def new_model(seed: int, **shape: int | float) -> LlamaForCausalLM:
    """An untrained Llama of 370 thousand parameters, or of another `shape`; its head width suits
    every kernel."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "vocab_size": SIZE,
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        # Four times the usual: narrow models that start small sit on a plateau for minutes.
        "initializer_range": 0.08,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
    }
    return LlamaForCausalLM(LlamaConfig(**(settings | shape)))


def encode(tokenizer: Tokenizer, examples: list[Example]) -> list[tuple[list[int], int]]:
    """Token ids of `prompt answer </s>`, and how many of them are the prompt."""
    prompts = tokenizer.encode_batch([e.prompt for e in examples])
    answers = tokenizer.encode_batch(
        [f" {e.answer}" if e.prompt else e.answer for e in examples], add_special_tokens=False
    )
    return [(p.ids + a.ids + [EOS], len(p.ids)) for p, a in zip(prompts, answers, strict=True)]


def collate(rows: list[tuple[list[int], int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels, both [batch, time]. Only answers are learned: letters drawn at random
    cannot be predicted, and a model that tries learns nothing but their frequency."""
    time = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), time), PAD)
    labels = torch.full((len(rows), time), -100)
    for i, (row, prompt) in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        labels[i, prompt : len(row)] = ids[i, prompt : len(row)]
    return ids, labels


def batches(
    tokenizer: Tokenizer, stream: Iterator[Example], steps: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """`steps` batches from an endless stream of examples."""
    order = torch.Generator().manual_seed(0)
    for start in range(0, steps, POOL):
        rows = encode(tokenizer, [next(stream) for _ in range(POOL * BATCH)])
        rows.sort(key=lambda row: len(row[0]))
        for i in torch.randperm(POOL, generator=order).tolist()[: steps - start]:
            yield collate(rows[i * BATCH : (i + 1) * BATCH])


def learning_rate(step: int, steps: int) -> float:
    """The share of the peak rate at a step: a short climb, then half a cosine down to a tenth."""
    climb = max(1, steps // 20)
    if step < climb:
        return (step + 1) / climb
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - climb) / max(1, steps - climb)))


def fit(
    model: torch.nn.Module,
    tokenizer: Tokenizer,
    stream: Iterator[Example],
    steps: int,
    rate: float,
) -> float:
    """Train `model` in place; the loss averaged over the last tenth of the steps."""
    read = batches(tokenizer, stream, steps)
    return descend(model, (model(input_ids=i, labels=j).loss for i, j in read), steps, rate)


def descend(
    model: torch.nn.Module, losses: Iterator[torch.Tensor], steps: int, rate: float
) -> float:
    """Take one step down each of `losses`, which are worked out as they are asked for; the average
    of the last tenth of them."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: learning_rate(s, steps))
    model.train()
    seen = []
    for loss in losses:
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        seen.append(loss.item())
    tail = seen[-max(1, steps // 10) :]
    return sum(tail) / len(tail)
