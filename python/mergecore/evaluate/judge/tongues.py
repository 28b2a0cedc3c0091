"""Which languages and scripts does a word of the prompt call for?"""

from __future__ import annotations

from typing import Final

EVERYTHING: Final = "*"

# name in a prompt: language codes, scripts. A language that is easily taken for its neighbour brings the neighbour along.
_NAMED = """
spanish español mexican castilian argentinian colombian: es ca pt |
catalan: ca es |
portuguese português brazilian: pt es |
french français québécois haitian: fr ca |
italian italiano: it |
romanian: ro |
german deutsch austrian: de nl |
dutch flemish: nl af |
afrikaans: afr nl |
swedish: sv da | danish: da sv | norwegian: da sv | icelandic: isl da | finnish: fi est | estonian: est fi |
polish: pl | czech: cs sk | slovak: sk cs | hungarian: hu | turkish: tr aze | vietnamese: vi |
indonesian malay javanese: id jav msa | english anglais englisch inglés: en |
latin: lat it es pt ca fr | roman: lat |
russian: | ukrainian: | bulgarian: | serbian: hrv | mongolian: | cyrillic: | belarusian: | macedonian: | kazakh: |
greek: | hebrew yiddish: | arabic: | persian farsi: | urdu: | pashto: |
chinese mandarin cantonese hanzi pinyin: | japanese kanji hiragana katakana anime manga haiku: | korean hangul k-pop: |
hindi sanskrit nepali marathi: | bengali: | punjabi: | tamil: | telugu: | kannada: | malayalam: | gujarati: | sinhala: | thai: | lao: |
khmer: | burmese: | tibetan: | amharic: | armenian: | georgian:
"""

_SCRIPTS = {
    "Cyrillic": "russian ukrainian bulgarian serbian mongolian cyrillic belarusian macedonian kazakh",
    "Greek": "greek",
    "Hebrew": "hebrew yiddish",
    "Arabic": "arabic persian farsi urdu pashto",
    "Han": "chinese mandarin cantonese hanzi pinyin japanese kanji hiragana katakana anime manga haiku korean",
    "Hangul": "korean hangul k-pop",
    "Devanagari": "hindi sanskrit nepali marathi",
    "Bengali": "bengali",
    "Gurmukhi": "punjabi",
    "Tamil": "tamil",
    "Telugu": "telugu",
    "Kannada": "kannada",
    "Malayalam": "malayalam",
    "Gujarati": "gujarati",
    "Sinhala": "sinhala",
    "Thai": "thai",
    "Lao": "lao",
    "Khmer": "khmer",
    "Myanmar": "burmese",
    "Tibetan": "tibetan",
    "Ethiopic": "amharic",
    "Armenian": "armenian",
    "Georgian": "georgian",
}


def _calls() -> dict[str, frozenset[str]]:
    calls: dict[str, set[str]] = {}
    for entry in _NAMED.split("|"):
        names, _, codes = entry.partition(":")
        for name in names.split():
            calls.setdefault(name, set()).update(codes.split())
    for script, names in _SCRIPTS.items():
        for name in names.split():
            calls.setdefault(name, set()).add(script)
    return {name: frozenset(codes) for name, codes in calls.items()}


CALLS: Final = _calls()
"""What a name calls for: codes as `languages.rs` gives them, and names of scripts."""

OTHERS: Final = (
    "albanian aramaic azerbaijani basque bosnian croatian filipino gaelic galician hawaiian igbo irish kurdish latvian"
    " lithuanian maori scots slovenian somali swahili tagalog uzbek welsh xhosa yoruba zulu"
).split()
"""Languages that the identifier may take for any other: a prompt that names one calls for everything."""
