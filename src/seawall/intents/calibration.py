"""Confidence that means what it says, learned from the training examples alone."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from seawall.intents.blend import mix
from seawall.intents.classifier import softmax, train
from seawall.intents.head import LinearHead

__all__ = ["Calibration", "calibrate"]

Scores = NDArray[np.float32]

PRECISION = 0.97
"""How often the classifier must be right when it answers by itself."""

_MEAN_CONFIDENCE = 0.985
_ONE_SIDED_95 = 1.645
_FALLBACK = 0.9
_FEWEST = 30
_FOLDS = 5
_ONE_SPLIT_FROM = 3_000
_ABSENT = np.float32(-1e3)
"""The score of a class that a fold's classifier has not seen."""

_THRESHOLDS = np.concatenate((np.arange(0.5, 0.99, 0.005), np.arange(0.99, 1.0, 0.001)))
_TEMPERATURES = np.geomspace(0.05, 5.0, 48)
_WEIGHTS = np.geomspace(0.1, 20.0, 22)


class Calibration(Struct, frozen=True):
    """temperature: divides the scores of the n-grams before softmax.

    first_threshold: the confidence from which the n-grams answer. weights: of the scores of n-grams
    and embeddings when both are added up. threshold: the confidence from which the last step
    answers; not above the first.
    """

    temperature: float = 1.0
    weights: tuple[float, float] = (1.0, 1.0)
    first_threshold: float = _FALLBACK
    threshold: float = _FALLBACK


class _Outcomes(Struct, frozen=True):
    """Of held-out messages: how sure a classifier was, and whether it was right."""

    confidences: NDArray[np.float64]
    right: NDArray[np.bool_]


def calibrate(
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    seed: int,
    embeddings: Scores | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Calibration:
    """Learn from held-out parts of the training examples how far scores can be trusted.

    With few examples by five-fold cross-validation, with many by one split of a fifth.
    Temperature scaling: Guo et al., On Calibration of Modern Neural Networks, 2017; for two
    scores at once a weight for each takes the place of the temperature.

    embeddings: a row a text, where a blend is to be calibrated too.
    """
    names = sorted(set(labels))
    place = {name: index for index, name in enumerate(names)}
    targets = np.array([place[label] for label in labels])
    held_out: list[NDArray[np.int64]] = []
    scores: list[Scores] = []
    dense: list[Scores] = []
    for number, (kept, away) in enumerate(_folds(targets, seed)):
        progress(f"calibrating ({number + 1})")
        if not len(away) or len(set(targets[kept].tolist())) < 2:
            continue
        classifier = train(
            [texts[each] for each in kept], [labels[each] for each in kept], seed=seed
        )
        there = [place[name] for name in classifier.labels]
        found = np.full((len(away), len(names)), _ABSENT)
        found[:, there] = [classifier.scores(texts[each]) for each in away]
        held_out.append(away)
        scores.append(found)
        if embeddings is not None:
            head = LinearHead.fit(embeddings[kept], targets[kept], len(names))
            dense.append(head.scores(embeddings[away]))
    if sum(map(len, held_out)) < _FEWEST:
        return Calibration()
    return _calibrated(
        targets[np.concatenate(held_out)],
        np.concatenate(scores),
        np.concatenate(dense) if dense else None,
    )


def _folds(
    targets: NDArray[np.int64], seed: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """What to train on and what to hold out; every class is spread over the folds."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(targets))
    order = order[np.argsort(targets[order], kind="stable")]
    fold = np.empty(len(targets), np.int64)
    fold[order] = np.arange(len(targets)) % _FOLDS
    for number in range(1 if len(targets) >= _ONE_SPLIT_FROM else _FOLDS):
        yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)


def _calibrated(targets: NDArray[np.int64], ngrams: Scores, dense: Scores | None) -> Calibration:
    wide = ngrams.astype(np.float64)
    temperature = min(_TEMPERATURES.tolist(), key=lambda each: _cross_entropy(wide / each, targets))
    first = _outcomes(wide / temperature, targets)
    alone = _threshold(first)
    if dense is None:
        return Calibration(temperature, first_threshold=alone, threshold=alone)
    both = (ngrams, dense)
    weights = min(
        product((0.0, *_WEIGHTS.tolist()), _WEIGHTS.tolist()),
        key=lambda each: _cross_entropy(mix(both, each), targets),
    )
    second = _outcomes(mix(both, weights), targets)
    sure = first.confidences >= alone
    threshold = _threshold(
        _Outcomes(
            np.where(sure, first.confidences, second.confidences),
            np.where(sure, first.right, second.right),
        )
    )
    return Calibration(temperature, weights, max(alone, threshold), threshold)


def _cross_entropy(scores: NDArray[np.float64], targets: NDArray[np.int64]) -> float:
    probabilities = softmax(scores)[np.arange(len(targets)), targets]
    return -float(np.mean(np.log(np.maximum(probabilities, 1e-12))))


def _outcomes(scores: NDArray[np.float64], targets: NDArray[np.int64]) -> _Outcomes:
    probabilities = softmax(scores)
    return _Outcomes(probabilities.max(1), probabilities.argmax(1) == targets)


def _threshold(outcomes: _Outcomes) -> float:
    """The least confidence from which the cascade keeps its promise.

    Two things must hold of the messages that it would answer: the lower bound of the precision
    (Wilson, Probable inference, 1927; one-sided, 95 %) is the promised one, so that luck with few
    examples does not pass for precision; and the mean confidence leaves a margin, for customers
    who do not write as the examples do. Where the messages cannot show it, too few or too often
    mistaken, the confidence of the best lower bound must do, and at least 0.9.
    """
    best, best_bound = _FALLBACK, 0.0
    for threshold in map(float, _THRESHOLDS):
        answered = outcomes.confidences >= threshold
        if not answered.any() or outcomes.confidences[answered].mean() < _MEAN_CONFIDENCE:
            continue
        right = outcomes.right[answered]
        bound = _lower_bound(int(right.sum()), len(right))
        if bound >= PRECISION:
            return threshold
        if bound > best_bound:
            best, best_bound = threshold, bound
    return max(best, _FALLBACK)


def _lower_bound(right: int, count: int) -> float:
    """Wilson's lower bound of a share."""
    square = _ONE_SIDED_95**2
    share = right / count
    spread = _ONE_SIDED_95 * (share * (1 - share) / count + square / (4 * count**2)) ** 0.5
    return float((share + square / (2 * count) - spread) / (1 + square / count))
