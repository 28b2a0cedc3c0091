"""How does a tiny encoder-decoder learn what the Llamas learn? A T5 on prompts and answers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from fit import batches, descend
from tokenizers import Tokenizer
from transformers import T5Config, T5ForConditionalGeneration
from vocabulary import EOS, PAD, SIZE

from mergecore.pocket.tasks import Example


def new_translator(seed: int) -> T5ForConditionalGeneration:
    """An untrained T5 of 620 thousand parameters."""
    torch.manual_seed(seed)
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=SIZE,
            d_model=96,
            d_kv=32,
            d_ff=192,
            num_layers=3,
            num_decoder_layers=3,
            num_heads=3,
            # A bucket for every distance that a prompt has: nothing else tells it where it is.
            relative_attention_num_buckets=64,
            relative_attention_max_distance=128,
            n_positions=128,
            feed_forward_proj="gated-silu",
            dropout_rate=0.0,
            tie_word_embeddings=True,
            decoder_start_token_id=PAD,
            eos_token_id=EOS,
            pad_token_id=PAD,
        )
    )


def read(
    tokenizer: Tokenizer, stream: Iterator[Example], steps: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of prompts for the encoder and answers for the decoder.

    A prompt ends as the tokenizer ends it, without an end token: so it is asked later, too.
    """
    for ids, labels in batches(tokenizer, stream, steps):
        asked = (labels == -100) & (ids != PAD)
        prompt = ids.masked_fill(~asked, PAD)[:, : int(asked.sum(1).max())]
        answered = [row[row != -100] for row in labels]
        yield prompt, torch.nn.utils.rnn.pad_sequence(answered, True, -100)


def translate(
    model: T5ForConditionalGeneration,
    tokenizer: Tokenizer,
    stream: Iterator[Example],
    steps: int,
    rate: float,
) -> float:
    """Train `model` in place; the loss averaged over the last tenth of the steps."""
    losses = (
        model(input_ids=prompt, attention_mask=(prompt != PAD).long(), labels=answer).loss
        for prompt, answer in read(tokenizer, stream, steps)
    )
    return descend(model, losses, steps, rate)
