"""Confidence that means what it says, learned from the training examples alone."""

from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from seawall.intents.classifier import NgramClassifier, softmax, train

__all__ = ["Calibration", "calibrate", "train_calibrated"]

PRECISION = 0.97
"""How often the classifier must be right when it answers by itself."""

_MARGIN = 0.01
_FALLBACK = 0.9
_FEWEST = 30
_FOLDS = 4
_ONE_SPLIT_FROM = 3_000


class Calibration(Struct, frozen=True):
    """temperature: divides scores before softmax. threshold: the confidence to answer from."""

    temperature: float
    threshold: float


def train_calibrated(
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[NgramClassifier, float]:
    """A classifier with calibrated confidence, and the threshold from which it answers."""
    calibration = calibrate(texts, labels, seed=seed, progress=progress)
    progress("training on everything")
    classifier = train(texts, labels, seed=seed)
    classifier.temperature = calibration.temperature
    return classifier, calibration.threshold


def calibrate(
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    seed: int,
    progress: Callable[[str], None] = lambda _: None,
) -> Calibration:
    """Learn from held-out parts of the training examples how far scores can be trusted.

    Temperature scaling: Guo et al., On Calibration of Modern Neural Networks, 2017. With few
    examples by four-fold cross-validation, with many by one split of a quarter.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(texts))
    folds = np.array_split(order, _FOLDS)
    scores: list[NDArray[np.float32]] = []
    targets: list[int] = []
    for number, held_out in enumerate(folds[: 1 if len(texts) >= _ONE_SPLIT_FROM else _FOLDS]):
        progress(f"calibrating ({number + 1})")
        hidden = set(held_out.tolist())
        rest = [index for index in range(len(texts)) if index not in hidden]
        kept_labels = [labels[index] for index in rest]
        if len(set(kept_labels)) < 2:
            continue
        classifier = train([texts[index] for index in rest], kept_labels, seed=seed)
        place = {name: index for index, name in enumerate(classifier.labels)}
        for index in held_out.tolist():
            scores.append(classifier.scores(texts[index]))
            targets.append(place.get(labels[index], -1))
    if len(targets) < _FEWEST:
        return Calibration(1.0, _FALLBACK)
    temperature = _temperature(scores, targets)
    confidences, right = _outcomes(scores, targets, temperature)
    return Calibration(temperature, _threshold(confidences, right))


def _outcomes(
    scores: Sequence[NDArray[np.float32]], targets: Sequence[int], temperature: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    probabilities = [softmax(each.astype(np.float64) / temperature) for each in scores]
    confidences = np.array([each.max() for each in probabilities])
    right = np.array(
        [int(each.argmax()) == target for each, target in zip(probabilities, targets, strict=True)]
    )
    return confidences, right


def _temperature(scores: Sequence[NDArray[np.float32]], targets: Sequence[int]) -> float:
    """The temperature of the least cross-entropy on a geometric grid from 0.05 to 5."""

    def cost(temperature: float) -> float:
        total = 0.0
        for each, target in zip(scores, targets, strict=True):
            if target >= 0:
                probability = softmax(each.astype(np.float64) / temperature)[target]
                total -= float(np.log(max(float(probability), 1e-12)))
        return total

    return min((float(each) for each in np.geomspace(0.05, 5.0, 48)), key=cost)


def _threshold(confidences: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """The least confidence above which the precision, with a margin, is as promised.

    The margin is for the examples that were not seen; Laplace's rule for small counts.
    """
    order = np.argsort(-confidences)
    correct = np.cumsum(right[order])
    counted = np.arange(1, len(order) + 1)
    precise = (correct + 1) / (counted + 2) >= PRECISION + _MARGIN
    enough = np.flatnonzero(precise & (counted >= _FEWEST))
    if not len(enough):
        return _FALLBACK
    return float(confidences[order][enough[-1]])
