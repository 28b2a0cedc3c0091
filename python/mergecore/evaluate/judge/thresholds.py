"""How much is too much? Set on `tests/judge/answers/tuning-*`; docs/evaluation.md gives what they bring.

Lengths are characters. A loop of prose is a fault after a few copies; code, tables and drawings
repeat themselves by nature, and so does verse.
"""

from __future__ import annotations

from typing import Final

SHORTEST_REPEAT: Final = 16
"""Shorter repeats are not looked at."""

# Loops: (longest period, copies, length of the run) from which on a run is a loop; the first row that has the period decides.
LOOP_PROSE: Final = ((3, 20, 60), (30, 6, 90), (60, 3.9, 120), (250, 2.95, 200), (10**9, 1.9, 480))
LOOP_ASIDE: Final = ((30, 25, 280), (120, 12, 300), (400, 6, 800), (10**9, 4, 1600))
LOOP_VERSE: Final = ((30, 25, 300), (10**9, 9, 600))
LOOP_SIGNS: Final = ((2, 60, 60), (10**9, 30, 120))
"""Runs without a letter or digit."""
LOOP_RULES: Final = ((10**9, 150, 400),)
"""Runs of the signs that draw lines and leave blanks."""

# Said again: parts of the answer that are given a second time, not next to the first.
AGAIN_SHORTEST: Final = 120
AGAIN_SHARE: Final = 0.35
AGAIN_LENGTH: Final = 500
AGAIN_SHARE_VERSE: Final = 0.75

# Frames: (units in a row, share of their words that say something new).
FRAMES_PROSE: Final = ((12, 0.05), (20, 0.10), (45, 0.25))
FRAMES_ASIDE: Final = ((45, 0.02),)
FRAMES_VERSE: Final = ((40, 0.03),)
FRAMES_WORDS: Final = 30

# Windows that shrink this much say nothing new; 600 characters hold three or four parallel list items, which shrink by half as much.
WINDOW: Final = 600
WINDOW_STEP: Final = 300
WINDOW_LEAST: Final = 400
WINDOW_RATIO: Final = 4.0
WINDOW_RATIO_ASIDE: Final = 12.0
WINDOW_RATIO_VERSE: Final = 7.0

# Foreign letters that are not set off by brackets, quotes, emphasis or a gloss.
STRAY_LETTERS: Final = 2
GREEK_LETTERS: Final = 4
SENTENCE_LETTERS: Final = 30
TITLE_LINE: Final = 120

REPLACEMENTS: Final = 3
CONTROLS: Final = 2
MOJIBAKE: Final = 3
EMOJI: Final = 15
EMOJI_SHARE: Final = 0.08
EMOJI_RUN: Final = 12
LONGEST_WORD: Final = 200
GLUED_WORD: Final = 24
GLUED_WORDS: Final = 2
GLUED_LONG: Final = 40
"""One such word is enough."""
GARBLED_WINDOW: Final = 24
GARBLED_WORDS: Final = 14
"""So many words of a line are looked at together, and no fewer."""
SHREDS: Final = 0.22
VOWELLESS: Final = 0.3
LITTLE: Final = 0.04
LIST_MARKS: Final = 0.08
SIGN_TOKENS: Final = 10
SIGN_KINDS: Final = 8
STRAY_SCRIPTS: Final = 3
MIXED_WORDS: Final = 4
