"""Files between the stages: read whatever is in them, added to, and gone on with after a kill."""

from __future__ import annotations

import json
import multiprocessing

import pytest

from mergecore.cli import answering
from mergecore.errors import OutputExistsError, RecipeError
from mergecore.evaluate import rows, verdicts
from mergecore.evaluate.backends import need
from mergecore.evaluate.judge.offline import RulesJudge
from mergecore.evaluate.stage import open_stage


def opened(*arguments):
    with open_stage(*arguments):
        pass


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_are_there_when_the_file_is_opened_again(tmp_path):
    out = tmp_path / "deep" / "out.jsonl"
    with open_stage(out, "generate", {"seed": 1}) as stage:
        stage.add({"id": "a", "x": 1})
    with open_stage(out, "generate", {"seed": 1}) as stage:
        assert stage.done == {"a": {"id": "a", "x": 1}}
        stage.add({"id": "b", "x": 2})
    assert [row["id"] for row in lines(out)] == ["a", "b"]


@pytest.mark.parametrize("cut", range(1, 14))
def test_a_line_that_a_kill_cut_off_is_made_again(tmp_path, cut):
    out = tmp_path / "out.jsonl"
    with open_stage(out, "s", {}) as stage:
        stage.add({"id": "a"})
        stage.add({"id": "b"})
    whole = out.read_bytes()
    out.write_bytes(whole[:-cut])
    with open_stage(out, "s", {}) as stage:
        assert set(stage.done) <= {"a"} or cut == 0
        for name in {"a", "b"} - set(stage.done):
            stage.add({"id": name})
    assert sorted(row["id"] for row in lines(out)) == ["a", "b"]


def test_an_id_is_not_written_twice(tmp_path):
    with open_stage(tmp_path / "out.jsonl", "s", {}) as stage:
        stage.add({"id": "a"})
        with pytest.raises(RecipeError, match="there already"):
            stage.add({"id": "a"})


def test_other_settings_are_refused_by_name(tmp_path):
    out = tmp_path / "out.jsonl"
    with open_stage(out, "generate", {"seed": 1, "top": [1, 2]}) as stage:
        stage.add({"id": "a"})
    with pytest.raises(OutputExistsError, match=r"seed 1, not 2.*--overwrite"):
        opened(out, "generate", {"seed": 2, "top": [1, 2]})
    with pytest.raises(OutputExistsError, match="stage"):
        opened(out, "judge", {"seed": 1, "top": [1, 2]})
    with open_stage(out, "judge", {}, overwrite=True) as stage:
        assert not stage.done


def test_what_is_no_stage_s_file_is_left_alone(tmp_path):
    out = tmp_path / "notes.txt"
    out.write_text("dear diary\n")
    with pytest.raises(OutputExistsError, match="line 1 is no row"):
        opened(out, "s", {})
    assert out.read_text() == "dear diary\n"


def _hold(path, held, let_go):
    with open_stage(path, "s", {}):
        held.set()
        let_go.wait(20)


def test_two_processes_do_not_write_one_file(tmp_path):
    context = multiprocessing.get_context("spawn")
    held, let_go = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "out.jsonl", held, let_go))
    other.start()
    try:
        assert held.wait(60)
        with pytest.raises(OutputExistsError, match="another process"):
            opened(tmp_path / "out.jsonl", "s", {})
    finally:
        let_go.set()
        other.join()


def test_rows_that_failed_are_taken_out_and_made_again(tmp_path):
    out = tmp_path / "out.jsonl"
    with open_stage(out, "s", {}) as stage:
        stage.add({"id": "a", "error": "late"})
        stage.add({"id": "b"})
    with open_stage(out, "s", {}) as stage:
        stage.forget(lambda row: "error" in row)
        assert set(stage.done) == {"b"}
        stage.add({"id": "a"})
    assert lines(out) == [{"id": "b"}, {"id": "a"}]


def test_a_lone_surrogate_survives(tmp_path):
    with open_stage(tmp_path / "out.jsonl", "s", {}) as stage:
        stage.add({"id": "a", "output": "\ud800 é"})
    assert rows.read(tmp_path / "out.jsonl")[0]["output"] == "\ud800 é"


def test_lines_and_arrays_are_read(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"id": 7, "instruction": "a\\u2028b"}\n\n{"instruction": "c"}\n')
    found = rows.prompts(file)
    assert [(row["id"], row["instruction"]) for row in found] == [("7", "a\u2028b"), ("1", "c")]
    array = tmp_path / "outputs.json"
    array.write_text('[{"instruction": "a", "output": "b", "generator": "m"}]')
    assert rows.read(array, "output")[0]["id"] == "0"
    assert rows.prompts(file, limit=1)[0]["id"] == "7"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no rows"),
        ('{"id": "a"}', "row 1 has no instruction or messages"),
        ('{"id": "a", "instruction": "x"}\n{"id": "a", "instruction": "y"}', "as row 1 has"),
        ('{"instruction": "x"}\n{"instr', "line 2 is not valid JSON"),
        ('[{"instruction": "x"}', "not valid JSON"),
        ("[3]", "row 1 is no JSON object"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path, text, words):
    file = tmp_path / "prompts.jsonl"
    file.write_text(text)
    with pytest.raises(RecipeError) as refused:
        rows.prompts(file)
    assert words in str(refused.value)
    assert str(file) in str(refused.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"nowhere.*No such file"):
        rows.read(tmp_path / "nowhere")


def test_a_missing_package_is_said_with_the_extra_that_has_it():
    with pytest.raises(RecipeError, match=r"pip install 'mergecore\[judge\]'"):
        need("no_such_package", "judge")


def test_a_row_of_another_text_under_the_same_id_is_not_taken(tmp_path):
    out = tmp_path / "v.jsonl"
    response = {"id": "1", "instruction": "Say hello.", "output": "Hello to you."}
    verdicts.judge_all([response], out, RulesJudge())
    assert verdicts.judge_all([response], out, RulesJudge()).made == 0
    other = [{**response, "output": "Goodbye to you."}]
    with pytest.raises(OutputExistsError, match="'1' was made of another text"):
        verdicts.judge_all(other, out, RulesJudge())
    assert verdicts.judge_all(other, out, RulesJudge(), overwrite=True).made == 1


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"output": 5}, "output is no text"),
        ({"instruction": ["a"]}, "instruction is no text"),
        ({"messages": "hello"}, "its messages are no list"),
        ({"messages": []}, "its messages are no list"),
        ({"messages": [{"role": "user", "content": ["a"]}]}, "its messages are no list"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, row, words):
    file = tmp_path / "r.jsonl"
    file.write_text(json.dumps({"id": None, **row}))
    with pytest.raises(RecipeError, match=f"row 1: .*{words}"):
        rows.read(file)


def test_what_is_read_is_not_written_over(tmp_path):
    with pytest.raises(OutputExistsError, match="is an input"):
        answering.check_out(str(tmp_path / "x" / ".." / "r.jsonl"), str(tmp_path / "r.jsonl"))
