"""Is a choice's log-likelihood that of a naive loop? Decoder-only and encoder-decoder."""

from __future__ import annotations

import shutil

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from mergecore import pocket
from mergecore.evaluate.backends.transformers import Transformers
from mergecore.evaluate.likelihood import Options, likelihoods

ITEMS = [
    Options("a", "sort: b a =", ("a b", "b a", "c")),
    Options("b", "The cat and the dog. Is it so?", ("yes", "no")),
    Options("c", "x", ("a long answer with several words", "no")),
    Options("d", "reverse: a b c d e f g h =", ("h g f e d c b a", "positive")),
]


@pytest.fixture(scope="module")
def decoder():
    return Transformers(pocket.path("sft"), "sft", dtype="float32")


@pytest.fixture(scope="module")
def encoder_decoder(tmp_path_factory):
    """A random T5 with the pocket models' tokenizer."""
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("t5")
    tokenizer = AutoTokenizer.from_pretrained(str(pocket.path("sft")))
    torch.manual_seed(3)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(folder)
    for file in pocket.path("sft").glob("tokenizer*"):
        shutil.copy(file, folder)
    return Transformers(folder, "t5", template="none", dtype="float32")


def _found(model, items=ITEMS, **options):
    found = {}
    likelihoods(
        model, items, lambda *told: found.update((entry.id, entry) for entry in told), **options
    )
    return found


def _naive_decoder(model, ids, start):
    total = 0.0
    for place in range(start, len(ids)):
        with torch.inference_mode():
            logits = model.model(torch.tensor([ids[:place]])).logits[0, -1]
        total += float(logits.log_softmax(-1)[ids[place]])
    return total


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_decoder_only_model(decoder, batch_size):
    decoder.batch_size = batch_size
    found = _found(decoder)
    tokenizer = decoder.chat.tokenizer
    for item in ITEMS:
        wholes = [tokenizer(f"{item.context} {answer}")["input_ids"] for answer in item.answers]
        context = tokenizer(item.context)["input_ids"]
        start = min(_common(context, ids) for ids in wholes)
        expected = [_naive_decoder(decoder, ids, start) for ids in wholes]
        assert found[item.id].values == pytest.approx(expected, abs=1e-4)


def _common(one, other):
    length = 0
    while length < min(len(one), len(other)) and one[length] == other[length]:
        length += 1
    return length


def test_in_the_chat_template(decoder):
    decoder.batch_size = 4
    found = _found(decoder, chat=True)
    for item in ITEMS:
        context = decoder.chat.tokens([{"role": "user", "content": item.context}])
        for answer, value in zip(item.answers, found[item.id].values, strict=True):
            ids = decoder.chat.tokenizer(answer, add_special_tokens=False)["input_ids"]
            assert value == pytest.approx(
                _naive_decoder(decoder, [*context, *ids], len(context)), abs=1e-4
            )


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_an_encoder_decoder_model(encoder_decoder, batch_size):
    model = encoder_decoder
    model.batch_size = batch_size
    found = _found(model)
    tokenizer = model.chat.tokenizer
    for item in ITEMS:
        given = torch.tensor([tokenizer(item.context)["input_ids"]])
        for answer, value in zip(item.answers, found[item.id].values, strict=True):
            ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
            ids, written, total = [*ids, tokenizer.eos_token_id], [0], 0.0
            for token in ids:
                with torch.inference_mode():
                    logits = model.model(
                        input_ids=given, decoder_input_ids=torch.tensor([written])
                    ).logits[0, -1]
                total += float(logits.log_softmax(-1)[token])
                written.append(token)
            assert value == pytest.approx(total, abs=1e-4)


def test_what_is_too_long_is_refused_and_the_rest_is_not(decoder):
    found = _found(decoder, [Options("long", "a " * 5000, ("x", "y")), ITEMS[0]])
    assert "tokens, and the model takes" in found["long"].reason
    assert len(found["a"].values) == 3


def test_the_task_command_takes_an_encoder_decoder_model(encoder_decoder, command, tmp_path):
    (tmp_path / "cola.csv").write_text("sentence,label\nhe go,0\nshe goes,1\n")
    answer = command("tasks", encoder_decoder.model.name_or_path, "--tasks", "cola", "--data",
                     "cola=cola.csv", "--out", "t.jsonl")  # fmt: skip
    assert answer.status == 0, answer.err
    assert "mcc" in answer.out
