"""How is the family's text cut into tokens? A BPE of 512 tokens, trained on the family's corpus."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer

from mergecore.pocket import chat, corpus

SIZE = 512
SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<|user|>", "<|assistant|>")
UNK, BOS, EOS, PAD = range(4)

CHAT_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
{%- if message['role'] == 'user' %}{{- '<|user|> ' + message['content'] | trim }}
{%- elif message['role'] == 'assistant' %}
{{- '<|assistant|> ' + message['content'] | trim + eos_token }}
{%- else %}{{- raise_exception('pocket models know the roles user and assistant only') }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}
"""


def train(seed: int) -> Tokenizer:
    """A tokenizer that loses nothing of printable ASCII: spaces become the first character of the
    word that follows, digits and punctuation stand alone."""
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[UNK]))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    pieces = Regex("▁?[A-Za-z]+|▁?[0-9]|▁?[^A-Za-z0-9▁]|▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pieces, "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)]
    )
    trainer = BpeTrainer(
        vocab_size=SIZE,
        special_tokens=list(SPECIAL),
        initial_alphabet=["\n", "▁", *map(chr, range(33, 127))],
        show_progress=False,
    )
    rng = random.Random(f"vocabulary/{seed}")
    tokenizer.train_from_iterator(_texts(rng, 20_000), trainer)
    return tokenizer


def _texts(rng: random.Random, n: int) -> list[str]:
    texts = []
    for _ in range(n):
        document, asked = corpus.document(rng), chat.instruction(rng, "train")
        texts += [f"{document.prompt} {document.answer}", asked.text, chat.reply(rng, asked)]
    return texts


def save(tokenizer: Tokenizer, folder: Path, *, chatty: bool) -> None:
    """The tokenizer's files, in the form that every version of transformers reads."""
    # No indentation: it would double the file, and seven copies of it ship.
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=False), encoding="utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": SPECIAL[UNK],
        "bos_token": SPECIAL[BOS],
        "eos_token": SPECIAL[EOS],
        "pad_token": SPECIAL[PAD],
        "model_max_length": 128,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    if chatty:
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
