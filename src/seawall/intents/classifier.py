"""N-gram classifier: linear, on words and parts of words; small, fast and calibrated."""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from seawall.intents.vectors import Vectoriser

__all__ = ["LEAST_ODDS", "NgramClassifier", "softmax", "train"]

LEAST_ODDS = 1e-12
_MOST_LOG_ODDS = 500.0
_UPDATES = 16_000
_EPOCHS = (8, 30)

Float = TypeVar("Float", np.float32, np.float64)
Progress = Callable[[int, int], None]


class NgramClassifier:
    """Multinomial logistic regression on tf-idf features. Made by `train`.

    Attributes:
        labels: Class names in the order of scores.
        vectorise: Makes features of a text.
        weights: Array of features by classes.
        temperature: Divides the scores; set by calibration.
        certainty: Weights of log-odds and known share, and an offset, from which the probability of
            being right is computed; set by calibration.
    """

    def __init__(
        self,
        labels: tuple[str, ...],
        vectorise: Vectoriser,
        weights: NDArray[np.float32],
        *,
        temperature: float = 1.0,
        certainty: tuple[float, ...] = (1.0, 0.0, 0.0),
    ) -> None:
        self.labels = labels
        self.certainty = certainty
        self.temperature = temperature
        self.vectorise = vectorise
        self.weights = weights

    def positions(self, labels: Sequence[str]) -> NDArray[np.int64]:
        """The index of each label among the scores."""
        indices = {name: index for index, name in enumerate(self.labels)}
        return np.array([indices[label] for label in labels])

    def scores(self, text: str) -> NDArray[np.float32]:
        """One number a class, on a scale of its own."""
        return self.scores_and_known(text)[0]

    def scores_and_known(self, text: str) -> tuple[NDArray[np.float32], float]:
        """The scores, and how much of the text is known from the examples: 0 to 1."""
        positions, values = self.vectorise(text)
        return values.dot(self.weights.take(positions, 0)), float(values.dot(values))

    def probabilities(self, text: str) -> NDArray[np.float64]:
        """Calibrated probabilities of the classes; they add up to 1."""
        return softmax(self.scores(text).astype(np.float64) / self.temperature)

    def best(self, text: str) -> tuple[str, float]:
        """The likeliest class and the calibrated probability that it is right."""
        scores, known = self.scores_and_known(text)
        position = int(scores.argmax())
        listed: list[float] = scores.tolist()
        best = listed[position]
        odds = sum([math.exp((score - best) / self.temperature) for score in listed])
        by_margin, by_known, offset = self.certainty
        log_odds = offset - by_margin * math.log(max(odds - 1, LEAST_ODDS)) + by_known * known
        return self.labels[position], 1 / (1 + math.exp(-max(log_odds, -_MOST_LOG_ODDS)))


def train(
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    seed: int = 0,
    rate: float = 5.0,
    dropped: float = 0.3,
    progress: Progress = lambda _done, _all: None,
) -> NgramClassifier:
    """Train by stochastic gradient descent; deterministic.

    Features are left out at random (Wager, Wang, Liang: Dropout Training as Adaptive
    Regularization, 2013), so that it does not rely on few words. The defaults were chosen by
    validation on held-out training data of BANKING77: see bench/intents/README.md.

    Args:
        texts: The examples.
        labels: The class of each.
        seed: Of everything random.
        rate: Length of the first steps; it falls to nothing.
        dropped: Share of features that each update leaves out.
        progress: Called with epochs done and in all.
    """
    names = tuple(sorted(set(labels)))
    position = {name: index for index, name in enumerate(names)}
    targets = [position[label] for label in labels]
    vectorise = Vectoriser.learn(texts)
    vectors = [vectorise(text) for text in texts]
    weights = np.zeros((len(vectorise), len(names)), np.float32)
    random = np.random.default_rng(seed)
    epochs = min(max(_UPDATES // len(texts), _EPOCHS[0]), _EPOCHS[1]) if texts else 0
    for epoch in range(epochs):
        progress(epoch, epochs)
        order = random.permutation(len(vectors)).tolist()
        # All of an epoch at once, since each call of numpy costs as much as its work here.
        positions, values = (
            np.concatenate([vectors[index][part] for index in order]) for part in (0, 1)
        )
        kept = random.random(len(positions)) >= dropped
        ends = np.cumsum([len(vectors[index][0]) for index in order])
        ends = np.append(0, np.cumsum(kept))[ends]
        positions, values = positions[kept], values[kept] / np.float32(1 - dropped)
        steps = values * np.float32(rate * (1 - epoch / epochs))
        begin = 0
        for index, end in zip(order, ends.tolist(), strict=True):
            here = positions[begin:end]
            rows = weights.take(here, 0)
            error = values[begin:end].dot(rows)
            error -= error.max()
            np.exp(error, out=error)
            error /= error.sum()
            error[targets[index]] -= 1
            rows -= np.multiply.outer(steps[begin:end], error)
            weights[here] = rows
            begin = end
    progress(epochs, epochs)
    return NgramClassifier(names, vectorise, weights)


def softmax(scores: NDArray[Float]) -> NDArray[Float]:
    """Scores to probabilities along the last axis, safe for any size."""
    powers: NDArray[Float] = np.exp(scores - scores.max(-1, keepdims=True))
    powers /= powers.sum(-1, keepdims=True)
    return powers
