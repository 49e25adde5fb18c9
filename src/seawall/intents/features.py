"""Features of texts: words, pairs of words, and parts of words; digest of training data."""

import re
from collections.abc import Sequence
from hashlib import sha256

__all__ = ["FORMAT", "MAX_CHARACTERS", "digest", "letter_features", "split", "word_features"]

MAX_CHARACTERS = 2_000
"""The part of a text that is used: intents show early, and clients choose the length."""

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


FORMAT = 2
"""Version of features, training, calibration and file together; any change must change it.

1: n-grams and head. 2: certainty, embeddings of examples; misspelt words are corrected.
"""


def digest(texts: Sequence[str], labels: Sequence[str], embedding: str = "") -> str:
    """A digest of version, examples and embedding model, which identifies a trained classifier."""
    hashed = sha256(f"{FORMAT}\0{embedding}".encode())
    for text, label in zip(texts, labels, strict=True):
        pair = f"{len(text)}\0{len(label)}\0{text}{label}"
        hashed.update(pair.encode("utf-8", "surrogatepass"))
    return hashed.hexdigest()
