"""Text to features: words, pairs of words, and the letters inside words."""

import re
from collections.abc import Sequence

__all__ = ["MAX_CHARACTERS", "letter_features", "split", "word_features"]

MAX_CHARACTERS = 2_000
"""Of a text, this much is looked at: intents show early, and a stranger chooses the length."""

_word = re.compile(r"\w+")
_LETTERS = (2, 3, 4, 5)
_MAX_WORD = 40


def split(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return [word[:_MAX_WORD] for word in _word.findall(text[:MAX_CHARACTERS].lower())]


def word_features(words: Sequence[str]) -> list[str]:
    """Words and pairs of neighbours; the ends of the text count as neighbours."""
    pairs = zip(["", *words], [*words, ""], strict=True)
    return [*words, *[f"{first} {second}" for first, second in pairs]]


def letter_features(word: str) -> list[str]:
    """The 2- to 5-grams of a word's letters, with its ends marked."""
    padded = f" {word} "
    return [
        padded[start : start + length]
        for length in _LETTERS
        for start in range(len(padded) - length + 1)
    ]
