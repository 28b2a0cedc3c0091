"""How does a model learn to grade replies? Pairwise preferences (Bradley and Terry 1952)."""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from fit import learning_rate
from tokenizers import Tokenizer
from torch.nn.functional import logsigmoid
from transformers import LlamaForCausalLM, LlamaForSequenceClassification
from vocabulary import EOS, PAD

from mergecore.pocket import chat

BATCH = 64
LAYERS = 3  # of the four that it starts from: with its fellows it stays below six megabytes


def new_grader(start: LlamaForCausalLM) -> LlamaForSequenceClassification:
    """A grader that reads as `start` does; its one output is not trained yet."""
    config = start.config.__class__.from_dict(
        {
            **start.config.to_dict(),
            "num_hidden_layers": LAYERS,
            "num_labels": 1,
            "architectures": ["LlamaForSequenceClassification"],
            "tie_word_embeddings": False,  # there is no head to tie
        }
    )
    torch.manual_seed(0)
    grader = LlamaForSequenceClassification(config)
    own = grader.model.state_dict()
    kept = {name: x for name, x in start.model.state_dict().items() if name in own}
    grader.model.load_state_dict(kept)
    return grader


def comparisons(seed: str) -> Iterator[tuple[chat.Instruction, str, str]]:
    """Endless instructions with a better and a worse reply."""
    rng = random.Random(seed)
    while True:
        asked = chat.instruction(rng, "train")
        one = chat.reply(rng, asked)
        other = _spoiled(rng, one) if rng.random() < 0.4 else chat.reply(rng, asked)
        gap = chat.reward(asked, one) - chat.reward(asked, other)
        if abs(gap) > 0.1:
            yield (asked, one, other) if gap > 0 else (asked, other, one)


def _spoiled(rng: random.Random, reply: str) -> str:
    """A reply as collapsed models give it: a loop, its words in disorder, or nothing."""
    words = reply.split()
    kind = rng.random()
    if kind < 0.4:
        return " ".join([*words, *(words[-rng.randint(1, 3) :] * rng.randint(5, 15))])
    if kind < 0.8:
        return " ".join(rng.sample(words * rng.randint(1, 3), k=len(words)))
    return "" if kind < 0.85 else " ".join(rng.choices("abcdefgh.,?", k=rng.randint(5, 30)))


def grade(model: LlamaForSequenceClassification, tokenizer: Tokenizer, steps: int) -> float:
    """Train `model` in place; the share of the last hundred batches that it orders rightly."""
    model.train()
    rate = 1e-3
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    drawn = comparisons("grade")
    right: list[float] = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * learning_rate(step, steps)
        triples = [next(drawn) for _ in range(BATCH)]
        won, lost = (
            scores(model, [_tokens(tokenizer, t[0], t[side]) for t in triples]) for side in (1, 2)
        )
        loss = -logsigmoid(won - lost).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        right.append(float((won > lost).float().mean()))
    return sum(right[-100:]) / len(right[-100:])


def _tokens(tokenizer: Tokenizer, asked: chat.Instruction, reply: str) -> list[int]:
    """As the chat template has a finished turn."""
    text = f"{chat.prompt(asked)} {reply}" if reply else chat.prompt(asked)
    return [*tokenizer.encode(text).ids, EOS][:128]


def scores(model: LlamaForSequenceClassification, rows: list[list[int]]) -> torch.Tensor:
    """The grade of each row, read at its last token: [batch]."""
    time = max(map(len, rows))
    ids = torch.full((len(rows), time), PAD)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    hidden = model.model(input_ids=ids).last_hidden_state
    last = torch.tensor([len(row) - 1 for row in rows])
    return model.score(hidden[torch.arange(len(rows)), last])[:, 0]
