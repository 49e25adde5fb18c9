"""N-gram classifier without numpy: smaller, loaded in a millisecond or two, about as fast.

The scores of all classes are the fields of one integer, 64 bits for each, in fixed point: adding
two such integers adds all scores at once. A feature that a message repeats weighs less each time,
so a word's features are added up as if each were new, once for every word that is seen, and a
message needs the sum of its words and a correction for what they share. Decision 034 has figures;
the results equal those of `NgramClassifier`, up to rounding.
"""

import ast
import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import compress, groupby
from operator import eq, mul
from pathlib import Path
from zlib import crc32

from msgspec import Struct

from seawall.intents.features import Speller, digest, letter_features, split, word_features

__all__ = ["MOST_CLASSES", "LightClassifier", "load_light", "read_light"]

MOST_CLASSES = 64
"""With more, numpy is clearly faster: by a quarter with as many."""

_REMEMBERED_WORDS = 2_048
_REMEMBERED_FEATURES = 4_096
_REMEMBERED_COUNTS = 64
_LEAST_ODDS, _MOST_LOG_ODDS = 1e-12, 500.0
_MAGIC = b"\x93NUMPY"
# Fixed point: a field has room for the 8,000 features of a text, each of weight 13 and rarity 10.
_WEIGHT_BITS, _COUNT_BITS = 20, 22
_BIAS = 1 << 62  # added to fields that may be negative, before they are packed or unpacked
_UNIT = 2.0 ** -(_WEIGHT_BITS + _COUNT_BITS)


class _Word(Struct, frozen=True, gc=False):
    """The parts of a word, repeated ones as often as they are in it, and their sums.

    parts: indices, negative for unknown ones. squares, known: the sum of squared rarities, of all
    parts and of known ones. scores: the sum of the known parts' weights by rarity, packed.
    """

    parts: tuple[int, ...]
    squares: float
    known: float
    scores: int


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
        self._fields = struct.Struct(f"<{len(labels)}q")
        self._bias = int.from_bytes(self._fields.pack(*[_BIAS] * len(labels)), "little")
        # Cached: most words of a message have been seen before.
        self._word = lru_cache(_REMEMBERED_WORDS)(self._take_apart)
        self._scores = lru_cache(_REMEMBERED_FEATURES)(self._scores_of)

    def best(self, text: str) -> tuple[str, float]:
        """The likeliest class and the calibrated probability that it is right."""
        found = self._correct(split(text))
        words, word_scale, known_words = self._words_of(found)
        parts, part_scale, known_parts = self._parts_of(found)
        # The bias is the same for all classes, and only differences of scores count.
        scores = [
            first * word_scale + second * part_scale
            for first, second in zip(self._unpacked(words), self._unpacked(parts), strict=True)
        ]
        most = max(scores)
        odds = sum([math.exp((score - most) / self._temperature) for score in scores])
        known = known_words + known_parts
        by_margin, by_known, offset = self._certainty
        log_odds = offset - by_margin * math.log(max(odds - 1, _LEAST_ODDS)) + by_known * known
        return self.labels[scores.index(most)], 1 / (1 + math.exp(-max(log_odds, -_MOST_LOG_ODDS)))

    def _words_of(self, found: Sequence[str]) -> tuple[int, float, float]:
        """Of words and pairs of words: packed scores, the scale of a field, and the known share."""
        features = word_features(found)
        known = [index for index in map(self._words.get, features) if index is not None]
        rarities = list(map(self._idf.__getitem__, known))
        share = sum(map(mul, rarities, rarities))
        squares = share + (len(features) - len(known)) * self._idf[-1] ** 2
        packed = sum(map(self._scores, known))
        again: Sequence[int] = ()
        if len(set(features)) < len(features):
            again = _repeats([_index(each, self._words) for each in features])
        return self._corrected(again, packed, squares, share)

    def _parts_of(self, found: Sequence[str]) -> tuple[int, float, float]:
        """The same of parts of words."""
        packed, squares, known = 0, 0.0, 0.0
        parts: list[int] = []
        for word in map(self._word, found):
            parts += word.parts
            packed += word.scores
            squares += word.squares
            known += word.known
        return self._corrected(_repeats(parts), packed, squares, known)

    def _corrected(
        self, again: Sequence[int], packed: int, squares: float, known: float
    ) -> tuple[int, float, float]:
        """Sums in which each feature was added as if it were new, corrected for repeated ones."""
        packed <<= _COUNT_BITS
        for index, repeats in groupby(again):
            factor, fixed = _excess(1 + len(list(repeats)))
            excess = factor * self._idf[index if index >= 0 else -1] ** 2
            squares += excess
            if index >= 0:
                known += excess
                packed += self._scores(index) * fixed
        share = 0.5 / (squares or 0.5)
        return packed, math.sqrt(share) * _UNIT, known * share

    def _take_apart(self, word: str) -> _Word:
        parts = tuple([_index(each, self._letters) for each in letter_features(word)])
        squares = [self._idf[index if index >= 0 else -1] ** 2 for index in parts]
        known = [index for index in parts if index >= 0]
        rarities = [self._idf[index] for index in known]
        columns = zip(*map(self._weights_of, known), strict=True)
        scores = self._packed([sum(map(mul, rarities, column)) for column in columns])
        return _Word(parts, sum(squares), sum(map(mul, rarities, rarities)), scores)

    def _scores_of(self, index: int) -> int:
        """A feature's weights by its rarity, packed."""
        rarity = self._idf[index]
        return self._packed([rarity * weight for weight in self._weights_of(index)])

    def _weights_of(self, index: int) -> tuple[float, ...]:
        return self._row.unpack_from(self._weights, index * self._row.size)

    def _packed(self, scores: Sequence[float]) -> int:
        """One integer with a field for each score; none for no scores, which are all 0."""
        if not scores:
            return 0
        fields = [round(score * 2**_WEIGHT_BITS) + _BIAS for score in scores]
        return int.from_bytes(self._fields.pack(*fields), "little") - self._bias

    def _unpacked(self, packed: int) -> tuple[int, ...]:
        """The fields, each with the bias added."""
        return self._fields.unpack((packed + self._bias).to_bytes(self._fields.size, "little"))


def _repeats(indices: Sequence[int]) -> Sequence[int]:
    """Each index as often as it is repeated, in order."""
    ordered = sorted(indices)
    return list(compress(ordered, map(eq, ordered, ordered[1:])))


@lru_cache(_REMEMBERED_COUNTS)
def _excess(count: int) -> tuple[float, int]:
    """What is to be added to squares and scores of a feature that was added `count` times.

    A feature's rarity is multiplied by `factor`: sublinear term frequency, as in `vectors`.
    """
    factor = 1 + math.log(count)
    return factor * factor - count, round((factor - count) * 2**_COUNT_BITS)


def load_light(path: Path, texts: Sequence[str], labels: Sequence[str]) -> LightClassifier | None:
    """The classifier in a file that `saved.write` wrote; None if the file does not fit."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    return read_light(raw, texts, labels)


def read_light(raw: bytes, texts: Sequence[str], labels: Sequence[str]) -> LightClassifier | None:
    """The same of the content of a file."""
    if len(set(labels)) > MOST_CLASSES:
        return None
    try:
        file = _members(raw)
        if _names(file, "key") != [digest(texts, labels)]:
            return None
        names = tuple(_names(file, "labels"))
        words, letters = _names(file, "words"), _names(file, "letters")
        idf = _numbers(file, "idf", "f")
        temperature, threshold, _ = _numbers(file, "numbers", "d")
        certainty = _numbers(file, "certainty", "d")
        weights = _data(file, "weights", "<f4")
    except (KeyError, TypeError, ValueError, SyntaxError, struct.error):
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
