"""What does the prompt call for, that would be a fault if nobody had asked for it?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from mergecore.evaluate.judge.tongues import CALLS, EVERYTHING, OTHERS

_VERSE = re.compile(
    r"\b(?:song|songs|lyrics?|poems?|poetry|poetic|verses?|chorus|refrain|rap|raps|rhymes?|rhyming|limericks?|haikus?"
    r"|sonnets?|villanelle|ballads?|hymns?|psalms?|chants?|lullab(?:y|ies)|anthem|jingle|mantras?|prayers?|litany|carols?"
    r"|sing|sings|sung|ode|elegy|nursery|blues|tongue[- ]twisters?|affirmations? song|cheer|ghazal|sestina|pantoum|acrostic)\b",
    re.IGNORECASE,
)
_REPETITION = re.compile(
    r"\b(?:repeat(?:s|ed|ing|edly)?|repetiti(?:on|ve)|over and over|again and again|\d+ times|(?:ten|twenty|fifty|hundred|thousand|many) times"
    r"|forever|infinite|endless(?:ly)?|keeps? (?:saying|repeating|asking)|loop|pattern|spam|copy and paste|duplicate)\b",
    re.IGNORECASE,
)
_LANGUAGE = re.compile(r"\b(?:" + "|".join([*CALLS, *OTHERS]) + r")\b", re.IGNORECASE)
_FOREIGN = re.compile(
    r"\b(?:translat\w*|languages?|bilingual|multilingual|linguist\w*|etymolog\w*|alphabets?|scripts? of|kanji|hiragana|katakana|hangul|hanzi"
    r"|pinyin|cyrillic|unicode|transliterat\w*|polyglot|phrasebook|around the world|loanwords?|lorem ipsum|foreign words?"
    r"|how do you say|code[- ]switch\w*|latin phrases?|say hello|greetings?|traduc\w*|übersetz\w*|tradui\w*|翻译|翻訳|перевед\w*)\b",
    re.IGNORECASE,
)
_TURNS = re.compile(
    r"\b(?:dialogu?e|conversation|chat(?:bot|s)?|transcripts?|interview|scripts?|scene|screenplay|(?:a|short|one-act) play|skit|role[- ]?play|debate|user stor(?:y|ies)"
    r"|use cases?|roleplaying|bots?|assistant|improv|prompts?|few[- ]shot)\b",
    re.IGNORECASE,
)
_TOKENS = re.compile(
    r"\b(?:tokens?|tokeni[sz]\w*|templates?|chatml|llama|mistral|gpt\w*|prompt format|special tokens?|eos|bos|bert|html|xml|markup|tags?)\b",
    re.IGNORECASE,
)
_EMOJI = re.compile(
    r"emojis?\b|emoticons?|tweet|instagram|social media|\bpost\b|kaomoji|caption|whatsapp|tiktok|linkedin",
    re.IGNORECASE,
)
_SYMBOLS = re.compile(
    r"\b(?:ascii|draw\w*|symbols?|characters?|emojis?|regex\w*|regular expressions?|punctuation|brainfuck|esolang|code|program|function|script"
    r"|pattern|grid|board|math\w*|formula\w*|equation|notation|icons?|font|decode|encode|logo|smiley|face|print\w*|output|shape|diagram)\b",
    re.IGNORECASE,
)
_GIBBERISH = re.compile(
    r"\b(?:gibberish|nonsense\w*|random|made[- ]up|invent\w*|fictional language|conlang|cipher\w*|encrypt\w*|encod\w*|decod\w*|decrypt\w*|rot13|base64|binary|hex\w*"
    r"|hash\w*|passwords?|pig latin|leet\w*|anagrams?|scrambl\w*|backwards?|reverse\w*|dna|rna|protein|sequences?|long(?:est)? (?:word|name|place)\w*"
    r"|without (?:spaces|vowels)|jabberwocky|elvish|klingon|morse|braille|spell\w*|letters?|vowels?|consonants?|crosswords?|lorem ipsum|word ?search|abbreviat\w*|no spaces"
    r"|hashtags?|camel ?case|keywords?|words that|list of words|stream of consciousness|dadais\w*|longest|keys?|domain names?|usernames?|acronyms?|ids?|uuids?)\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d+")
_MANY = re.compile(
    r"\b(?:twenty|thirty|forty|fifty|hundred|thousand|all|every|complete list|daily|30-day|table)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Allowance:
    """What the prompt calls for."""

    verse: bool
    repetition: bool
    tongues: frozenset[str]
    """Codes of languages and names of scripts, or `EVERYTHING`."""
    turns: bool
    tokens: bool
    emoji: bool
    symbols: bool
    gibberish: bool
    items: int
    """The largest number of things that it asks for, as far as it names one."""


@lru_cache(maxsize=4096)  # a sweep judges the same prompts a hundred times
def allowance(instruction: str) -> Allowance:
    def asks(*patterns: re.Pattern[str]) -> bool:
        return any(pattern.search(instruction) for pattern in patterns)

    numbers = [int(number) for number in _NUMBER.findall(instruction) if len(number) < 5]
    return Allowance(
        verse=asks(_VERSE),
        repetition=asks(_REPETITION),
        tongues=_tongues(instruction),
        turns=asks(_TURNS),
        tokens=asks(_TOKENS),
        emoji=asks(_EMOJI),
        symbols=asks(_SYMBOLS),
        gibberish=asks(_GIBBERISH),
        items=max([*numbers, 100 if asks(_MANY) else 0]),
    )


def _tongues(instruction: str) -> frozenset[str]:
    if _FOREIGN.search(instruction):
        return frozenset({EVERYTHING})
    names = {name.lower() for name in _LANGUAGE.findall(instruction)}
    if names & set(OTHERS):
        return frozenset({EVERYTHING})
    return frozenset().union(*(CALLS[name] for name in names))
