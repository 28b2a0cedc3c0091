"""GSM8K (Cobbe et al. 2021): grade-school arithmetic in words. Is the last number right?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from mergecore.errors import RecipeError
from mergecore.evaluate.rows import Row
from mergecore.evaluate.tasks.task import Item, Question, Scored, Task, before, shown

# A minus after a digit is a difference or a range, not a sign.
_NUMBER = re.compile(r"(?<![\d.,])-?\$?\d[\d,]*(?:\.\d+)?|\.\d+")
_MARK = "####"
_ASKED = "{}\nThink step by step, and end with the number alone: The answer is N."

# Written for mergecore: nothing of the data set is shown to a model that is tested on it.
_EXAMPLES = (
    (
        "A baker fills 6 trays with 8 rolls each and sells 31 rolls. How many rolls are left?",
        "There are 6 * 8 = 48 rolls. After selling 31, 48 - 31 = 17 are left. The answer is 17.",
    ),
    (
        "Ines reads 12 pages a day. Her book has 180 pages and she has read for 9 days."
        " How many pages does she still have to read?",
        "She has read 12 * 9 = 108 pages. 180 - 108 = 72 pages remain. The answer is 72.",
    ),
    (
        "A ferry ticket costs $14, and half of that for children. What do 2 adults and 3 children"
        " pay?",
        "A child pays 14 / 2 = 7 dollars. Adults pay 2 * 14 = 28 and children 3 * 7 = 21."
        " Together 28 + 21 = 49. The answer is 49.",
    ),
    (
        "Tomas has 3 times as many stamps as Olga. Together they have 64. How many has Tomas?",
        "Together that is 4 times what Olga has, so Olga has 64 / 4 = 16. Tomas has 3 * 16 = 48."
        " The answer is 48.",
    ),
    (
        "A tank holds 240 litres. A pump fills it at 15 litres a minute, and a leak loses 3 litres"
        " a minute. How many minutes does it take to fill?",
        "Each minute 15 - 3 = 12 litres are gained. 240 / 12 = 20. The answer is 20.",
    ),
    (
        "A coat of $80 is sold at 25% off, and then $6 are added for postage. What does it cost?",
        "25% of 80 is 20, so the coat costs 80 - 20 = 60. With postage 60 + 6 = 66."
        " The answer is 66.",
    ),
    (
        "In a class of 30, two fifths walk to school and 7 come by bike. The rest take the bus."
        " How many take the bus?",
        "30 * 2 / 5 = 12 walk. 12 + 7 = 19 do not take the bus. 30 - 19 = 11 do. The answer is 11.",
    ),
    (
        "Mira saves $5 in the first week, and in each later week $2 more than in the one before."
        " How much has she saved after 4 weeks?",
        "She saves 5, 7, 9 and 11 dollars. 5 + 7 + 9 + 11 = 32. The answer is 32.",
    ),
)


def last_number(text: str) -> str | None:
    """The last number of a text, without commas and dollar signs; None if there is none."""
    found = _NUMBER.findall(text)
    return str(found[-1]).replace(",", "").replace("$", "") if found else None


def _ask(rows: Sequence[Row], few_shot: int, plain: bool) -> list[Item]:
    return [_question(row, few_shot, plain) for row in rows]


def _question(row: Row, few_shot: int, plain: bool) -> Question:
    _, mark, number = str(row["answer"]).rpartition(_MARK)
    reference = last_number(number)
    if not mark or reference is None:
        raise RecipeError(f"gsm8k: the answer of row {row['id']} has no number after {_MARK}")
    examples = _EXAMPLES[:few_shot]
    # What the examples show needs no words.
    wording = "Question: {}" if plain else "{}" if few_shot else _ASKED
    pairs = [(wording.format(asked), answer) for asked, answer in examples]
    messages = shown(pairs, wording.format(row["question"]), plain=plain)
    return Question(row["id"], messages, reference, row)


def _score(question: Question, output: str) -> Scored:
    prediction = last_number(before(output, ("\nQuestion:", "\n\nQuestion")))
    return Scored(prediction, float(_equal(prediction, question.reference)), {"output": output})


def _equal(prediction: str | None, reference: str) -> bool:
    """18.00 is 18."""
    try:
        return prediction is not None and Decimal(prediction) == Decimal(reference)
    except InvalidOperation:
        return False


TASK = Task(
    "gsm8k",
    ("question", "answer"),
    _ask,
    _score,
    repository="openai/gsm8k",
    files=("main/test-00000-of-00001.parquet",),
    examples=len(_EXAMPLES),
)
