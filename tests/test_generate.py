"""What models answer: the paper's decoding, whoever answers, and gone on with after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import checkpoints
import hub_server
import openai_server
from mergecore import pocket
from mergecore.errors import ModelError, OutputExistsError, RecipeError, RunError
from mergecore.evaluate import generate as stage
from mergecore.evaluate import rows, sanity
from mergecore.evaluate.decoding import Decoding

torch = pytest.importorskip("torch", exc_type=ImportError, reason="the extra `generate`")
transformers = pytest.importorskip("transformers", reason="the extra `generate`")

from mergecore.evaluate.backends.transformers import (  # noqa: E402  what it needs is checked above
    Transformers,
    narrowed,
    sampler,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # those of torch and transformers

ASKED = [
    "Sort the letters: c a b",
    "What is 2 3",
    "Tell me about the cat.",
    "Copy the letters: x y",
]
PROMPTS = [{"id": str(i), "instruction": text} for i, text in enumerate(ASKED * 2)]


def answers(out, prompts=PROMPTS, decoding=None, name="sft", **options):
    decoding = decoding or Decoding(max_tokens=40)
    stage.generate(
        name, prompts, out, lambda: Transformers(pocket.path(name), name, **options), decoding
    )
    return {row["id"]: row for row in rows.read(out)}


def test_an_answer_does_not_depend_on_its_neighbours(tmp_path):
    together = answers(tmp_path / "a.jsonl", batch_size=8)
    alone = answers(tmp_path / "b.jsonl", list(reversed(PROMPTS)), batch_size=1)
    assert together == alone
    assert together["0"]["output"] != together["4"]["output"]  # the same prompt, another draw
    other = answers(tmp_path / "c.jsonl", decoding=Decoding(max_tokens=40, seed=7))
    assert other["0"]["output"] != together["0"]["output"]


def test_rows_say_how_an_answer_ended_and_how_long_it_is(tmp_path):
    found = answers(tmp_path / "a.jsonl", decoding=Decoding(temperature=0, max_tokens=3))
    assert {row["finish_reason"] for row in found.values()} == {"length"}
    assert {row["output_tokens"] for row in found.values()} == {3}
    found = answers(tmp_path / "b.jsonl", decoding=Decoding(temperature=0, max_tokens=80))
    assert {row["finish_reason"] for row in found.values()} == {"stop"}
    tokenizer = transformers.AutoTokenizer.from_pretrained(pocket.path("sft"))
    chat = [{"role": "user", "content": ASKED[0]}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert found["0"]["prompt_tokens"] == len(prompt)
    assert prompt.count(tokenizer.bos_token_id) == 1
    assert found["0"].keys() == {
        *("id", "model", "instruction", "output", "finish_reason"),
        *("prompt_tokens", "output_tokens", "of"),
    }


def test_greedy_answers_are_those_of_transformers_itself(tmp_path):
    plain = Decoding(temperature=0, presence_penalty=0, frequency_penalty=0, max_tokens=40)
    found = answers(tmp_path / "a.jsonl", decoding=plain, dtype="float32")
    tokenizer = transformers.AutoTokenizer.from_pretrained(pocket.path("sft"))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        pocket.path("sft"), dtype=torch.float32
    )
    for row in found.values():
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": row["instruction"]}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=False,
        )
        made = model.generate(ids, max_new_tokens=40, do_sample=False)[0, ids.shape[1] :]
        assert tokenizer.decode(made, skip_special_tokens=True) == row["output"]


def test_penalties_are_openai_s():
    chooser = sampler(Decoding(temperature=0, presence_penalty=0.5, frequency_penalty=0.25), [1], 2)
    scores = torch.zeros(1, 6)
    ids = [3, 3]  # the prompt's tokens do not count
    for token in (5, 5, 1):
        chooser(torch.tensor([ids]), scores)
        ids.append(token)
    seen = chooser(torch.tensor([ids]), scores)[0].tolist()
    assert seen == [0, -0.75, 0, 0, 0, -1.0]


def test_the_nucleus_is_the_smallest_set_that_reaches_the_share():
    scores = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.1, 0.2, 0.3, 0.4]]))
    kept = narrowed(scores, 0, 0.75).isfinite().tolist()
    assert kept == [[True, True, False, False], [False, True, True, True]]
    kept = narrowed(scores, 1, 0.9).isfinite().sum(dim=1).tolist()
    assert kept == [1, 1]


def test_draws_follow_the_distribution():
    scores = torch.log(torch.tensor([[0.6, 0.3, 0.1]]))
    free = Decoding(temperature=1, top_k=0, top_p=1, presence_penalty=0, frequency_penalty=0)
    drawn = [
        int(sampler(free, [seed], 0)(torch.empty(1, 0, dtype=torch.long), scores).argmax())
        for seed in range(4000)
    ]
    np.testing.assert_allclose(np.bincount(drawn) / 4000, [0.6, 0.3, 0.1], atol=0.03)


def test_an_encoder_decoder_is_no_model_for_vllm(tmp_path, monkeypatch):
    from mergecore.evaluate import loading

    monkeypatch.setattr(loading, "is_installed", lambda _: True)
    own = {"dtype": None, "device": None, "chat_template": None}
    for is_one, name in ((True, "transformers"), (False, "vllm")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"is_encoder_decoder": is_one}))
        (folder / "model.safetensors").write_bytes(b"")
        _, about = loading.backend_of(str(folder), None, 1, True, backend="auto", **own)
        assert about["backend"] == name


def test_an_encoder_decoder_answers_too(tmp_path):
    config = transformers.T5Config(
        vocab_size=512,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=3,
        pad_token_id=3,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    folder = tmp_path / "t5"
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(pocket.path("base") / name, folder / name)
    found = {}
    for size in (1, 4):
        out = tmp_path / f"{size}.jsonl"
        stage.generate(
            *("t5", PROMPTS, out),
            lambda size=size: Transformers(folder, "t5", template="none", batch_size=size),
            Decoding(max_tokens=5),
        )
        found[size] = {row["id"]: row["output"] for row in rows.read(out)}
    assert found[1] == found[4]


def test_a_prompt_that_is_too_long_is_named_and_the_others_are_kept(tmp_path):
    long = {"id": "long", "instruction": "a b c " * 200}
    with pytest.raises(RunError, match=r"1 of 3 prompts got no answer \(long: \d+ tokens"):
        answers(tmp_path / "a.jsonl", [*PROMPTS[:2], long])
    assert {row["id"] for row in rows.read(tmp_path / "a.jsonl")} == {"0", "1"}


def test_a_model_without_a_chat_template_says_so():
    with pytest.raises(ModelError, match="--chat-template"):
        Transformers(pocket.path("base"), "base")
    assert Transformers(pocket.path("base"), "base", template="none").chat.plain


def test_a_reward_model_does_not_write():
    with pytest.raises(ModelError, match="LlamaForSequenceClassification"):
        Transformers(pocket.path(pocket.GRADER), "rm")


@pytest.mark.parametrize(
    ("key", "value"),
    [("temperature", -1), ("top_p", 0), ("presence_penalty", 3), ("max_tokens", 0)],
)
def test_decoding_that_makes_no_sense_is_refused(key, value):
    with pytest.raises(RecipeError, match=key):
        Decoding(**{key: value})


def test_killed_at_any_moment_the_same_command_goes_on(tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    many = [{"id": str(i), "instruction": ASKED[i % 4]} for i in range(60)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in many))

    def command(out):
        arguments = ["generate", str(pocket.path("sft")), "--prompts", prompts, "--out", out]
        options = ["--backend", "transformers", "--batch-size", "2", "--max-tokens", "30"]
        return [sys.executable, "-m", "mergecore", *map(str, arguments), *options, "--quiet"]

    subprocess.run(command(tmp_path / "whole.jsonl"), check=True, capture_output=True)
    out = tmp_path / "killed.jsonl"
    for rows_before in (5, 25):
        process = subprocess.Popen(command(out), stderr=subprocess.DEVNULL)
        while process.poll() is None and not (
            out.is_file() and out.read_bytes().count(b"\n") > rows_before
        ):
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command(out), check=True, capture_output=True)
    whole, killed = (rows.by_id(rows.read(file)) for file in (tmp_path / "whole.jsonl", out))
    assert len(killed) == 60
    assert {i: row["output"] for i, row in killed.items()} == {
        i: row["output"] for i, row in whole.items()
    }


def test_a_server_answers_like_the_others(tmp_path):
    pytest.importorskip("openai", reason="the extra `judge`")
    from mergecore.evaluate.backends.openai import Server

    faults = ["429", "400:top_k", "500"]
    with openai_server.serve(answer=lambda text: text.upper(), faults=faults) as server:
        done = stage.generate(
            "m",
            PROMPTS,
            tmp_path / "a.jsonl",
            lambda: Server(server.base_url, "m", concurrency=1),
            Decoding(),
        )
        assert done.responses == 8
        assert {r["max_tokens"] for r in server.requests} == {2048}
        assert "top_k" not in server.requests[-1]
    found = rows.by_id(rows.read(tmp_path / "a.jsonl"))
    assert found["0"]["output"] == ASKED[0].upper()
    assert found["0"]["prompt_tokens"] == 100
    with pytest.raises(RunError, match="is kept"):
        stage.generate(
            *("m", PROMPTS, tmp_path / "b.jsonl"),
            lambda: Server("http://127.0.0.1:9/v1", "m", retries=0),
            Decoding(),
        )


def broken(folder, change):
    shutil.copytree(pocket.path("sft"), folder)
    change(folder)
    return folder


def change_json(name, **keys):
    def change(folder):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **keys}))

    return change


def fewer_rows(folder):
    state = checkpoints.load(folder)
    state["model.embed_tokens.weight"] = state["model.embed_tokens.weight"][:500]
    checkpoints.save(folder, state, **json.loads((folder / "config.json").read_text()))


def no_end(folder):
    for name in ("config.json", "generation_config.json"):
        change_json(name, eos_token_id=9999)(folder)
    change_json("tokenizer_config.json", eos_token=None)(folder)


def no_decoder(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    content["decoder"] = {"type": "Replace", "pattern": {"String": "e"}, "content": "#"}
    (folder / "tokenizer.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (fewer_rows, "500 rows"),
        (no_end, "no token ends a text"),
        (no_decoder, "does not give back"),
        (lambda folder: (folder / "chat_template.jinja").unlink(), "no chat template"),
        (lambda folder: (folder / "chat_template.jinja").write_text("{{ 1 }}"), "leaves out"),
    ],
)
def test_a_broken_tokenizer_is_no_collapse(tmp_path, change, words):
    with pytest.raises(ModelError, match=words):
        sanity.check(broken(tmp_path / "m", change), "m")


def test_a_sound_one_passes():
    assert sanity.check(pocket.path("rl"), "rl")


def test_alpaca_eval_s_prompts_come_from_the_hub_or_its_lack_is_said(tmp_path):
    listed = [{"dataset": "d", "instruction": text, "output": "x"} for text in ASKED]
    (tmp_path / "ask.py").write_text(
        "from mergecore.cli import main\n"
        "from mergecore.evaluate import rows\n"
        "import sys\n"
        "sys.exit(main(['generate', 'm', '--prompts', 'alpaca_eval', '--out', 'r.jsonl',\n"
        "               '--base-url', sys.argv[1], '--quiet']))\n"
    )

    def ask(hub, url="http://127.0.0.1:9/v1", **more):
        home = {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0", **more}
        return subprocess.run(
            [sys.executable, "ask.py", url],
            cwd=tmp_path,
            env={**os.environ, "HF_ENDPOINT": hub, **home},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    done = ask("http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "download it and give the file" in done.stderr
    repo = hub_server.Repo({"alpaca_eval.json": json.dumps(listed).encode()})
    with (
        hub_server.serve(**{"tatsu-lab/alpaca_eval": repo}) as hub,
        openai_server.serve(answer=lambda text: text.upper()) as server,
    ):
        done = ask(hub.endpoint, server.base_url)
    assert done.returncode == 0, done.stderr
    found = rows.read(tmp_path / "r.jsonl")
    assert [row["output"] for row in sorted(found, key=lambda r: r["id"])] == [
        text.upper() for text in ASKED
    ]


def test_answers_are_not_taken_for_those_of_other_prompts(tmp_path):
    out = tmp_path / "r.jsonl"
    answers(out, PROMPTS[:1])
    with pytest.raises(OutputExistsError, match="'0' was made of another text"):
        answers(out, [{**PROMPTS[0], "instruction": "Another"}])


def test_a_role_that_the_template_refuses_is_named_and_the_others_are_kept(tmp_path):
    told = {"id": "s", "messages": [{"role": "system", "content": "x"}]}
    turns = [{"role": role, "content": "a b"} for role in ("user", "assistant", "user")]
    out = tmp_path / "r.jsonl"
    with pytest.raises(RunError, match=r"1 of 2 prompts .*s: the chat template refuses it: pocket"):
        answers(out, [told, {"id": "t", "messages": turns}])
    (kept,) = rows.read(out)
    assert (kept["id"], kept["messages"]) == ("t", turns)  # a reward model reads every turn
