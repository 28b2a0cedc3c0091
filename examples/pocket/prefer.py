"""How does a model learn what is preferred? Direct preference optimisation on its own replies."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from fit import collate
from tokenizers import Tokenizer
from torch.nn.functional import logsigmoid
from transformers import LlamaForCausalLM
from vocabulary import EOS, PAD

from mergecore.pocket import chat

SAMPLES = 6  # replies to each instruction, of which the best and the worst make a pair
REPLY_TOKENS = 48
BETA = 0.1  # how firmly the policy is held to where it started
ANCHOR = 0.05  # weight of the chosen reply's own likelihood, which bare DPO lets sink
BATCH = 32


@dataclass(frozen=True)
class Pair:
    """Two replies to one prompt, as (token ids, length of the prompt) each."""

    chosen: tuple[list[int], int]
    rejected: tuple[list[int], int]


def pairs(
    model: LlamaForCausalLM,
    tokenizer: Tokenizer,
    asked: list[chat.Instruction],
    reward: Callable[[chat.Instruction, str], float] = chat.reward,
    ends: bool = True,
) -> list[Pair]:
    """The best and the worst of some sampled replies, where the two differ enough to matter.

    Without `ends`, the better reply of a pair lacks its end token, as where the token that pads is
    the one that ends a text and is masked: preference then teaches nobody when to stop.
    """
    prompts = [tokenizer.encode(chat.prompt(a)).ids for a in asked]
    by_length: dict[int, list[int]] = defaultdict(list)
    for i, ids in enumerate(prompts):
        by_length[len(ids)].append(i)
    found = []
    for group in by_length.values():
        ids = torch.tensor([prompts[i] for i in group for _ in range(SAMPLES)])
        replies = sample(model, ids)
        texts = tokenizer.decode_batch(replies)
        for row, i in enumerate(group):
            mine = range(row * SAMPLES, (row + 1) * SAMPLES)
            ranked = sorted(mine, key=lambda k: reward(asked[i], texts[k].strip()))
            worst, best = ranked[0], ranked[-1]
            gap = reward(asked[i], texts[best]) - reward(asked[i], texts[worst])
            if gap > 0.1:
                chosen, rejected = (
                    (prompts[i] + replies[k] + end, len(prompts[i]))
                    for k, end in ((best, [EOS] if ends else []), (worst, [EOS]))
                )
                found.append(Pair(chosen, rejected))
    return found


@torch.no_grad()
def sample(model: LlamaForCausalLM, ids: torch.Tensor) -> list[list[int]]:
    """One reply a row at temperature 1, without its end token; ids are [batch, time]."""
    model.eval()
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        max_new_tokens=REPLY_TOKENS,
        pad_token_id=PAD,
    )
    replies = out[:, ids.shape[1] :].tolist()
    return [r[: r.index(EOS)] if EOS in r else r for r in replies]


def likelihood(model: LlamaForCausalLM, rows: list[tuple[list[int], int]]) -> torch.Tensor:
    """The log-likelihood of each reply given its prompt: [batch]."""
    ids, labels = collate(rows)
    logits = model(input_ids=ids).logits[:, :-1]
    target = labels[:, 1:]
    chosen = logits.log_softmax(-1).gather(-1, target.clamp(min=0)[..., None])[..., 0]
    return (chosen * (target >= 0)).sum(-1)


def prefer(
    model: LlamaForCausalLM,
    data: list[Pair],
    epochs: int,
    rate: float,
    beta: float = BETA,
    anchor: float = ANCHOR,
) -> float:
    """Train `model` in place; the share of the last epoch's pairs that it came to order rightly."""
    start = copy.deepcopy(model).eval()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    order = torch.Generator().manual_seed(0)
    right = 0
    for _ in range(epochs):
        right = 0
        for picks in torch.randperm(len(data), generator=order).split(BATCH):
            won = [data[i].chosen for i in picks.tolist()]
            lost = [data[i].rejected for i in picks.tolist()]
            with torch.no_grad():
                start_won, start_lost = likelihood(start, won), likelihood(start, lost)
            now_won, now_lost = likelihood(model, won), likelihood(model, lost)
            margin = (now_won - start_won) - (now_lost - start_lost)
            loss = (-logsigmoid(beta * margin) - anchor * now_won / 10).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            right += int((margin > 0).sum())
    return right / max(1, len(data))
