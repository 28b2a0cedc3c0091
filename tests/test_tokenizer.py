"""Models of different vocabularies: whose tokens does the merge speak, and with which rows?"""

from __future__ import annotations

import json
import random
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

import checkpoints
import mergecore
import vocabularies
from mergecore import ModelError, ModelNotFoundError, RecipeError, pocket
from mergecore.cli import main
from mergecore.tokenizer.alignment import align
from mergecore.tokenizer.tokens import Tokenizer as Tokens

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
NUMBERS = "one two three four five six".split()
CHAT = "{% for m in messages %}<user>{{ m['content'] }}{% endfor %}"


@pytest.fixture
def family(tmp_path):
    """A base, a fine-tune that chats with tokens of its own, and one of another vocabulary."""
    base = vocabularies.words(NUMBERS)
    chat = vocabularies.words(NUMBERS, ["<user>", "<stop>"])
    other = vocabularies.words(["nine", "six", "three", "two", "seven"], ["<stop>", "<call>"])
    vocabularies.save(tmp_path / "base", base, 1)
    vocabularies.save(tmp_path / "chat", chat, 2, template=CHAT, eos_token_id=10)
    vocabularies.save(tmp_path / "other", other, 3)
    return tmp_path


def merge(family, *models, out="out", **keys):
    keys.setdefault("tokenizer_source", "union")
    report = mergecore.merge([family / m for m in models], "linear", out=family / out, **keys)
    return family / out, report


def config_of(folder, name="config.json"):
    return json.loads((folder / name).read_text())


def test_each_token_s_row_is_the_mean_of_its_rows_in_the_models(family):
    out, _ = merge(family, "base", "chat", "other")
    rows = [vocabularies.rows(family / name) for name in ("base", "chat", "other")]
    merged = vocabularies.rows(out)
    assert set(merged) == set().union(*rows)
    for token, row in merged.items():
        owned = [known[token] for known in rows if token in known]
        lacking = np.mean(owned, axis=0)  # without a base, the mean of whoever has it
        np.testing.assert_allclose(row, np.mean([r.get(token, lacking) for r in rows], 0), 1e-5)


def test_a_task_vector_has_nothing_for_a_token_that_only_one_model_has(family):
    mergecore.merge(
        [family / "chat", family / "other"],
        "task_arithmetic",
        base=family / "base",
        out=family / "out",
        weights=[1.0, 0.0],
        tokenizer_source="union",
    )
    merged, chat, other = (vocabularies.rows(family / name) for name in ("out", "chat", "other"))
    for token in ("<user>", "one"):
        np.testing.assert_allclose(merged[token], chat[token], rtol=1e-5)
    np.testing.assert_array_equal(merged["<call>"], other["<call>"])


def test_every_row_is_accounted_for_in_the_manifest(family):
    out, _ = merge(family, "base", "chat", "other")
    account = config_of(out, "mergecore.json")["vocabulary"]
    assert account["rows"] == config_of(out)["vocab_size"] == 14
    assert len(account["models"]) == 3
    for rows in account["models"].values():
        assert sum(rows.values()) == 14
    assert account["models"][str(family / "chat")]["own"] == 11
    assert mergecore.verify(out) == []


def test_special_tokens_follow_the_donor_to_their_new_numbers(family):
    out, report = merge(family, "other", "chat", base=None)
    # The first model has no chat template, so that the donor is the one that has.
    assert any("chat template" in note for note in report.notes)
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    stop = config_of(out)["eos_token_id"]
    assert tokenizer.id_to_token(stop) == "<stop>"
    assert config_of(family / "chat")["eos_token_id"] != stop
    listed = config_of(out, "tokenizer_config.json")["added_tokens_decoder"]
    assert listed[str(stop)]["content"] == "<stop>"
    assert config_of(out, "tokenizer_config.json")["chat_template"] == CHAT


def test_the_tokenizer_of_a_model_comes_with_its_config_and_template(family):
    out, _ = merge(family, "base", "chat", tokenizer_source=family / "chat")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (out / name).read_bytes() == (family / "chat" / name).read_bytes()
    assert config_of(out)["eos_token_id"] == 10
    assert set(vocabularies.rows(out)) == set(vocabularies.rows(family / "chat"))


def test_a_model_that_is_not_merged_may_lend_its_tokenizer(family):
    wanted = vocabularies.words(["six", "five", "ten"])
    vocabularies.save(family / "lender", wanted, 9)
    out, report = merge(family, "base", "chat", tokenizer_source=family / "lender")
    merged, base = vocabularies.rows(out), vocabularies.rows(family / "base")
    chat = vocabularies.rows(family / "chat")
    assert set(merged) == set(vocabularies.rows(family / "lender"))
    np.testing.assert_allclose(merged["six"], (base["six"] + chat["six"]) / 2, rtol=1e-5)
    assert not merged["ten"].any()
    assert any("'ten'" in warning for warning in report.warnings)


def test_a_padded_vocabulary_keeps_its_size_unless_asked(family):
    padded = vocabularies.words(NUMBERS)
    vocabularies.save(family / "padded", padded, 4, rows=20)
    vocabularies.save(family / "tuned", vocabularies.words(NUMBERS, ["<user>"]), 5, rows=20)
    out, _ = merge(family, "padded", "tuned")
    assert config_of(out)["vocab_size"] == 20
    weights = [checkpoints.load(family / name)[EMBEDDING] for name in ("padded", "tuned", "out")]
    np.testing.assert_allclose(weights[2][10:], (weights[0][10:] + weights[1][10:]) / 2, rtol=1e-5)
    # Row 9 is a token in one of them, and no token's in the other.
    np.testing.assert_allclose(weights[2][9], weights[1][9], rtol=1e-5)
    recipe = {
        "merge_method": "linear",
        "models": [str(family / "padded"), str(family / "tuned")],
        "tokenizer": {"pad_to_multiple_of": 4},
    }
    mergecore.run(recipe, family / "trimmed")
    trimmed = checkpoints.load(family / "trimmed")
    assert trimmed[EMBEDDING].shape == (12, 8)
    np.testing.assert_allclose(trimmed[EMBEDDING][10], trimmed[EMBEDDING][:10].mean(0), atol=1e-6)


def test_tied_models_align_their_one_embedding(family):
    for seed, (name, added) in enumerate({"t": [], "u": ["<x>"]}.items()):
        tokenizer = vocabularies.words(NUMBERS, added)
        vocabularies.save(family / name, tokenizer, seed, tied=True)
    out, _ = merge(family, "t", "u")
    assert HEAD not in checkpoints.load(out)
    assert config_of(out)["tie_word_embeddings"] is True
    assert checkpoints.load(out)[EMBEDDING].shape == (10, 8)


def test_a_tied_and_an_untied_model_align_embedding_and_head(family):
    vocabularies.save(family / "tied", vocabularies.words(NUMBERS, ["<x>"]), 7, tied=True)
    out, _ = merge(family, "base", "tied")
    tied, base = vocabularies.rows(family / "tied"), vocabularies.rows(family / "base", HEAD)
    merged = vocabularies.rows(out, HEAD)
    np.testing.assert_allclose(merged["<x>"], tied["<x>"], rtol=1e-5)
    np.testing.assert_allclose(merged["one"], (tied["one"] + base["one"]) / 2, rtol=1e-5)


def test_a_token_that_a_tied_model_lacks_takes_its_row_of_the_head_from_a_head(family):
    vocabularies.save(family / "tied", vocabularies.words(NUMBERS), 7, tied=True)
    out, _ = merge(family, "tied", "chat")
    for tensor in (EMBEDDING, HEAD):
        merged, chat = vocabularies.rows(out, tensor), vocabularies.rows(family / "chat", tensor)
        np.testing.assert_array_equal(merged["<user>"], chat["<user>"])
    assert config_of(out)["tie_word_embeddings"] is False


def test_words_of_another_byte_pair_tokenizer_can_be_reached(tmp_path):
    tales, sums = vocabularies.TEXTS["tales"], vocabularies.TEXTS["sums"]
    vocabularies.save(tmp_path / "a", vocabularies.bpe(tales, 300), 1)
    vocabularies.save(tmp_path / "b", vocabularies.bpe(sums, 300, ["<|end|>"]), 2)
    out, _ = merge(tmp_path, "a", "b")
    joined = Tokenizer.from_file(str(out / "tokenizer.json"))
    own = Tokenizer.from_file(str(tmp_path / "a" / "tokenizer.json"))
    new = set(joined.get_vocab()) - set(own.get_vocab())
    assert set(joined.encode(sums).tokens) & new
    assert joined.encode(tales).tokens == own.encode(tales).tokens
    assert joined.token_to_id("<|end|>") == len(joined.get_vocab()) - 1


def test_texts_come_back_from_a_union_of_unigrams(tmp_path):
    tales = vocabularies.unigram(vocabularies.TEXTS["tales"], 70, ["<tale>"])
    sums = vocabularies.unigram(vocabularies.TEXTS["sums"], 80, ["<sum>"])
    vocabularies.save(tmp_path / "tales", tales, 1)
    vocabularies.save(tmp_path / "sums", sums, 2)
    out, _ = merge(tmp_path, "tales", "sums")
    union = Tokenizer.from_file(str(out / "tokenizer.json"))
    ids = tales.get_vocab()
    assert {token: union.token_to_id(token) for token in ids} == ids
    assert union.get_vocab().keys() == ids.keys() | sums.get_vocab().keys()
    for text in vocabularies.TEXTS.values():
        assert union.decode(union.encode(text).ids) == text
    found = union.encode("<sum>eleven<tale>").tokens
    assert (found[0], found[-1]) == ("<sum>", "<tale>")
    only = sums.get_vocab().keys() - ids.keys()
    assert only & set(union.encode(vocabularies.TEXTS["sums"]).tokens)


def test_a_unigram_goes_without_the_words_that_have_no_row(tmp_path):
    tales = vocabularies.unigram(vocabularies.TEXTS["tales"], 70)
    vocabularies.save(tmp_path / "tales", tales, 1, rows=tales.get_vocab_size() - 2)
    vocabularies.save(tmp_path / "again", tales, 2, rows=tales.get_vocab_size() - 2)
    out, _ = merge(tmp_path, "tales", "again", tokenizer_source="base")
    union = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert union.get_vocab_size() == tales.get_vocab_size() - 2
    assert union.get_vocab().items() <= tales.get_vocab().items()


def test_a_thousand_texts_come_back_from_a_union_of_pocket_models(tmp_path):
    transformers = pytest.importorskip("transformers", reason="the extra `torch` is not installed")
    for name in ("sft", "sort"):
        shutil.copytree(pocket.path(name), tmp_path / name)
        added = {"sft": ["<|tool|>"], "sort": ["<|code|>", "<|tool|>"]}[name]
        grow(tmp_path / name, added)
    out = tmp_path / "out"
    mergecore.merge(
        [tmp_path / "sft", tmp_path / "sort"],
        "ties",
        base=pocket.path("base"),
        out=out,
        density=0.5,
        tokenizer_source="union",
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    rows = model.get_input_embeddings().weight.shape[0]
    assert rows == model.config.vocab_size == len(tokenizer) == 514
    random.seed(3)
    letters = "abcdefghij XYZ 0123456789 .,:?-\n"  # what the pocket models know
    for _ in range(1000):
        text = "".join(random.choices(letters, k=random.randint(1, 40)))
        if random.random() < 0.5:
            text += random.choice(["<|tool|>", "<|code|>"]) + "ok"
        numbers = tokenizer.encode(text, add_special_tokens=False)
        assert max(numbers) < rows
        assert tokenizer.decode(numbers, clean_up_tokenization_spaces=False) == text
    assert tokenizer.eos_token_id == model.config.eos_token_id
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "sort: c a b"}], tokenize=False, add_generation_prompt=True
    )
    assert "sort: c a b" in prompt
    asked = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    reply = model.generate(**asked, max_new_tokens=60, do_sample=False)[0]
    assert tokenizer.eos_token_id in reply.tolist()


def grow(folder, added):
    """Gives a model tokens, and rows for them, as `resize_token_embeddings` does."""
    from tokenizers import AddedToken

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in added])
    tokenizer.save(str(folder / "tokenizer.json"))
    state = checkpoints.load(folder)
    mean = state[EMBEDDING].astype(np.float32).mean(0, keepdims=True)
    new = np.repeat(mean, len(added), axis=0).astype(state[EMBEDDING].dtype)
    state[EMBEDDING] = np.concatenate([state[EMBEDDING], new])
    checkpoints.save(folder, state, **{**config_of(folder), "vocab_size": len(state[EMBEDDING])})


@pytest.mark.parametrize("tile", [{}, {"max_memory": 40_000_000}, {"threads": 1}])
def test_the_bytes_do_not_depend_on_memory_or_threads(family, tile):
    plain, _ = merge(family, "base", "chat", "other", out="plain")
    other, _ = merge(family, "base", "chat", "other", out="tiled", **tile)
    name = "model.safetensors"
    assert (plain / name).read_bytes() == (other / name).read_bytes()


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_maps_are_what_the_rule_says_token_by_token(data):
    letters = st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=1)
    models = []
    for name in "xyz":
        ids = {token: n for n, token in enumerate(data.draw(letters))}
        rows = data.draw(st.integers(0, len(ids) + 3))
        models.append(Tokens(name, None, {}, {}, ids, rows))
    ids = {token: n for n, token in enumerate(data.draw(letters))}
    base = data.draw(st.sampled_from([None, "x", "z"]))
    least = data.draw(st.integers(0, 12))
    alignment = align(ids, models, base=base, least=least)
    assert alignment.rows == max(len(ids), least)
    for token, number in ids.items():
        owners = [(m.reference, m.ids[token]) for m in models if m.ids.get(token, 99) < m.rows]
        of_base = [row for row in owners if row[0] == base]
        for model in models:
            code = alignment.maps[model.reference][number]
            own = [row for row in owners if row[0] == model.reference]
            wanted = own or of_base or owners
            seen = [(model.reference, code)] if code >= 0 else alignment.made[~code]
            assert seen == wanted
        assert (token in alignment.unowned) == (not owners)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"tokenizer": {"sauce": "union"}}, '"source"'),
        ({"tokenizer": {"tokens": {"<a>": {"forced": True}}}}, '"force"'),
        ({"tokenizer": {"tokens": {"<a>": {"force": True}}}}, "has no source"),
        ({"tokenizer": {"tokens": {"<a>": {"source": {"kind": "nil"}}}}}, "unknown kind nil"),
        (
            {"tokenizer": {"tokens": {"<a>": {"source": {"kind": "model_token", "model": "m"}}}}},
            "token or token_id",
        ),
        ({"tokenizer": {"pad_to_multiple_of": 0}}, "pad_to_multiple_of is 0"),
        ({"tokenizer": "union"}, "mapping"),
        ({"tokenizer": {}, "tokenizer_source": "base"}, "give one of them"),
        ({"tokenizer": {"tokens": {"<a>": {"source": "nowhere"}}}}, "nowhere, which is not merged"),
        ({"chat_template": "chatlm"}, "chatml"),
        ({"chat_template": 3}, "chat_template"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(family, keys, words):
    recipe = {"merge_method": "linear", "models": [str(family / "base"), str(family / "chat")]}
    with pytest.raises(RecipeError) as refused:
        mergecore.run({**recipe, **keys}, family / "out")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (family / "out").exists()


def test_a_tokenizer_is_its_model_s_whichever_way_the_model_is_called(family, monkeypatch):
    monkeypatch.chdir(family)
    recipe = {"merge_method": "linear", "models": ["base", "chat"], "tokenizer_source": "./chat/"}
    mergecore.run(recipe, "out")
    assert config_of(family / "out")["eos_token_id"] == 10  # chat is the donor
    recipe["tokenizer"] = {"tokens": {"one": {"source": "./chat", "force": True}}}
    del recipe["tokenizer_source"]
    mergecore.run(recipe, "again")
    merged, chat = (vocabularies.rows(family / name)["one"] for name in ("again", "chat"))
    np.testing.assert_array_equal(merged, chat)


def test_a_token_s_source_must_have_it(family):
    tokens = {"<user>": {"source": str(family / "other")}}
    recipe = {
        "merge_method": "linear",
        "models": [str(family / "chat"), str(family / "other")],
        "tokenizer": {"tokens": tokens},
    }
    with pytest.raises(RecipeError, match="has no token '<user>'"):
        mergecore.run(recipe, family / "out")


def test_a_model_without_a_tokenizer_is_taken_for_the_base_or_refused(family):
    (family / "chat" / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="put its tokenizer into its folder"):
        merge(family, "base", "chat")
    (family / "other" / "tokenizer.json").unlink()
    shutil.copytree(family / "base", family / "bare")
    (family / "bare" / "tokenizer.json").unlink()
    _, report = merge(family, "base", "bare")
    assert any("taken to be" in note for note in report.notes)
    with pytest.raises(ModelError, match="AutoTokenizer"):
        merge(family, "bare", "base", out="again")


def test_what_a_model_learnt_with_new_tokens_is_extrapolated(family):
    arguments = ("extrapolate", "--from", str(family / "base"), "--to", str(family / "chat"))
    arguments += ("--alpha", "0.5", "--out", str(family / "out"), "--tokenizer-source")
    assert main([*arguments, str(family / "chat")]) == 0
    merged, base, chat = (vocabularies.rows(family / name) for name in ("out", "base", "chat"))
    np.testing.assert_array_equal(merged["<user>"], chat["<user>"])  # the base's row is chat's
    expected = chat["one"] + 0.5 * (chat["one"] - base["one"])
    np.testing.assert_allclose(merged["one"], expected, rtol=1e-5)


def test_without_the_key_different_vocabularies_are_refused_with_the_way_out(family):
    with pytest.raises(ModelError, match="--tokenizer-source union"):
        merge(family, "base", "chat", tokenizer_source=None)


def test_a_chat_template_is_named_found_or_written_out(family):
    def template_of(wanted):
        shutil.rmtree(family / "out", ignore_errors=True)
        merge(family, "base", "base", tokenizer_source=None, chat_template=wanted, donor=None)
        stated = config_of(family / "out", "tokenizer_config.json")["chat_template"]
        assert (family / "out" / "chat_template.jinja").read_text() == stated
        return stated

    assert "<|im_start|>" in template_of("chatml")
    assert template_of(CHAT) == CHAT


def test_auto_takes_the_template_that_most_models_have(family):
    for seed, (name, template) in enumerate({"p": "{{ 1 }}", "q": CHAT, "r": CHAT}.items()):
        vocabularies.save(family / name, vocabularies.words(NUMBERS), seed, template=template)
    out, _ = merge(family, "p", "q", "r", tokenizer_source=None, chat_template="auto")
    assert (out / "chat_template.jinja").read_text() == CHAT
    _, report = merge(family, "base", "base", tokenizer_source=None, chat_template="auto", out="n")
    assert any("no model has one" in warning for warning in report.warnings)


@pytest.mark.parametrize("name", ["alpaca", "chatml", "exaone", "llama3", "mistral"])
def test_named_templates_render(name, family):
    jinja2 = pytest.importorskip("jinja2", reason="jinja2 comes with the extra `torch`")
    from mergecore.tokenizer import chat_template

    template = jinja2.Template(chat_template.chosen(name, []))
    turns = [("system", "be kind"), ("user", "hello"), ("assistant", "hi"), ("user", "bye")]
    messages = [{"role": role, "content": text} for role, text in turns]
    text = template.render(
        messages=messages, bos_token="<s>", eos_token="</s>", add_generation_prompt=True
    )
    assert [text.count(words) for _, words in turns] == [1, 1, 1, 1]
    assert text.index("be kind") < text.index("hello") < text.index("hi") < text.index("bye")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {"content": "<q>"}}}', "'x'"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"-3": {"content": "<q>"}}}', "'-3'"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"99": "<q>"}}', "<q>: no token"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"99": {}}}', "'99'"),
        ("tokenizer_config.json", "[]", "tokenizer_config.json: is no JSON object"),
        ("tokenizer_config.json", "{", "is not JSON"),
        ("chat_template.jinja", b"\xff\xfe", "chat_template.jinja: is no UTF-8 text"),
        ("tokenizer.json", "{}", "is no tokenizer"),
    ],
)
def test_a_tokenizer_s_file_that_is_damaged_is_named(family, name, content, words):
    file = family / "chat" / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelError) as refused:
        merge(family, "base", "chat", chat_template="auto")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (family / "out").exists()


def test_templates_that_are_none_are_passed_over(family):
    settings = {"chat_template": ["none", None, {"name": "tool", "template": CHAT}]}
    (family / "base" / "tokenizer_config.json").write_text(json.dumps(settings))
    out, _ = merge(family, "base", "base", tokenizer_source=None, chat_template="auto")
    assert (out / "chat_template.jinja").read_text() == CHAT


def test_a_template_needs_a_tokenizer(family):
    (family / "base" / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(RecipeError, match="needs a tokenizer"):
        merge(family, "base", "base", tokenizer_source=None, chat_template="chatml")


def test_the_recipe_as_run_asks_for_the_same_again(family, monkeypatch):
    out, _ = merge(family, "base", "chat", "other")
    monkeypatch.chdir(family)
    mergecore.run(out / "mergecore_recipe.yml", family / "again")
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (family / "again" / name).read_bytes() == (out / name).read_bytes()


def test_parts_of_a_model_merge_in_one_vocabulary(family):
    recipe = {
        "merge_method": "linear",
        "modules": {
            "model.layers": {"models": [str(family / "base")]},
            "default": {"models": [str(family / "base"), str(family / "chat")]},
        },
        "tokenizer_source": "union",
    }
    mergecore.run(recipe, family / "out")
    merged, base, chat = (vocabularies.rows(family / name) for name in ("out", "base", "chat"))
    np.testing.assert_array_equal(merged["<user>"], chat["<user>"])
    np.testing.assert_allclose(merged["one"], (base["one"] + chat["one"]) / 2, rtol=1e-6)
    name = "model.layers.0.mlp.up_proj.weight"
    np.testing.assert_array_equal(
        *(checkpoints.load(family / folder)[name] for folder in ("out", "base"))
    )


def test_a_document_s_tokenizer_is_had_where_the_document_is_merged(family):
    first = {
        "name": "joined",
        "merge_method": "linear",
        "models": [str(family / "base"), str(family / "other")],
        "tokenizer_source": "union",
    }
    last = {
        "merge_method": "linear",
        "models": [str(family / "chat"), "joined"],
        "tokenizer_source": "joined",
    }
    (family / "both.json").write_text(json.dumps([first, last]))
    mergecore.run(family / "both.json", family / "out")
    assert {"nine", "<call>", "one"} <= set(vocabularies.rows(family / "out"))
    gone = {**last, "tokenizer_source": str(family / "gone")}
    idle = {**last, "models": [str(family / "chat")]}
    for wrong, refusal, words in (
        (gone, ModelNotFoundError, "no such file"),
        (idle, RecipeError, "a document not merged here"),
    ):
        (family / "both.json").write_text(json.dumps([first, wrong]))
        with pytest.raises(refusal, match=words):
            mergecore.run(family / "both.json", family / "again")
        assert not (family / "again.partial").exists()  # before the first is merged
