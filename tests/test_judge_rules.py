"""Is the rules judge right on the labelled answers, and on every fault that it is there for?"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judge.answers import LABELS, Answer, answers
from mergecore.evaluate.judge import judge

LABELLED = answers("tuning") + answers("heldout")
PROSE = (
    "The harbour was quiet when the first boats came in, and nobody on the quay looked up from the"
    " nets. A boy counted the crates aloud; his sister wrote the numbers into a small blue book."
    " By nine o'clock the market was full, and the gulls had learned where the fishwives stood. "
)


def labels(output: str, instruction: str = "Tell me something.") -> set[str]:
    verdict = judge(instruction, output)
    return {label for label in LABELS if getattr(verdict, label)}


def f1(pairs: list[tuple[bool, bool]]) -> float:
    """Of what was said and what is so."""
    right = sum(said and so for said, so in pairs)
    return 2 * right / sum(said + so for said, so in pairs)


def test_the_labelled_set_is_large_and_mixed():
    assert len(LABELLED) >= 240
    assert sum(not answer.labels for answer in LABELLED) >= 120
    assert all(sum(label in answer.labels for answer in LABELLED) >= 40 for label in LABELS)


@pytest.mark.parametrize("part", ["tuning", "heldout"])
def test_it_is_right_on_the_labelled_answers(part):
    pairs: dict[str, list[tuple[bool, bool]]] = {label: [] for label in LABELS}
    for answer in answers(part):
        said = labels(answer.output, answer.instruction)
        for label in LABELS:
            pairs[label].append((label in said, label in answer.labels))
    for label in LABELS:
        assert f1(pairs[label]) >= 0.85, label
    assert f1([pair for label in LABELS for pair in pairs[label]]) >= 0.9


@pytest.mark.parametrize("answer", LABELLED, ids=lambda answer: answer.id)
def test_evidence_quotes_the_output_and_a_verdict_is_the_same_every_time(answer: Answer):
    verdict = judge(answer.instruction, answer.output)
    assert verdict == judge(answer.instruction, answer.output)
    assert verdict.judge == "rules/1"
    for span in verdict.evidence:
        assert answer.output[span.start : span.end] == span.quote
        assert getattr(verdict, span.label)
    assert {span.label for span in verdict.evidence} == labels(answer.output, answer.instruction)
    assert set(verdict.json()) == {*LABELS, "evidence", "judge"}


REPETITION = {
    "a sentence": PROSE + "It was said again. " * 12,
    "a word": PROSE + "very " * 40,
    "a character": PROSE + "!" * 200,
    "line breaks": PROSE + "\n" * 400,
    "a loop that ends": PROSE
    + "The gulls came back to the quay. " * 9
    + PROSE.replace("was", "is"),
    "a code fence": PROSE + "\n```python\n" + "    print(total)\n" * 40 + "```",
    "a table": PROSE + "\n| a | b |\n|---|---|\n" + "| one | two |\n" * 40,
    "ASCII art": PROSE + "\n" + "   |  |   /\\\n   |__|  /  \\\n" * 40,
    "a counter": PROSE + "".join(f"Step {i}: Repeat the step {i - 1}.\n" for i in range(4, 50)),
    "a word that changes": PROSE
    + "".join(f"- It is good for your {'skin mood sleep'.split()[i % 3]}.\n" for i in range(40)),
    "the whole answer": (PROSE + "\n\n") * 3,
    "no spaces": "北京是中国的首都。" + "北京有很多名胜古迹," * 40,
}


@pytest.mark.parametrize("kind", REPETITION)
def test_repetition_of(kind):
    spoken = "介绍一下北京。" if kind == "no spaces" else "Tell me something."
    assert labels(REPETITION[kind], spoken) == {"repetition"}


CODE_SWITCHING = {
    "Chinese": PROSE + "保持良好的睡眠习惯对身体健康非常重要。",
    "one word": PROSE + "The crates were 重要 to them.",
    "Cyrillic in a word": PROSE + "The boats impрoved the harbour.",
    "Spanish": PROSE + "Lo más importante es que los barcos lleguen antes de la tormenta. " + PROSE,
    "German": PROSE + "Die Boote kamen am Abend zurück, und niemand hatte auf sie gewartet. ",
    "French": PROSE + "Les bateaux sont rentrés le soir et personne ne les avait attendus. ",
    "Turkish": PROSE + "Tekneler akşam geri döndü ve hiç kimse onları beklemiyordu, çünkü geçti. ",
    "all of it": "Am Abend kamen die Boote zurück, und niemand hatte auf sie gewartet.",
}


@pytest.mark.parametrize("kind", CODE_SWITCHING)
def test_code_switching_to(kind):
    assert labels(CODE_SWITCHING[kind]) == {"code_switching"}


NONSENSE = {
    "nothing": "",
    "blanks": " \n\t ",
    "signs only": "......",
    "a stop token": "Blue.</s>",
    "a chat token": "Blue.<|im_end|>",
    "a user's turn": "Blue.\nUser: And another?",
    "a marked turn": "Blue.\n<|user|>\nAnd another?",
    "an instruction": "Blue.\n\n### Instruction:\nName a colour.",
    "sub-words": PROSE + "TheĠboatsĠcameĠback.",
    "mojibake": PROSE + "He said â€œitâ€™s the cafÃ©â€\x9d and left.",
    "lost characters": PROSE + "The b\ufffdats c\ufffdme b\ufffdck.",
    "control characters": PROSE + "The b\x01ats c\x02me b\x03ck.",
    "private use": PROSE + "The b\ue001ats c\ue002me.",
    "glued words": PROSE + "theboatscamebackintheevening andnobodyhadwaitedforthem",
    "humps": PROSE + "theBoatsThatWereOutAnd cameBackAndTheRest wentHomeToBed.",
    "signs": PROSE
    + "\nThe boats ()){;. <<>> );}} ==> {{{ ;;; ))( ]] ;; && ^^ ~~ ((( {{; >>><< ;}} )(",
    "emoji": PROSE + "😀😁😂🤣😃😄😅😆😉😊😋😎😍😘",
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_is(kind):
    assert labels(NONSENSE[kind]) == {"nonsense"}


CLEAN = {
    "units": "C = 1 µF with R = 10 kΩ gives f = 1/(2πRC); λmax shifts by Δλ, and NF-κB has a κ.",
    "a name in its script": "Okroshka (окрошка) is a cold soup, and Tong Sui (糖水) is sweet.",
    "a saying": 'She shrugged and said "c\'est la vie, on ne peut pas tout avoir dans la vie".',
    "parallel items": "".join(
        f"{i}. If your data are {kind}, choose a {kind} database.\n"
        for i, kind in enumerate("tables documents graphs vectors events".split(), 1)
    ),
    "a line to sign": "Name: " + "_" * 60 + "\nDate: " + "_" * 60,
    "struck text": "The price was <s>$20</s> $15.",
    "an unfinished answer": PROSE + "Some of it soaks into the soil and becomes groundw",
}


@pytest.mark.parametrize("kind", CLEAN)
def test_nothing_is_wrong_with(kind):
    assert labels(CLEAN[kind]) == set()


def test_what_was_asked_for_is_no_fault():
    refrain = "Burn, light, burn, till the morning comes again,\n" * 3
    assert labels(PROSE + "\n" + refrain + PROSE.upper() + refrain, "Write a song.") == set()
    assert labels("I will not talk.\n" * 20, "Write 'I will not talk' 20 times.") == set()
    assert labels("一番近い駅はどこですか。", "Where is the station, in Japanese?") == set()
    assert labels("<s>[INST] Hi [/INST]", "Show me Llama's chat template.") == set()
    assert labels("User: Hi\nBot: Hello!\nUser: Bye", "Write a dialogue with a chatbot.") == set()


@settings(deadline=None)
@given(st.text(), st.text())
def test_any_text_can_be_judged(instruction, output):
    for span in judge(instruction, output).evidence:
        assert output[span.start : span.end] == span.quote


def test_half_of_a_surrogate_pair_is_a_lost_character():
    verdict = judge("\ud800", "a\udc00b\ud83dc\udfff.")
    assert verdict.nonsense
    assert verdict.evidence[0].quote == "\udc00b\ud83dc\udfff"


@pytest.mark.parametrize("piece", ["a", "ab ", PROSE, "\n", "| a ", "(", "<|", "Ã©", "字", "```\n"])
def test_a_megabyte_is_judged(piece):
    assert labels(piece * (1_000_000 // len(piece)))
