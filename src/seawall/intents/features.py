"""Features of texts: words, with their spelling corrected, pairs and parts of words; digest."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from hashlib import sha256
from itertools import pairwise

__all__ = [
    "FORMAT",
    "MAX_CHARACTERS",
    "Speller",
    "digest",
    "letter_features",
    "split",
    "word_features",
]

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
    return [*words, *map(" ".join, pairwise(("", *words, "")))]


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


_REMEMBERED_WORDS = 8_192
_MOST_WORDS = 10_000
_MOST_CORRECTIONS = 32
_FEWEST_LETTERS, _MOST_LETTERS = 4, 40
_SHORT_WORDS = frozenset(("a", "i"))


class Speller:
    """Corrects words of four letters and more that are not known. Knows no language.

    A word is corrected to one that a single edit away: a letter changed, left out, put in, or two
    neighbours swapped (Damerau, A technique for computer detection and correction of spelling
    errors, 1964); else, where it is known words one after the other, it is split into them.
    Candidates are found by the words' deletions, so that a look-up takes microseconds
    (Bocek, Hunt, Stiller, Fast Similarity Search in Large Dictionaries, 2007).
    """

    def __init__(self, rarity: Mapping[str, float]) -> None:
        """Index the words.

        Args:
            rarity: The known words, and how rare each is, at least 0; the commonest of
                several candidates is taken. Beyond 10,000 words, the rarest are no candidates.
        """
        self._rarity = rarity
        self._corrected = lru_cache(_REMEMBERED_WORDS)(self._correct)

    @cached_property
    def _by_deletion(self) -> dict[str, list[str]]:
        """The words by what each is without one letter; made for the first unknown word."""
        found: dict[str, list[str]] = {}
        candidates = [word for word in self._rarity if len(word) >= _FEWEST_LETTERS]
        for word in sorted(candidates, key=self._rarity.__getitem__)[:_MOST_WORDS]:
            for shorter in _deletions(word):
                found.setdefault(shorter, []).append(word)
        return found

    def __call__(self, words: Sequence[str]) -> Sequence[str]:
        """The corrected words; of unknown ones, only the first 32 are corrected."""
        unknown = [word for word in words if word not in self._rarity]
        if not unknown:
            return words
        corrected = self._corrections(unknown)
        return [each for word in words for each in corrected.get(word, (word,))]

    def correct_text(self, text: str, knows: Callable[[str], bool]) -> str:
        """The text in lower case, corrected except for words that `knows` accepts."""
        text = text.lower()
        unknown = [
            word
            for word in _word.findall(text)
            if word not in self._rarity and len(word) >= _FEWEST_LETTERS and not knows(word)
        ]
        corrected = self._corrections(unknown)
        if not corrected:
            return text
        return _word.sub(lambda word: " ".join(corrected.get(word[0], (word[0],))), text)

    def _corrections(self, unknown: Sequence[str]) -> dict[str, tuple[str, ...]]:
        long = [word for word in unknown if len(word) >= _FEWEST_LETTERS]
        return {word: self._corrected(word) for word in long[:_MOST_CORRECTIONS]}

    def _correct(self, word: str) -> tuple[str, ...]:
        if len(word) > _MOST_LETTERS or not word.isalpha():
            return (word,)
        shorter = _deletions(word)
        candidates = {each for each in shorter if each in self._rarity}
        candidates.update(self._by_deletion.get(word, ()))
        for each in shorter:
            candidates.update(
                known for known in self._by_deletion.get(each, ()) if _is_one_edit(word, known)
            )
        # Of four letters there are many words: one of them is taken only for a longer cut short.
        fewest = _FEWEST_LETTERS + (len(word) == _FEWEST_LETTERS)
        candidates = {each for each in candidates if len(each) >= fewest}
        if candidates:
            return (min(candidates, key=lambda each: (self._rarity[each], each)),)
        return self._split(word)

    def _split(self, word: str) -> tuple[str, ...]:
        """The likeliest division into known words, by the product of how common they are."""
        best: list[tuple[float, tuple[str, ...]]] = [(0.0, ())]
        for end in range(1, len(word) + 1):
            cheapest: tuple[float, tuple[str, ...]] = (math.inf, ())
            for start in range(end):
                cost, before = best[start]
                part = word[start:end]
                if cost == math.inf or (len(part) == 1 and part not in _SHORT_WORDS):
                    continue
                if (rarity := self._rarity.get(part)) is not None:
                    cheapest = min(cheapest, (cost + rarity, (*before, part)))
            best.append(cheapest)
        return best[-1][1] or (word,)


def _deletions(word: str) -> set[str]:
    return {word[:index] + word[index + 1 :] for index in range(len(word))}


def _is_one_edit(word: str, known: str) -> bool:
    """Whether one letter differs, or two neighbours are swapped; both are of the same length."""
    if len(word) != len(known):
        return False
    wrong = [index for index in range(len(word)) if word[index] != known[index]]
    if len(wrong) == 1:
        return True
    return (
        len(wrong) == 2
        and wrong[1] == wrong[0] + 1
        and word[wrong[0]] == known[wrong[1]]
        and word[wrong[1]] == known[wrong[0]]
    )
