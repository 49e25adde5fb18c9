"""A linear classifier on word and letter n-grams: small, quick, and honest about not knowing."""

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from seawall.intents.features import Features, extract

__all__ = ["NgramClassifier", "Vector", "train"]

Vector = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Positions and weights of a text's known features."""

_UPDATES = 16_000
_EPOCHS = (8, 30)
_RATE = 5.0
_DROPPED = 0.3

Progress = Callable[[int, int], None]


class NgramClassifier:
    """Multinomial logistic regression on tf-idf features. Made by `train`.

    labels: class names in the order of scores. temperature: divides the scores; set by
    calibration.
    """

    def __init__(
        self,
        labels: tuple[str, ...],
        vocabularies: tuple[dict[str, int], dict[str, int]],
        idf: NDArray[np.float32],
        unseen_idf: float,
        weights: NDArray[np.float32],
        *,
        temperature: float = 1.0,
    ) -> None:
        self.labels = labels
        self.temperature = temperature
        self._vocabularies = vocabularies
        self._idf = idf
        self._unseen_idf = unseen_idf
        self._weights = weights

    def scores(self, text: str) -> NDArray[np.float32]:
        """One number a class; the scale is the classifier's own."""
        positions, values = vectorise(
            extract(text), self._vocabularies, self._idf, self._unseen_idf
        )
        return values @ self._weights[positions]

    def probabilities(self, text: str) -> NDArray[np.float64]:
        """Calibrated probabilities of the classes; they add up to 1."""
        return softmax(self.scores(text).astype(np.float64) / self.temperature)

    def best(self, text: str) -> tuple[str, float]:
        """The likeliest class and its probability."""
        probabilities = self.probabilities(text)
        position = int(probabilities.argmax())
        return self.labels[position], float(probabilities[position])


def train(
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    seed: int = 0,
    progress: Progress = lambda _done, _all: None,
) -> NgramClassifier:
    """Train by stochastic gradient descent; the same input gives the same classifier.

    Words and letters are each scaled to length 1, so that neither drowns the other. In every
    update three features in ten are left out (Wager, Wang, Liang: Dropout Training as Adaptive
    Regularization, 2013), which keeps it from leaning on few words. The settings were chosen by
    validation on held-out training data of BANKING77: see bench/intents/README.md.
    """
    names = tuple(sorted(set(labels)))
    position = {name: index for index, name in enumerate(names)}
    targets = [position[label] for label in labels]
    extracted = [extract(text) for text in texts]
    vocabularies, idf, unseen_idf = _vocabularies(extracted)
    vectors = [vectorise(each, vocabularies, idf, unseen_idf) for each in extracted]
    weights = np.zeros((len(idf), len(names)), np.float32)
    random = np.random.default_rng(seed)
    epochs = min(max(_UPDATES // max(len(texts), 1), _EPOCHS[0]), _EPOCHS[1])
    for epoch in range(epochs):
        progress(epoch, epochs)
        rate = _RATE * (1 - epoch / epochs)
        for index in random.permutation(len(vectors)):
            positions, values = vectors[index]
            kept = random.random(len(positions)) >= _DROPPED
            positions, values = positions[kept], values[kept] / np.float32(1 - _DROPPED)
            error = softmax(values @ weights[positions])
            error[targets[index]] -= 1
            weights[positions] -= np.outer(values * np.float32(rate), error)
    progress(epochs, epochs)
    return NgramClassifier(names, vocabularies, idf, unseen_idf, weights)


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores to probabilities, safe for any size."""
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()  # type: ignore[no-any-return]  # numpy types division loosely


def vectorise(
    features: Features,
    vocabularies: tuple[dict[str, int], dict[str, int]],
    idf: NDArray[np.float32],
    unseen_idf: float,
) -> Vector:
    """Known features with their weights.

    Unknown ones count for the length to which the text is scaled: the less of a text is known,
    the smaller its weights, and the less sure the classifier.
    """
    positions: list[NDArray[np.int64]] = []
    values: list[NDArray[np.float32]] = []
    for weights, vocabulary in zip(features, vocabularies, strict=True):
        known = [
            (vocabulary[name], weight) for name, weight in weights.items() if name in vocabulary
        ]
        unknown = sum(
            (weights[each] * unseen_idf) ** 2 for each in weights if each not in vocabulary
        )
        where = np.fromiter((place for place, _ in known), np.int64, len(known))
        what = np.fromiter((weight for _, weight in known), np.float32, len(known)) * idf[where]
        length = math.sqrt(float(what @ what) + unknown)
        positions.append(where)
        values.append(what / np.float32(length * math.sqrt(2)) if length else what)
    return np.concatenate(positions), np.concatenate(values)


def _vocabularies(
    extracted: Sequence[Features],
) -> tuple[tuple[dict[str, int], dict[str, int]], NDArray[np.float32], float]:
    """Feature positions, and smoothed inverse document frequencies; also that of the unseen."""
    words: Counter[str] = Counter()
    letters: Counter[str] = Counter()
    for word_weights, letter_weights in extracted:
        words.update(word_weights.keys())
        letters.update(letter_weights.keys())
    total = len(extracted)
    counts = [*words.values(), *letters.values()]
    idf = np.log((1 + total) / (1 + np.array(counts, np.float32))) + 1
    by_word = {name: index for index, name in enumerate(words)}
    by_letters = {name: len(words) + index for index, name in enumerate(letters)}
    return (by_word, by_letters), idf.astype(np.float32), math.log(1 + total) + 1
