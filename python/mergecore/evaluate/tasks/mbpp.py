"""MBPP (Austin et al. 2021): short Python functions. Do they pass the tests?

The prompt is that of the paper, which closes code between [BEGIN] and [DONE], after its three
worked tasks (ids 2, 3 and 4) where the file has them; tasks 11 to 510 are asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mergecore.errors import RecipeError
from mergecore.evaluate.rows import Row
from mergecore.evaluate.tasks import sandbox
from mergecore.evaluate.tasks.task import Item, Question, Scored, Task, before

_SHOWN = (2, 3, 4)
_ASKED = range(11, 511)
_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_PROMPT = (
    "You are an expert Python programmer, and here is your task: {task}"
    " Your code should pass these tests:\n\n{tests}\n"
)


def code_of(output: str) -> str:
    """The code of an answer: what is fenced, or what stands before [DONE]."""
    code = before(output.rpartition("[BEGIN]")[2], ("[DONE]",))
    fenced = _FENCE.search(code)
    code = (fenced[1] if fenced else code).strip("\n")
    # Some tokenizers write the space of an answer's first word.
    return code if code.startswith("  ") else code.removeprefix(" ")


def program(code: str, row: Row) -> str:
    """The code, and after it the tests."""
    setup = row.get("test_setup_code") or "\n".join(row.get("test_imports") or ())
    return "\n".join([setup, code, *row["test_list"]])


def _ask(rows: Sequence[Row], few_shot: int, plain: bool) -> list[Item]:
    by_number = {_number(row): row for row in rows}
    for number, row in by_number.items():
        if not isinstance(row["test_list"], list):
            raise RecipeError(f"mbpp: the test_list of task {number} is no list of asserts")
    shown = [by_number[number] for number in _SHOWN[:few_shot] if number in by_number]
    asked = [row for number, row in by_number.items() if number in _ASKED]
    if not asked:
        raise RecipeError(
            "mbpp: no row has a task_id from 11 to 510, which are those that are asked"
        )
    return [
        Question(str(row["task_id"]), _messages(shown, row, plain), row["test_list"], row)
        for row in asked
    ]


def _number(row: Row) -> int:
    try:
        return int(row["task_id"])
    except (TypeError, ValueError) as error:
        raise RecipeError(f"mbpp: the task_id {row['task_id']!r} is no number") from error


def _messages(shown: Sequence[Row], row: Row, plain: bool) -> list[dict[str, str]]:
    turns = []
    for example in shown:
        answer = f"[BEGIN]\n{example['code'].strip()}\n[DONE]"
        turns += [_user(_text(example)), {"role": "assistant", "content": answer}]
    if not plain:
        closing = "" if shown else "Write the code between [BEGIN] and [DONE].\n"
        return [*turns, _user(_text(row) + closing)]
    return [_user("\n\n".join([*(turn["content"] for turn in turns), _text(row) + "[BEGIN]"]))]


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _text(row: Row) -> str:
    task = row.get("text") or row["prompt"]  # the sanitized half calls it so
    return _PROMPT.format(task=task, tests="\n".join(row["test_list"]))


def _score(question: Question, output: str) -> Scored:
    code = code_of(output)
    ran = sandbox.run(program(code, question.row))
    return Scored(code, float(ran.finished), {"output": output, "outcome": ran.outcome})


TASK = Task(
    "mbpp",
    ("task_id", "text|prompt", "code", "test_list"),
    _ask,
    _score,
    repository="google-research-datasets/mbpp",
    files=("full/prompt-00000-of-00001.parquet", "full/test-00000-of-00001.parquet"),
    examples=len(_SHOWN),
    usual_examples=len(_SHOWN),
    runs_code=True,
)
