"""What does a pocket model answer? A Llama forward pass in NumPy: no torch, no safetensors package.

Small models only: everything is float32 and held in memory. Prompts of equal length go through
together; decoding is greedy with a key-value cache.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from . import tasks

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Cache = list[tuple[Floats, Floats]]

_DTYPES = {"BF16": "<u2", "F16": "<f2", "F32": "<f4", "F64": "<f8"}


def read_safetensors(file: Path) -> dict[str, Floats]:
    """Every tensor of a safetensors file as float32.

    The format: 8 bytes of header length, a JSON header, then the bytes that it points into.
    """
    raw = file.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    tensors = {}
    for name, entry in json.loads(raw[8:start]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        flat = np.frombuffer(raw[start + begin : start + end], _DTYPES[entry["dtype"]])
        if entry["dtype"] == "BF16":  # bfloat16 is the upper half of a float32
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        tensors[name] = flat.astype(np.float32, copy=False).reshape(entry["shape"])
    return tensors


class Model:
    """A Llama checkpoint folder, ready to answer."""

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        config = json.loads((folder / "config.json").read_text())
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.weights: dict[str, Floats] = {}
        for file in sorted(folder.glob("*.safetensors")):
            self.weights |= read_safetensors(file)
        self.layers: int = config["num_hidden_layers"]
        self.heads: int = config["num_attention_heads"]
        self.kv_heads: int = config["num_key_value_heads"]
        self.head_dim: int = config.get("head_dim") or config["hidden_size"] // self.heads
        self.eps: float = config["rms_norm_eps"]
        self.eos: int = config["eos_token_id"]
        # Older writers keep the base of the rotation at the top level, newer ones nest it.
        theta = (config.get("rope_parameters") or config).get("rope_theta", 10000.0)
        half = np.arange(0, self.head_dim, 2, dtype=np.float32) / self.head_dim
        self.frequencies: Floats = (1.0 / theta**half).astype(np.float32)

    def logits(self, ids: Ints, cache: Cache | None = None) -> Floats:
        """Scores of the next token at every position: [batch, time] -> [batch, time, vocabulary].

        A cache holds each layer's keys and values, [batch, kv_heads, past, head_dim]; it is
        extended in place.
        """
        w = self.weights
        past = cache[0][0].shape[2] if cache else 0
        time = ids.shape[1]
        angles = np.arange(past, past + time, dtype=np.float32)[:, None] * self.frequencies
        turn = np.cos(angles), np.sin(angles)
        future = np.triu(np.full((time, past + time), -np.inf, np.float32), past + 1)
        x = w["model.embed_tokens.weight"][ids]
        for layer in range(self.layers):
            name = f"model.layers.{layer}."
            h = self._norm(x, w[name + "input_layernorm.weight"])
            x += self._attend(h, name + "self_attn.", layer, cache, turn, future)
            h = self._norm(x, w[name + "post_attention_layernorm.weight"])
            gate = _silu(h @ w[name + "mlp.gate_proj.weight"].T)
            up = h @ w[name + "mlp.up_proj.weight"].T
            x += (gate * up) @ w[name + "mlp.down_proj.weight"].T
        x = self._norm(x, w["model.norm.weight"])
        head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
        logits: Floats = x @ head.T
        return logits

    def _attend(
        self,
        h: Floats,
        name: str,
        layer: int,
        cache: Cache | None,
        turn: tuple[Floats, Floats],
        future: Floats,
    ) -> Floats:
        """Causal attention of one layer: [batch, time, hidden] -> [batch, time, hidden]."""
        batch, time, _ = h.shape
        q, k, v = (
            (h @ self.weights[f"{name}{part}_proj.weight"].T)
            .reshape(batch, time, -1, self.head_dim)
            .transpose(0, 2, 1, 3)
            for part in "qkv"
        )
        q, k = _rotate(q, turn), _rotate(k, turn)
        if cache is not None:
            if layer < len(cache):
                k = np.concatenate([cache[layer][0], k], axis=2)
                v = np.concatenate([cache[layer][1], v], axis=2)
                cache[layer] = k, v
            else:
                cache.append((k, v))
        # Each key head serves a group of query heads: [batch, kv_heads, group, time, head_dim].
        q = q.reshape(batch, self.kv_heads, -1, time, self.head_dim)
        scores = q @ k[:, :, None].swapaxes(-1, -2) / np.float32(self.head_dim**0.5) + future
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ v[:, :, None]
        mixed = mixed.reshape(batch, self.heads, time, self.head_dim).transpose(0, 2, 1, 3)
        out: Floats = mixed.reshape(batch, time, -1) @ self.weights[name + "o_proj.weight"].T
        return out

    def _norm(self, x: Floats, weight: Floats) -> Floats:
        size = np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(self.eps))
        return np.asarray(x / size * weight, np.float32)

    def generate(self, ids: Ints, limit: int) -> list[list[int]]:
        """The likeliest next tokens, up to the end token: [batch, time] -> a list a row."""
        cache: Cache = []
        rows = np.zeros((len(ids), 0), np.int64)
        ended = np.zeros(len(ids), bool)
        while rows.shape[1] < limit and not ended.all():
            ids = self.logits(ids, cache)[:, -1].argmax(-1)[:, None]
            ended |= ids[:, 0] == self.eos
            rows = np.hstack([rows, ids])
        return [_until(row, self.eos) for row in rows.tolist()]

    def complete(self, prompts: Sequence[str], limit: int = 24) -> list[str]:
        """What the model writes after each prompt, in the prompts' order."""
        encoded = [encoding.ids for encoding in self.tokenizer.encode_batch(list(prompts))]
        by_length: dict[int, list[int]] = defaultdict(list)
        for i, ids in enumerate(encoded):
            by_length[len(ids)].append(i)
        texts = [""] * len(encoded)
        for group in by_length.values():
            answers = self.generate(np.array([encoded[i] for i in group]), limit)
            for i, text in zip(group, self.tokenizer.decode_batch(answers), strict=True):
                texts[i] = text.strip()
        return texts


def _rotate(x: Floats, turn: tuple[Floats, Floats]) -> Floats:
    """Rotary positions, halves paired as Llama pairs them: [..., time, head_dim], same out."""
    cos, sin = turn
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def _silu(x: Floats) -> Floats:
    with np.errstate(over="ignore"):  # exp(-x) = inf gives the right 0
        return np.asarray(x / (1 + np.exp(-x)), np.float32)


def _until(row: list[int], end: int) -> list[int]:
    return row[: row.index(end)] if end in row else row


def accuracy(
    model: str | Path | Model, task: str, n: int = 200, split: tasks.Split = "test", seed: int = 0
) -> float:
    """The share of `n` held-out prompts of `task` that a model (or its folder) answers exactly."""
    model = model if isinstance(model, Model) else Model(model)
    asked = tasks.examples(task, n, split, seed)
    given = model.complete([example.prompt for example in asked], limit=12)
    right = [text == example.answer for text, example in zip(given, asked, strict=True)]
    return sum(right) / n
