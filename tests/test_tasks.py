"""What does a model reach in benchmarks? Asked, scored, summed up; a kill costs little."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from mergecore import pocket
from mergecore.errors import MergecoreError, RecipeError
from mergecore.evaluate import backends
from mergecore.evaluate.tasks import TASKS, data, glue, gsm8k, mbpp, sandbox
from mergecore.evaluate.tasks.summary import summary
from mergecore.evaluate.tasks.task import Question

SFT = pocket.path("sft")
needs_rouge = pytest.mark.skipif(
    importlib.util.find_spec("rouge_score") is None, reason="rouge-score is not installed"
)


def _can_run_code() -> bool:
    try:
        sandbox.check()
    except MergecoreError:
        return False
    return True


needs_sandbox = pytest.mark.skipif(not _can_run_code(), reason="no sandbox on this machine")


def _jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def sums(tmp_path):
    rows = [
        {"question": f"What is {n} plus {n}?", "answer": f"Twice {n}.\n#### {2 * n:,}"}
        for n in (3, 50, 700)
    ]
    return _jsonl(tmp_path / "sums.jsonl", rows)


@pytest.fixture
def reviews(tmp_path):
    text = 'sentence\tlabel\nwhat a fine "film\t1\na dull one\t0\nnot bad at all\t1\n'
    (tmp_path / "sst2.tsv").write_text(text)
    return tmp_path / "sst2.tsv"


@pytest.fixture
def functions(tmp_path):
    def row(number, name, tests):
        code = f"def {name}(x):\n    return x + 1\n"
        text = f"Write a function {name} that adds one."
        return {"task_id": number, "text": text, "code": code, "test_list": tests}

    rows = [
        row(number, f"f{number}", [f"assert f{number}(1) == 2"]) for number in (2, 3, 4, 11, 12)
    ]
    return _jsonl(tmp_path / "functions.jsonl", [*rows, row(600, "g", ["assert g(1) == 2"])])


@pytest.fixture
def says(monkeypatch):
    """Lets the model answer what a function of the last message says."""
    from mergecore.evaluate.backends.transformers import Transformers

    def answers(reply):
        def answer(_self, requests, _decoding, tell):
            for request in requests:
                output = reply(request.messages[-1]["content"])
                tell(backends.Reply(request.id, output, "stop", 1, 1))

        monkeypatch.setattr(Transformers, "answer", answer)

    return answers


# --- GSM8K


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 18.", "18"),
        ("It costs $1,234.50, all in all", "1234.50"),
        ("5-3 = 2, so -7", "-7"),
        ("between 10-12", "12"),
        ("first 3, then 4 apples!", "4"),
        ("1,000,000", "1000000"),
        ("-$3", "-3"),
        ("nothing", None),
    ],
)
def test_the_last_number_is_the_answer(text, number):
    assert gsm8k.last_number(text) == number


@pytest.mark.parametrize(
    ("output", "score"),
    [
        ("6 * 3 = 18.", 1),
        ("$18.00", 1),
        ("18 or 19", 0),
        ("", 0),
        ("18\n\nQuestion: What is 7 plus 7?\nAnswer: 14", 1),
    ],
)
def test_gsm8k_scores(output, score):
    (question,) = TASKS["gsm8k"].ask(
        [{"id": "0", "question": "Six times three?", "answer": "so\n#### 18"}], 0, False
    )
    assert TASKS["gsm8k"].score(question, output).score == score


def test_the_worked_examples_are_right():
    for asked, answer in gsm8k._EXAMPLES:
        number = gsm8k.last_number(answer)
        assert f"The answer is {number}." in answer
        for part in answer.split(". "):
            left, equals, right = part.rpartition(" = ")
            if equals and set(left) <= set("0123456789+-*/. "):
                assert eval(left) == float(gsm8k.last_number(right)), part
        assert asked.endswith("?")


def test_worked_examples_are_turns_of_a_chat_or_one_text():
    row = {"id": "0", "question": "Why?", "answer": "#### 1"}
    (chat,) = TASKS["gsm8k"].ask([row], 8, False)
    assert [turn["role"] for turn in chat.messages] == ["user", "assistant"] * 8 + ["user"]
    assert chat.messages[-1]["content"] == "Why?"
    (plain,) = TASKS["gsm8k"].ask([row], 2, True)
    (turn,) = plain.messages
    assert turn["content"].count("Question: ") == 3
    assert turn["content"].endswith("Question: Why?\nAnswer:")


# --- MBPP


@pytest.mark.parametrize(
    ("output", "code"),
    [
        ("[BEGIN]\nx = 1\n[DONE]\nand more", "x = 1"),
        ("x = 1\n[DONE]", "x = 1"),
        ("Here:\n```python\nx = 1\n```\nwell", "x = 1"),
        ("[BEGIN]\n```\nx = 1\n```\n[DONE]", "x = 1"),
        ("    x = 1", "    x = 1"),
        (" x = 1\ny = 2", "x = 1\ny = 2"),
        ("```py\nx = 1", "x = 1"),
    ],
)
def test_code_is_found_in_an_answer(output, code):
    assert mbpp.code_of(output) == code


def test_mbpp_asks_11_to_510_after_three_worked_tasks():
    rows = [
        {"id": str(n), "task_id": n, "text": f"t{n}", "code": f"c{n}", "test_list": ["assert 1"]}
        for n in (1, 2, 3, 4, 10, 11, 510, 511)
    ]
    chat = TASKS["mbpp"].ask(rows, 3, False)
    assert [item.id for item in chat] == ["11", "510"]
    assert [turn["content"] for turn in chat[0].messages if turn["role"] == "assistant"] == [
        f"[BEGIN]\nc{n}\n[DONE]" for n in (2, 3, 4)
    ]
    (turn,) = TASKS["mbpp"].ask(rows, 3, True)[0].messages
    assert turn["content"].endswith("[BEGIN]")
    assert turn["content"].count("[DONE]") == 3
    assert len(TASKS["mbpp"].ask(rows[5:], 3, False)[0].messages) == 1  # nothing to show


@needs_sandbox
@pytest.mark.parametrize(
    ("code", "score"),
    [
        ("def f(x):\n  return x + 1", 1),
        ("def f(x):\n  return x", 0),
        ("exit()", 0),
        ("import sys; sys.exit()", 0),
        ("def f(x): (", 0),
    ],
)
def test_mbpp_scores(code, score):
    row = {"test_list": ["assert f(1) == 2", "assert f(2) == K"], "test_setup_code": "K = 3"}
    scored = TASKS["mbpp"].score(Question("11", [], row["test_list"], row), code)
    assert scored.score == score
    assert scored.prediction == code


@needs_sandbox
def test_mbpp_by_the_command(command, functions, says):
    says(lambda asked: "[BEGIN]\ndef f11(x):\n    return 2\n[DONE]")
    answer = command("tasks", SFT, "--tasks", "mbpp", "--data", f"mbpp={functions}",
                     "--allow-code-execution", "--out", "t.jsonl", "--json")  # fmt: skip
    assert answer.status == 0, answer.err
    (found,) = json.loads(answer.out)["tasks"]
    assert (found["n"], found["score"]) == (2, 0.5)
    right, wrong = _rows(functions.parent / "t.jsonl")
    assert (right["id"], right["score"], right["outcome"]) == ("mbpp/11", 1.0, "finished")
    assert "NameError" in wrong["outcome"]


# --- GLUE


def test_every_part_of_glue_reads_its_columns():
    for task in glue.TASKS:
        labels = task.ask([_glue_row(task, 0), _glue_row(task, 1)], 0, False)
        assert [item.reference for item in labels] == list(labels[0].labels)[:2]
        assert len(set(labels[0].words)) == len(labels[0].labels)
        assert all(f"<{key}>" in labels[0].text for key in task.needs if key != "label")
        named = task.ask([_glue_row(task, labels[0].labels[1])], 0, False)
        assert named[0].reference == labels[0].labels[1]


def _glue_row(task, label):
    return {"id": "0", **{key: f"<{key}>" for key in task.needs}, "label": label}


def test_a_label_that_is_none_is_refused():
    for label in (-1, 2, "good"):
        with pytest.raises(RecipeError, match="has the label"):
            TASKS["sst2"].ask([_glue_row(TASKS["sst2"], label)], 0, False)


def test_f1_and_mcc_are_those_of_the_papers():
    rows = [
        {"prediction": p, "reference": r, "score": float(p == r)}
        for p, r in [*["yy"] * 6, *["yn"] * 2, *["ny"] * 1, *["nn"] * 3]
    ]
    assert glue.f1(("n", "y"), rows) == pytest.approx(2 * 6 / (2 * 6 + 2 + 1))
    assert glue.mcc(("n", "y"), rows) == pytest.approx((6 * 3 - 2 * 1) / (8 * 7 * 5 * 4) ** 0.5)
    assert glue.mcc(("n", "y"), rows[:6]) == 0.0


def test_glue_by_the_command(command, reviews):
    folder = reviews.parent
    answer = command(
        "tasks", SFT, "--tasks", "sst2", "--data", f"sst2={reviews}", "--out", "t.jsonl"
    )
    assert answer.status == 0, answer.err
    assert "95 % interval" in answer.out
    rows = _rows(folder / "t.jsonl")
    assert {row["id"] for row in rows} == {"sst2/0", "sst2/1", "sst2/2"}
    for row in rows:
        values = row["log_likelihoods"]
        assert row["prediction"] == max(values, key=values.get)
        assert row["score"] == (row["prediction"] == row["reference"])
    # The same of a folder, from a file with quotes.
    (folder / "all").mkdir()
    (folder / "all/sst2.csv").write_text('sentence,label\n"what a fine ""film",positive\n')
    assert (
        command("tasks", SFT, "--tasks", "sst2", "--data", "glue=all", "--out", "u.jsonl").status
        == 0
    )
    (row,) = _rows(folder / "u.jsonl")
    same = next(row for row in rows if row["id"] == "sst2/0")
    assert row["log_likelihoods"] == pytest.approx(same["log_likelihoods"], abs=1e-2)


def test_length_normalised_choices_count_by_the_byte(command, reviews):
    for flags in ([], ["--length-normalized"]):
        out = f"{len(flags)}.jsonl"
        assert command("tasks", SFT, "--tasks", "sst2", "--data", f"sst2={reviews}", "--out", out,
                       *flags).status == 0  # fmt: skip
        for row in _rows(reviews.parent / out):
            counted = {
                label: value / (len(label) if flags else 1)
                for label, value in row["log_likelihoods"].items()
            }
            assert row["prediction"] == max(counted, key=counted.get)


# --- ROUGE-L


def _naive_rouge_l(answer, reference):
    a, b = answer.lower().split(), reference.lower().split()
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            longest = max(table[i][j + 1], table[i + 1][j])
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else longest
    common = table[-1][-1]
    return 2 * common / (len(a) + len(b)) if common else 0.0


@needs_rouge
def test_rouge_l_is_the_longest_common_subsequence():
    import random

    rng = random.Random(7)
    for _ in range(50):
        answer, reference = (" ".join(rng.choices("a b c d e".split(), k=rng.randint(1, 12)))
                             for _ in range(2))  # fmt: skip
        scored = TASKS["rouge_l"].score(Question("0", [], reference, {}), answer)
        assert scored.score == pytest.approx(_naive_rouge_l(answer, reference))
    several = Question("0", [], ["x y", "a b"], {})
    assert TASKS["rouge_l"].score(several, "a b").score == 1.0


@needs_rouge
def test_rouge_l_by_the_command(command, tmp_path, says):
    says(lambda asked: "the cat sat")
    rows = [{"id": "a", "instruction": "Tell me.", "reference": "the cat sat down"},
            {"id": "b", "instruction": "Tell me.", "reference": "a dog"}]  # fmt: skip
    path = _jsonl(tmp_path / "r.jsonl", rows)
    answer = command("tasks", SFT, "--tasks", "rouge_l", "--data", f"rouge_l={path}", "--json")
    (found,) = json.loads(answer.out)["tasks"]
    assert found["method"] == "bootstrap"
    assert found["score"] == pytest.approx((6 / 7 + 0) / 2)
    assert (tmp_path / "sft-tasks.jsonl").is_file()


# --- the stage


def test_rows_are_those_of_the_design_and_a_summary_is_wilsons(command, sums, says):
    says(lambda asked: "6" if "3 plus" in asked else "no idea")
    answer = command("tasks", SFT, "--tasks", "gsm8k", "--data", f"gsm8k={sums}", "--out",
                     "t.jsonl", "--json")  # fmt: skip
    rows = _rows(sums.parent / "t.jsonl")
    assert all({"id", "task", "prediction", "reference", "score"} <= set(row) for row in rows)
    assert [row["reference"] for row in rows] == ["6", "100", "1400"]
    (found,) = json.loads(answer.out)["tasks"]
    assert (found["n"], found["method"]) == (3, "wilson")
    assert found["interval"] == pytest.approx([0.0615, 0.7923], abs=1e-3)


def test_the_same_command_goes_on_and_other_settings_are_refused(command, refused, sums, says):
    asked = []
    says(lambda text: asked.append(text) or "6")
    arguments = ["tasks", SFT, "--tasks", "gsm8k", "--data", f"gsm8k={sums}", "--out", "t.jsonl"]
    assert command(*arguments, "--limit", 1).status == 0
    out = sums.parent / "t.jsonl"
    out.write_bytes(out.read_bytes() + b'{"id": "gsm8k/1", "ta')
    assert command(*arguments).status == 0
    assert len(asked) == 3
    assert [row["id"] for row in _rows(out)] == ["gsm8k/0", "gsm8k/1", "gsm8k/2"]
    assert "all there already" in command(*arguments).out
    assert len(asked) == 3
    assert "--overwrite" in refused(*arguments, "--few-shot", "2")
    sums.write_text(sums.read_text().replace("plus", "and"))
    assert "data" in refused(*arguments)
    assert command(*arguments, "--overwrite", "--quiet").out == ""
    assert len(asked) == 6


def test_other_weights_under_the_same_name_are_refused(command, refused, sums, says):
    says(lambda text: "6")
    shutil.copytree(SFT, sums.parent / "model")
    line = ["tasks", "model", "--tasks", "gsm8k", "--data", f"gsm8k={sums}", "--out", "t.jsonl"]
    assert command(*line).status == 0
    assert command(*line).status == 0
    os.utime(sums.parent / "model/model.safetensors", (1, 1))
    assert "weights" in refused(*line)


def test_a_killed_run_goes_on(command, tmp_path):
    rows = [{"question": f"Write a sentence about {n}.", "answer": f"#### {n}"} for n in range(30)]
    path = _jsonl(tmp_path / "many.jsonl", rows)
    line = [sys.executable, "-m", "mergecore", "tasks", str(SFT), "--tasks", "gsm8k", "--data",
            f"gsm8k={path}", "--out", "t.jsonl", "--batch-size", "1", "--quiet", "--max-tokens",
            "12"]  # fmt: skip
    out = tmp_path / "t.jsonl"
    process = subprocess.Popen(line, cwd=tmp_path, start_new_session=True)
    while process.poll() is None and (not out.exists() or out.read_bytes().count(b"\n") < 3):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = out.read_bytes()
    before = before[: before.rfind(b"\n") + 1]
    assert 3 <= before.count(b"\n") < 30
    assert command(*line[3:]).status == 0
    assert out.read_bytes().startswith(before)
    assert {row["id"] for row in _rows(out)} == {f"gsm8k/{n}" for n in range(30)}
    assert len(_rows(out)) == 30


def test_items_that_are_too_long_are_named_and_the_others_are_done(command, reviews):
    reviews.write_text(reviews.read_text() + "word " * 3000 + "\t1\n")
    answer = command(
        "tasks", SFT, "--tasks", "sst2", "--data", f"sst2={reviews}", "--out", "t.jsonl"
    )
    assert answer.status == 1
    assert "1 items got no answer (sst2/3: " in answer.err
    assert len(_rows(reviews.parent / "t.jsonl")) == 3


def test_a_summary_of_nothing_has_no_figures():
    found = summary("x", [])
    assert (found["n"], found["score"], found["interval"]) == (0, None, None)


# --- what is refused, in one line each


def test_wrong_requests(refused, sums, reviews, functions, tmp_path, monkeypatch):
    def of(*names, **files):
        given = [part for name, path in files.items() for part in ("--data", f"{name}={path}")]
        return ["tasks", SFT, "--tasks", ",".join(names), *given]

    assert "no choice between answers" in refused(*of("stsb"))
    assert "twice" in refused(*of("glue", "cola"))
    assert "no task is named" in refused(*of(","))
    assert "--allow-code-execution" in refused(*of("mbpp", mbpp=functions))
    assert "rouge_l=FILE" in refused(*of("rouge_l")) or "rouge_score" in refused(*of("rouge_l"))
    assert "not among" in refused(*of("gsm8k", cola=sums))
    assert "is not TASK=FILE" in refused("tasks", SFT, "--tasks", "gsm8k", "--data", "x.jsonl")
    assert "sst2" in refused(*of("sst2", sst2=reviews), "--few-shot", "1")
    assert "at most 8" in refused(*of("gsm8k", gsm8k=sums), "--few-shot", "gsm8k=9")
    assert "no number" in refused(*of("gsm8k", gsm8k=sums), "--few-shot", "many")
    assert "No such file" in refused(*of("gsm8k", gsm8k=tmp_path / "none.jsonl"))
    assert "has no sst2" in refused(*of("sst2", glue=tmp_path / "nowhere"))
    assert "no question" in refused(*of("gsm8k", gsm8k=_jsonl(tmp_path / "a.jsonl", [{"a": 1}])))
    wrong = _jsonl(tmp_path / "b.jsonl", [{"question": "?", "answer": "12"}])
    assert "####" in refused(*of("gsm8k", gsm8k=wrong))
    assert "no such file or folder" in refused(
        "tasks", "./nowhere", "--tasks", "gsm8k", "--data", f"gsm8k={sums}"
    )
    assert "chat template" in refused(
        "tasks", pocket.path("base"), "--tasks", "gsm8k", "--data", f"gsm8k={sums}"
    )
    (tmp_path / "c.xlsx").write_text("x")
    assert "is none of .jsonl" in refused(*of("gsm8k", gsm8k=tmp_path / "c.xlsx"))
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    assert "Linux only" in refused(*of("mbpp", mbpp=functions), "--allow-code-execution")


def test_without_the_hub_the_way_out_is_a_file(refused, monkeypatch):
    monkeypatch.setattr(data, "need", lambda *_: None)
    monkeypatch.setenv("HF_HUB_CACHE", "nowhere")
    for name in ("gsm8k", "cola"):
        said = refused("tasks", SFT, "--tasks", name)
        assert f"give --data {name}=FILE" in said
        assert TASKS[name].repository in said


def test_missing_packages_are_named_with_the_way_to_them(refused, sums, monkeypatch):
    import importlib.util

    there = importlib.util.find_spec

    def gone(package, *rest):
        missing = package in ("lm_eval", "rouge_score", "pyarrow")
        return None if missing else there(package, *rest)

    monkeypatch.setattr(backends.importlib.util, "find_spec", gone)
    for name in ("rouge_l", "gsm8k", "hellaswag"):
        assert "pip install 'mergecore[tasks]'" in refused("tasks", SFT, "--tasks", name)
    assert 'did you mean "gsm8k"' in refused("tasks", SFT, "--tasks", "gsm8")


def test_tsv_keeps_quotes_and_csv_reads_them(tmp_path):
    (tmp_path / "a.tsv").write_text('x\ty\n"one\t2\n')
    (tmp_path / "a.csv").write_text('x,y\n"o,ne",2\n')
    assert data.read(tmp_path / "a.tsv", "x") == [{"id": "0", "x": '"one', "y": "2"}]
    assert data.read(tmp_path / "a.csv", "x") == [{"id": "0", "x": "o,ne", "y": "2"}]
    (tmp_path / "b.tsv").write_text("x\ty\n\t2\n")
    with pytest.raises(RecipeError, match="row 1 has no x"):
        data.read(tmp_path / "b.tsv", "x")


def test_parquet_is_read(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    parquet.write_table(arrow.table({"x": ["a", "b"], "n": [[1], [2, 3]]}), tmp_path / "a.parquet")
    rows = data.read(tmp_path / "a.parquet", "x")
    assert rows[1] == {"id": "1", "x": "b", "n": [2, 3]}
    (tmp_path / "b.parquet").write_text("no")
    with pytest.raises(RecipeError, match="cannot be read as parquet"):
        data.read(tmp_path / "b.parquet")


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from mergecore.cli import main; main(['tasks', '--help'])\n"
        "heavy = {'torch', 'transformers', 'lm_eval', 'rouge_score', 'pyarrow', 'numpy'}\n"
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0


def test_several_sets_of_rows_of_the_users_own(command, refused, tmp_path):
    """`exact:NAME` and `rouge_l:NAME`, each a file of a folder; asked together, scored apart."""
    from mergecore.pocket import tasks

    for name in ("reverse", "add"):
        rows = [
            {"id": str(i), "instruction": e.prompt, "reference": e.answer}
            for i, e in enumerate(tasks.examples(name, 8))
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = ["tasks", pocket.path("reverse"), "--chat-template", "none", "--max-tokens", 12]
    line += [
        "--tasks",
        "exact:reverse,exact:add",
        "--data",
        f"exact={tmp_path}",
        "--out",
        "t.jsonl",
    ]
    answer = command(*line, "--json")
    assert answer.status == 0, answer.err
    found = {entry["task"]: entry for entry in json.loads(answer.out)["tasks"]}
    assert found["exact:reverse"]["score"] == 1.0
    assert found["exact:add"]["score"] < 1.0
    assert found["exact:add"]["n"] == 8
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert {row["id"] for row in rows if row["task"] == "exact:add"} == {
        f"exact:add/{i}" for i in range(8)
    }
    assert "nothere.jsonl" in refused(*line[:6], "--tasks", "exact:nothere", "--data",
                                      f"exact={tmp_path}", "--out", "u.jsonl")  # fmt: skip


def test_exact_is_word_for_word_and_one_of_several():
    score = TASKS["exact"].score
    one = Question("0", [], "a b", {})
    assert [score(one, said).score for said in ("a b", " a  b\n", "a b c", "A b")] == [1, 1, 0, 0]
    assert score(Question("0", [], ["x", "a b"], {}), "a b").score == 1
