"""N-gram classifier without numpy, for cold starts: loaded in a millisecond or two.

Importing numpy takes as long as half of the rest of a cold start. A message takes up to a few
times as long as with numpy. The results equal those of `NgramClassifier`, up to rounding.
"""

import ast
import math
import struct
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from operator import mul
from pathlib import Path
from zlib import crc32

from seawall.intents.features import Speller, digest, letter_features, split, word_features

__all__ = ["LightClassifier", "load_light"]

_MOST_CLASSES = 64  # with more, numpy is worth its import
_REMEMBERED_WORDS = 8_192
_LEAST_ODDS, _MOST_LOG_ODDS = 1e-12, 500.0
_MAGIC = b"\x93NUMPY"


class LightClassifier:
    """An `NgramClassifier` that is loaded from its file.

    Attributes:
        labels: Class names in the order of scores.
        threshold: The confidence from which it decides.
    """

    def __init__(
        self,
        labels: tuple[str, ...],
        words: Sequence[str],
        letters: Sequence[str],
        idf: Sequence[float],
        weights: bytes,
        *,
        temperature: float,
        certainty: Sequence[float],
        threshold: float,
    ) -> None:
        self.labels = labels
        self.threshold = threshold
        self._words = {name: index for index, name in enumerate(words)}
        self._letters = {name: len(self._words) + index for index, name in enumerate(letters)}
        self._idf = idf
        self._weights = weights
        self._temperature = temperature
        self._certainty = certainty
        self._correct = Speller(
            {name: rare for name, rare in zip(words, idf, strict=False) if " " not in name}
        )
        self._row = struct.Struct(f"<{len(labels)}f")
        self._letters_of = lru_cache(_REMEMBERED_WORDS)(self._take_apart)

    def best(self, text: str) -> tuple[str, float]:
        """The likeliest class and the calibrated probability that it is right."""
        found = self._correct(split(text))
        shares: list[float] = []
        rows = []
        words = Counter([_index(each, self._words) for each in word_features(found)])
        letters = Counter([each for word in found for each in self._letters_of(word)])
        for part in (words, letters):
            weighted = [
                (index, (1 + math.log(count)) * self._idf[index if index >= 0 else -1])
                for index, count in part.items()
            ]
            length = math.sqrt(2.0 * sum(value * value for _, value in weighted) or 1.0)
            for index, value in weighted:
                if index >= 0:
                    shares.append(value / length)
                    rows.append(self._row.unpack_from(self._weights, index * self._row.size))
        scores = [sum(map(mul, shares, column)) for column in zip(*rows, strict=True)]
        scores = scores or [0.0] * len(self.labels)
        most = max(scores)
        odds = sum(math.exp((score - most) / self._temperature) for score in scores)
        known = sum(map(mul, shares, shares))
        by_margin, by_known, offset = self._certainty
        log_odds = offset - by_margin * math.log(max(odds - 1, _LEAST_ODDS)) + by_known * known
        return self.labels[scores.index(most)], 1 / (1 + math.exp(-max(log_odds, -_MOST_LOG_ODDS)))

    def _take_apart(self, word: str) -> tuple[int, ...]:
        return tuple(_index(each, self._letters) for each in letter_features(word))


def load_light(path: Path, texts: Sequence[str], labels: Sequence[str]) -> LightClassifier | None:
    """The classifier in a file that `saved.write` wrote; None if the file does not fit."""
    if len(set(labels)) > _MOST_CLASSES:
        return None
    try:
        file = _members(path.read_bytes())
        if _names(file, "key") != [digest(texts, labels)]:
            return None
        names = tuple(_names(file, "labels"))
        words, letters = _names(file, "words"), _names(file, "letters")
        idf = _numbers(file, "idf", "f")
        temperature, threshold, _ = _numbers(file, "numbers", "d")
        certainty = _numbers(file, "certainty", "d")
        weights = _data(file, "weights", "<f4")
    except (OSError, KeyError, TypeError, ValueError, SyntaxError, struct.error):
        return None
    features = len(words) + len(letters)
    if len(certainty) != 3 or len(idf) != features + 1 or len(weights) != 4 * features * len(names):
        return None
    return LightClassifier(
        names,
        words,
        letters,
        idf,
        weights,
        temperature=temperature,
        certainty=certainty,
        threshold=threshold,
    )


def _members(raw: bytes) -> dict[str, bytes]:
    """Members of an uncompressed ZIP file, as numpy writes them.

    Parsed here because importing `zipfile` takes longer than reading. Layout: APPNOTE.TXT §4.3 at
    pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT.

    Raises:
        ValueError, struct.error: It is not such a file, or damaged.
    """
    magic, _, _, _, count, _, at, _ = struct.unpack("<4s4H2LH", raw[-22:])
    if magic != b"PK\x05\x06":
        raise ValueError("not a ZIP file, or one with a comment")
    found: dict[str, bytes] = {}
    for _ in range(count):
        head = struct.unpack_from("<4s6H3L5H2L", raw, at)
        method, checksum, size, name_length, extra, comment = (*head[4:5], *head[7:9], *head[10:13])
        name = raw[at + 46 : at + 46 + name_length].decode("utf-8")
        start = head[-1]
        start += 30 + sum(struct.unpack_from("<2H", raw, start + 26))
        data = raw[start : start + size]
        if method or len(data) != size or crc32(data) != checksum:
            raise ValueError(f"{name} is compressed or damaged")
        found[name] = data
        at += 46 + name_length + extra + comment
    return found


def _data(file: dict[str, bytes], name: str, kind: str) -> bytes:
    """The bytes of an array in numpy's format (numpy.org/neps/nep-0001-npy-format)."""
    raw = file[f"{name}.npy"]
    if raw[:7] != _MAGIC + b"\x01":
        raise ValueError(f"{name} is not an array of version 1")
    (length,) = struct.unpack_from("<H", raw, 8)
    head = ast.literal_eval(raw[10 : 10 + length].decode("latin-1"))
    if head["descr"] != kind or head["fortran_order"]:
        raise ValueError(f"{name} is an array of {head['descr']}")
    return raw[10 + length :]


def _names(file: dict[str, bytes], name: str) -> list[str]:
    return _data(file, name, "|u1").decode("utf-8", "surrogatepass").split("\0")


def _numbers(file: dict[str, bytes], name: str, letter: str) -> tuple[float, ...]:
    data = _data(file, name, {"f": "<f4", "d": "<f8"}[letter])
    return struct.unpack(f"<{len(data) // struct.calcsize(letter)}{letter}", data)


def _index(feature: str, vocabulary: dict[str, int]) -> int:
    """As in `vectors`: each unknown feature has a negative index of its own."""
    position = vocabulary.get(feature)
    return -1 - crc32(feature.encode("utf-8", "replace")) if position is None else position
