"""Text to features: words, pairs of words, and the letters inside words."""

import math
import re
from collections import Counter
from collections.abc import Iterable

__all__ = ["MAX_CHARACTERS", "Features", "extract"]

MAX_CHARACTERS = 2_000
"""Of a text, this much is looked at: intents show early, and a stranger chooses the length."""

Features = tuple[dict[str, float], dict[str, float]]
"""Weights of word features and of letter features, before any knowledge of a corpus."""

_word = re.compile(r"\w+")
_LETTERS = (2, 3, 4, 5)


def extract(text: str) -> Features:
    """Word 1-2-grams and, within word boundaries, letter 2-5-grams; each with 1 + log(count).

    Sublinear term frequency: Manning, Raghavan, Schütze, Introduction to Information Retrieval,
    §6.4.1.
    """
    words = _word.findall(text[:MAX_CHARACTERS].lower())
    pairs = zip(["", *words], [*words, ""], strict=True)
    named = [*words, *(f"{first} {second}" for first, second in pairs)]
    letters = [
        padded[start : start + length]
        for word in words
        for padded in (f" {word[:40]} ",)
        for length in _LETTERS
        for start in range(len(padded) - length + 1)
    ]
    return _weights(named), _weights(letters)


def _weights(found: Iterable[str]) -> dict[str, float]:
    return {
        feature: 1.0 + math.log(count) if count > 1 else 1.0
        for feature, count in Counter(found).items()
    }
