"""Can what comes with a checkpoint, or from a server, do more than be merged, shown and counted?

docs/security.md lists what is promised, and which tests beside these hold it.
"""

from __future__ import annotations

import ast
import functools
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import checkpoints
from mergecore import errors
from mergecore.cli import terminal

ROOT = Path(__file__).parent.parent
SOURCES = [
    path
    for folder in ("python", "benches", "examples", "scripts")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
TREES = {path: ast.parse(path.read_text("utf-8")) for path in SOURCES}

TITLE = "\x1b]0;owned\x07"  # sets the title of the window
RED = "\x1b[31m"
CSI = "\x9b31m"  # the same in one character of eight bits
TURNED = "\u202egnp.exe"  # reads as "exe.png"
EVIL = f"w{TITLE}{RED}{CSI}\r\x08\x7f{TURNED}[bold]x[/bold] :fire:"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


# No shell, no code of strangers: read off the source.


def calls() -> list[tuple[Path, ast.Call, str]]:
    """Every call in our own Python: its file, and the name that is called."""
    return [
        (path, node, ast.unparse(node.func))
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    ]


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((k.value for k in call.keywords if k.arg == name), None)


def test_there_is_source_to_look_at():
    assert len(SOURCES) > 200
    assert sum("subprocess" in name for _, _, name in calls()) > 3


def test_no_shell_and_no_interpreter_is_asked():
    banned = {
        *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
        *("eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "marshal.loads"),
        *("yaml.unsafe_load", "yaml.full_load", "shelve.open", "joblib.load", "runpy.run_path"),
    }
    found = [(path.name, call.lineno, name) for path, call, name in calls() if name in banned]
    assert not found  # programs that a model wrote go to the sandbox (tests/test_sandbox.py)
    for path, call, name in calls():
        shell = keyword(call, "shell")
        assert shell is None or ast.unparse(shell) == "False", f"{path}:{call.lineno}"
        if name in ("subprocess.run", "subprocess.Popen"):
            line = isinstance(call.args[0], ast.Constant | ast.JoinedStr)
            assert not line, f"{path}:{call.lineno}: a line, where a list is safe"


def test_files_are_loaded_by_loaders_that_run_nothing():
    for path, call, name in calls():
        where = f"{path}:{call.lineno}"
        if name == "torch.load":
            assert ast.unparse(keyword(call, "weights_only") or ast.Constant(None)) == "True", where
        if name in ("np.load", "numpy.load"):
            allowed = keyword(call, "allow_pickle")
            assert allowed is None or ast.unparse(allowed) == "False", where
        if name in ("yaml.load", "yaml.load_all"):
            loader = ast.unparse(keyword(call, "Loader") or call.args[1])
            assert loader in ("_StrictLoader", "yaml.BaseLoader", "yaml.SafeLoader"), where


def test_no_code_of_a_model_is_trusted():
    """What loads by itself whatever class a config names must be told not to run its code."""
    loads = re.compile(r"\b(Auto\w+|kind)\.(from_pretrained|from_config)$|^LLM$|^HFLM$")
    seen = 0
    for path, call, name in calls():
        trust = keyword(call, "trust_remote_code")
        assert trust is None or ast.unparse(trust) == "False", f"{path}:{call.lineno}"
        if loads.search(name) and "python/mergecore" in path.as_posix() and "model=" not in name:
            given = any(ast.unparse(k.value).startswith("model") for k in call.keywords)
            if name == "HFLM" and given:
                continue  # it is handed a model that is loaded
            seen += 1
            assert trust is not None, f"{path}:{call.lineno}: {name} without trust_remote_code"
    assert seen >= 8


def test_everything_printed_goes_through_the_terminals_door():
    """Rich and click print what they are given: names of strangers must have passed `plain`."""
    package = ROOT / "python/mergecore"
    printers = ("print", "click.echo", "click.secho", "sys.stdout.write", "Console")
    doors = [package / file for file in ("cli/terminal.py", "cli/__init__.py", "_stubs.py")]
    for path, call, name in calls():
        if path.is_relative_to(package) and name in printers:
            assert path in doors, f"{path}:{call.lineno}: {name}"


# Code that lies in a model's folder.


@pytest.fixture
def booby(tmp_path, monkeypatch):
    """A model whose config asks for its own code, and whose code leaves a mark."""
    pytest.importorskip("transformers")
    mark = tmp_path / "mark"
    folder = tmp_path / "booby"
    folder.mkdir()
    own = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
    own |= {"AutoTokenizer": ["evil.T", None], "AutoModelForSequenceClassification": "evil.M"}
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": own}))
    speech = {"auto_map": own, "tokenizer_class": "T"}
    (folder / "tokenizer_config.json").write_text(json.dumps(speech))
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    # Whoever pipes an answer into another question must not have said yes to this one.
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    yield folder
    assert not mark.exists()


def test_a_model_with_code_of_its_own_is_refused_and_nobody_is_asked(booby):
    from mergecore.evaluate.backends.transformers import loaded
    from mergecore.evaluate.chat import Chat
    from mergecore.evaluate.scorers import _config

    for load in (Chat, loaded, _config):
        with pytest.raises(errors.ModelError, match="code that comes with a model is not run"):
            load(booby, "booby")
    assert sys.stdin.read(1) == "y"


# The terminal.


def test_what_a_terminal_would_obey_is_shown():
    assert terminal.plain("a\x1b[31m\n\t\r\x9b\u202eé🦀") == "a\\x1b[31m\\n\\t\\x0d\\x9b\\u202eé🦀"


@pytest.fixture
def hostile(tmp_path) -> list[str]:
    """Models whose tensors are called as no tensor is."""
    names = ["a", "b"]
    for seed, name in enumerate(names):
        values = np.random.default_rng(seed).standard_normal((4, 4)).astype("float32")
        checkpoints.save(tmp_path / name, {EVIL: values})
    return names


@pytest.mark.parametrize("tty", [False, True], ids=["pipe", "terminal"])
def test_names_do_not_reach_the_terminal_raw(command, hostile, tmp_path, monkeypatch, tty):
    if tty:
        monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    answers = [
        command("show", "a", "--tensors"),
        command("show", "a", "--tensors", "--json"),
        command("merge", "a", "b", "--method", "linear", "--out", "out"),
        command("compare", "b", "--base", "a"),
        command("extract-lora", "b", "--base", "a", "--rank", "1", "--out", "adapter"),
        command("merge", "a", "b", "--method", f"li{EVIL}", "--out", "out"),
        command("merge", "a", f"b{EVIL}", "--method", "linear", "--out", "out"),
        command("show", "a", "--nothing" + EVIL),
    ]
    values = np.full((4, 4), np.nan, "float32")
    checkpoints.save(tmp_path / "nan", {EVIL: values})
    answers.append(command("merge", "a", "nan", "--method", "linear", "--out", "nans"))
    (tmp_path / "other").mkdir()
    checkpoints.save(tmp_path / "other", {EVIL: np.zeros((2, 2), "float32")})
    answers.append(command("merge", "a", "other", "--method", "linear", "--out", "none"))
    shown = "".join(answer.out + answer.err for answer in answers)
    shown = re.sub("\x1b\\[[0-2]?m", "", shown)  # our own: bold, dim and back
    assert not OBEYED.search(shown), OBEYED.search(shown)
    assert "\\x1b[31m" in shown
    assert "[bold]x[/bold] :fire:" in "".join(shown.split("\n"))
    assert json.loads(answers[1].out)["tensors"][0]["name"] == EVIL


def test_a_damaged_output_does_not_reach_the_terminal_raw(command, hostile, tmp_path):
    assert command("merge", "a", "b", "--method", "linear", "--out", "out").status == 0
    file = tmp_path / "out/model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    answer = command("verify", "out")
    assert answer.status == 1
    assert not OBEYED.search(answer.out + answer.err)
    assert "\\x1b[31m" in answer.err


def test_a_progress_bar_shows_names_and_does_not_obey_them(monkeypatch):
    """Rich's markup and emoji in the name of a document or an output."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")

    class Screen(io.StringIO):
        def isatty(self):
            return True

    for bar in (terminal.progress, terminal.count):
        monkeypatch.setattr(sys, "stderr", screen := Screen())
        with bar(f"[red]x[/red] :fire: {TITLE}", shown=True) as update:
            update(1, 2)
        assert "[red]x[/red] :fire: \\x1b]0;owned\\x07" in screen.getvalue()
    monkeypatch.setattr(sys, "stderr", screen := Screen())
    with terminal.steps(f"[red]x[/red] :fire: {TITLE}", 2, shown=True) as advance:
        advance()
    assert "[red]x[/red] :fire: \\x1b]0;owned\\x07" in screen.getvalue()


# The model card.


def test_names_and_recipes_cannot_write_into_the_card(command, family, tmp_path):
    name = "a\n---\nbase_model: evil\n# <img src=x> [l](http://x) `c`"
    # A file name has no slash.
    name = name.replace("http://x", "x")
    (tmp_path / "a").rename(tmp_path / name)
    template = "{{ x }}\n```\n# Not the recipe's\n````\n"
    recipe = {
        "merge_method": "linear",
        "models": [{"model": name}, {"model": "b"}],
        "chat_template": template,
        "dtype": "float32",
    }
    (tmp_path / "tokenizerless.yml").write_text(yaml.safe_dump(recipe))
    for model in (name, "b"):
        (tmp_path / model / "tokenizer_config.json").write_text("{}")
        (tmp_path / model / "tokenizer.json").write_text("{}")
    answer = command("run", "tokenizerless.yml", "out")
    assert answer.status == 0, answer.err
    card = (tmp_path / "out/README.md").read_text("utf-8")
    front, rest = re.fullmatch(r"---\n(.*?)\n---\n(.*)", card, re.DOTALL).groups()
    assert yaml.safe_load(front)["base_model"] == [f"../{name}", "../b"]
    head, fence, block, tail = re.fullmatch(
        r"(.*?)\n(`{4,})yaml\n(.*?)\n\2\n(.*)", rest, re.DOTALL
    ).groups()
    assert fence == "`````"
    assert yaml.safe_load(block)["chat_template"] == template
    assert "evil" not in [line.partition(": ")[2] for line in head.splitlines()]
    assert r"\<img src=x\> \[l\](x) \`c\`" in head
    assert "mergecore verify" in tail


# Files that are not the model's.


def test_a_link_out_of_a_model_is_told(command, family, tmp_path):
    """A cloned repository may hold one; what it leads to would be published."""
    secret = tmp_path / "elsewhere/id_rsa"
    secret.parent.mkdir()
    secret.write_text("secret")
    (tmp_path / "a/notes.txt").symlink_to("../elsewhere/id_rsa")
    (tmp_path / "a/inside.txt").symlink_to("config.json")
    answer = command("merge", "a", "b", "--method", "linear", "--out", "out", "--dry-run")
    warned = [line for line in answer.err.splitlines() if "is a link to" in line]
    assert len(warned) == 1
    assert "a/notes.txt" in warned[0]
    assert str(secret) in warned[0]


@pytest.mark.parametrize("card", ["---\na: " + "[" * 100_000 + "\n---\n", "---\na: &a [*a]\n---\n"])
def test_a_hostile_card_is_no_card(refused, family, tmp_path, card):
    (tmp_path / "a/README.md").write_text(card)
    assert "names none" in refused("merge", "a", "b", "--method", "ties", "--out", "out")


def test_a_deeply_nested_recipe_or_config_is_one_line(refused, family, tmp_path):
    deep = '{"a":' * 100_000
    (tmp_path / "deep.yml").write_text("models: " + "[" * 100_000)
    assert "deep.yml" in refused("run", "deep.yml", "out")
    (tmp_path / "a/config.json").write_text(deep)
    assert "config.json" in refused("merge", "a", "b", "--method", "linear", "--out", "out")


# Keys.

KEY = "sk-very-secret-0123456789"


def test_a_server_that_quotes_the_key_is_not_quoted(tmp_path, monkeypatch, capfd):
    pytest.importorskip("openai")
    import openai

    from mergecore.evaluate.backends import Request
    from mergecore.evaluate.backends.openai import Server
    from mergecore.evaluate.decoding import Decoding
    from mergecore.evaluate.judge import cost
    from mergecore.evaluate.judge.openai import OpenAiJudge

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    url = "http://user:pass-word@127.0.0.1:9/v1"

    def refuse(kind, status):
        def create(**_):
            import httpx

            request = httpx.Request("POST", url)
            said = f"no: Authorization: Bearer {KEY} at {url}"
            raise kind(said, response=httpx.Response(status, request=request), body=None)

        return create

    def said_of(work):
        told: list = []
        try:
            work(lambda *what: told.extend(what))
        except errors.RunError as error:
            told.append(error)
            # A traceback shows what is behind an error, as it is.
            told += [error.__cause__, None if error.__suppress_context__ else error.__context__]
        return str(told)

    judge = OpenAiJudge("m", bill=cost.Bill(None, None), base_url=url)
    server = Server(url, "m")
    for kind, status in (
        (openai.AuthenticationError, 401),
        (openai.NotFoundError, 404),
        (openai.BadRequestError, 400),
        (openai.InternalServerError, 500),
    ):
        server.client.chat.completions.create = refuse(kind, status)
        judge.client.chat.completions.create = refuse(kind, status)
        ask = functools.partial(server.answer, [Request("1", [])], Decoding())
        for said in (said_of(ask), said_of(functools.partial(judge.judge, [("1", "i", "o")]))):
            assert "[secret]" in said
            assert KEY not in said
            assert "pass-word" not in said
    recorded = json.dumps(judge.about()) + judge.server + judge.label
    assert "pass-word" not in recorded


def test_the_hubs_token_is_said_nowhere(tmp_path):
    """The hub refuses (nothing listens there); neither the message nor --json holds the token."""
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
        "HF_TOKEN": "hf_very_secret",
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path / "hub"),
    }
    line = ["merge", "org/a", "org/b", "--method", "linear", "--json", "--out", "out"]
    done = subprocess.run(
        [sys.executable, "-m", "mergecore", *line],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "org/a" in done.stderr
    assert "hf_very_secret" not in done.stdout + done.stderr
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"hf_very_secret" not in file.read_bytes()
