"""Tf-idf vectors of texts, scaled by how much of a text is known."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from seawall.intents.features import Speller, letter_features, split, word_features

__all__ = ["Vector", "Vectoriser"]

Vector = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Indices and weights of a text's known features."""

_REMEMBERED_WORDS = 8_192
# Sublinear term frequency: Manning, Raghavan, Schütze, Introduction to Information Retrieval,
# §6.4.1. By count, up to the most that a text has room for.
_BY_COUNT = np.concatenate(([0.0], 1 + np.log(np.arange(1, 2_049)))).astype(np.float32)


class Vectoriser:
    """The vocabulary of a training set. Made by `learn`.

    Attributes:
        idf: Weight of each feature, words before parts of words; the last one is for unknown
            features.
        speller: Corrects misspelt words.
    """

    def __init__(
        self, words: Iterable[str], letters: Iterable[str], idf: NDArray[np.float32]
    ) -> None:
        self._words = {name: index for index, name in enumerate(words)}
        self._letters = {name: len(self._words) + index for index, name in enumerate(letters)}
        self.idf = idf
        self.speller = Speller(
            {
                name: rare
                for name, rare in zip(self._words, idf.tolist(), strict=False)
                if " " not in name
            }
        )
        # Cached: most words of a message have been seen before.
        self._letters_of = lru_cache(_REMEMBERED_WORDS)(self._take_apart)

    @classmethod
    def learn(cls, texts: Sequence[str]) -> Self:
        """Learn the vocabulary of texts."""
        words: Counter[str] = Counter()
        letters: Counter[str] = Counter()
        for text in texts:
            found = split(text)
            # Not sets: their order, and with it what is trained, differs from process to process.
            words.update(list(dict.fromkeys(word_features(found))))
            parts = chain.from_iterable(map(letter_features, dict.fromkeys(found)))
            letters.update(list(dict.fromkeys(parts)))
        counts = np.array([*words.values(), *letters.values(), 0], np.float32)
        # Smoothed inverse document frequency.
        idf = np.log((1 + len(texts)) / (1 + counts)) + 1
        return cls(words, letters, idf.astype(np.float32))

    @property
    def words(self) -> Sequence[str]:
        """Words and pairs of words, in the order of their positions."""
        return tuple(self._words)

    @property
    def letters(self) -> Sequence[str]:
        """Parts of words, in the order of their positions, which follow those of the words."""
        return tuple(self._letters)

    def __len__(self) -> int:
        return len(self.idf) - 1

    def __call__(self, text: str) -> Vector:
        """The vector of a text: words and parts of words, each scaled to the same length.

        Unknown features count for that length: the less of a text is known, the smaller its
        weights, and the less confident the classifier. Misspelt words are corrected first.
        """
        found = self.speller(split(text))
        words = Counter([_index(each, self._words) for each in word_features(found)])
        letters = Counter(chain.from_iterable(map(self._letters_of, found)))
        border, size = len(words), len(words) + len(letters)
        where = np.fromiter(chain(words, letters), np.int64, size)
        counts = np.fromiter(chain(words.values(), letters.values()), np.int64, size)
        known = where >= 0
        weights = _BY_COUNT[counts] * self.idf[np.where(known, where, -1)]
        for part in (weights[:border], weights[border:]):
            np.multiply(part, 1 / math.sqrt(2.0 * float(part @ part) or 1.0), out=part)
        return where[known], weights[known]

    def _take_apart(self, word: str) -> tuple[int, ...]:
        return tuple(_index(each, self._letters) for each in letter_features(word))


def _index(feature: str, vocabulary: dict[str, int]) -> int:
    """The index of a feature; an unknown one has a negative number of its own."""
    position = vocabulary.get(feature)
    return -1 - crc32(feature.encode("utf-8", "replace")) if position is None else position
