"""Calibration of confidence and thresholds, from the training examples alone."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from seawall.intents import NO_INTENT
from seawall.intents.blend import (
    LinearHead,
    Neighbours,
    corrected,
    evidence,
    to_probability,
    weighted_sum,
)
from seawall.intents.classifier import NgramClassifier, softmax, train
from seawall.intents.embedder import SentenceEmbedder
from seawall.intents.features import Speller
from seawall.intents.misspelling import KINDS, misspelt

__all__ = ["Calibration", "calibrate"]

Scores = NDArray[np.float32]
Wide = NDArray[np.float64]

PRECISION = 0.97
"""Precision that the classifier must have when it decides."""

_UNKNOWN_SHARE = 0.2
"""The share of messages without an intent, at which the precision must be reached."""

_MEAN_CONFIDENCE = 0.98
_ONE_SIDED_95 = 1.645
_FALLBACK = 0.9
_FEWEST = 30
_FOLDS = 5
_ONE_SPLIT_FROM = 3_000
_MOST_MISSPELT = 300
_ONE_MISSPELT_OF = 4
_NO_TARGET = -1
_PENALTY = 0.3
_NEWTON_STEPS = 20
_HALVINGS = 20
_ABSENT = np.float32(-1e3)
"""The score of a class that a fold's classifier was not trained on."""

_THRESHOLDS = np.concatenate((np.arange(0.5, 0.99, 0.005), np.arange(0.99, 1.0, 0.001)))
_TEMPERATURES = np.geomspace(0.05, 5.0, 48)
_WEIGHTS = np.geomspace(0.1, 20.0, 22)


class Calibration(Struct, frozen=True):
    """The result of calibration.

    Attributes:
        temperature: Divides the scores of the n-grams before softmax.
        weights: Of the scores of n-grams and embeddings, when both are added up.
        first_certainty: See `NgramClassifier`.
        certainty: See `BlendedClassifier`.
        first_threshold: The confidence from which the n-grams decide.
        threshold: The confidence from which the last step decides; not above the first.
    """

    temperature: float = 1.0
    weights: tuple[float, float] = (1.0, 1.0)
    first_certainty: tuple[float, ...] = (1.0, 0.0, 0.0)
    certainty: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0)
    first_threshold: float = _FALLBACK
    threshold: float = _FALLBACK


class _Known(Struct, frozen=True):
    """The training data of a fold: embeddings and classes; `absent`: classes without examples."""

    rows: Scores
    targets: NDArray[np.int64]
    absent: NDArray[np.bool_]


class _Embedded(Struct, frozen=True):
    """Held-out messages: embeddings, scores, and the examples they are compared to."""

    rows: Scores
    scores: Scores
    neighbours: Neighbours


class _HeldOut(Struct, frozen=True):
    """Messages that a fold was not trained on, a row each.

    targets: index of the intent; -1 for one that the fold does not know. misspelt: whether it is a
    misspelt copy. scores, known: of the n-grams.
    """

    targets: NDArray[np.int64]
    misspelt: NDArray[np.bool_]
    scores: Scores
    known: Wide
    embedded: _Embedded | None = None


class _Outcomes(Struct, frozen=True):
    """Results on held-out messages: confidence, and whether the answer was right.

    shares: the weight of each message in the mix.
    """

    confidences: Wide
    right: NDArray[np.bool_]
    shares: Wide


def calibrate(
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    seed: int,
    embedder: SentenceEmbedder | None = None,
    embeddings: Scores | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Calibration:
    """Calibrate on held-out parts of the training examples.

    With few examples by five-fold cross-validation, with many by one split of a fifth. Each fold
    also leaves out a fifth of the intents as a whole: their messages, and those labelled "none",
    are what a classifier must not answer. Misspelt copies are among the messages by which scores
    are weighted. Temperature scaling: Guo et al., On Calibration of Modern Neural Networks, 2017;
    for two scores at once a weight for each replaces the temperature. On top of it, a logistic
    regression of being right (Platt, Probabilistic outputs for support vector machines, 1999).

    Args:
        texts: The examples.
        labels: The intent of each.
        seed: Of everything random.
        embedder: To calibrate a blended classifier, too; None for n-grams only.
        embeddings: Of the examples, a row a text.
        progress: Called with what is being done.
    """
    names = sorted(set(labels))
    positions = {name: index for index, name in enumerate(names)}
    targets = np.array([positions[label] for label in labels])
    none = positions.get(NO_INTENT, _NO_TARGET)
    found: list[_HeldOut] = []
    for number, (kept, away) in enumerate(_folds(targets, none, seed)):
        progress(f"calibrating ({number + 1})")
        if not len(away) or len(set(targets[kept].tolist())) < 2:
            continue
        classifier = train(
            [texts[each] for each in kept], [labels[each] for each in kept], seed=seed
        )
        absent = ~np.isin(np.arange(len(names)), targets[kept])
        wanted = np.where(
            absent[targets[away]] | (targets[away] == none), _NO_TARGET, targets[away]
        )
        said = [texts[each] for each in away]
        copied, copies = _misspelt_copies(said, wanted, seed)
        said += copies
        held_out = _scored(
            classifier,
            said,
            np.concatenate((wanted, wanted[copied])),
            np.repeat([False, True], (len(away), len(copied))),
            absent,
        )
        if embedder is not None and embeddings is not None:
            speller = classifier.vectorise.speller
            rows = _embed(said, embeddings[away], speller, embedder)
            known = _Known(embeddings[kept], targets[kept], absent)
            held_out = structs.replace(held_out, embedded=_embedded(rows, known))
        found.append(held_out)
    if sum(int(each.targets.size) for each in found) < _FEWEST:
        return Calibration()
    return _calibrated(found, none)


def _folds(
    targets: NDArray[np.int64], none: int, seed: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Training and held-out rows of each fold: a fifth of each class, and a fifth of the classes.

    Every class is spread over the folds, and left out as a whole in one of them, if at least two
    others remain.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(targets))
    order = order[np.argsort(targets[order], kind="stable")]
    fold = np.empty(len(targets), np.int64)
    fold[order] = np.arange(len(targets)) % _FOLDS
    classes = np.unique(targets)
    unknowable = classes[classes != none]
    groups = random.permutation(len(unknowable)) % _FOLDS
    for number in range(1 if len(targets) >= _ONE_SPLIT_FROM else _FOLDS):
        left_out = unknowable[groups == number]
        if len(classes) - len(left_out) < 2:
            left_out = left_out[:0]
        away = (fold == number) | np.isin(targets, left_out)
        yield np.flatnonzero(~away), np.flatnonzero(away)


def _misspelt_copies(
    texts: Sequence[str], targets: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.int64], list[str]]:
    """Misspelt copies, of all kinds in turn, of every fourth message with a known intent."""
    known = np.flatnonzero(targets != _NO_TARGET)
    count = min(len(known) // _ONE_MISSPELT_OF, _MOST_MISSPELT)
    chosen = np.random.default_rng(seed).permutation(known)[:count]
    copies = [""] * len(chosen)
    for number, kind in enumerate(KINDS):
        turns = range(number, len(chosen), len(KINDS))
        spelt = misspelt([texts[chosen[each]] for each in turns], kind, seed=seed)
        for each, copy in zip(turns, spelt, strict=True):
            copies[each] = copy
    return chosen, copies


def _scored(
    classifier: NgramClassifier,
    texts: Sequence[str],
    targets: NDArray[np.int64],
    misspelt: NDArray[np.bool_],
    absent: NDArray[np.bool_],
) -> _HeldOut:
    scores = np.full((len(texts), len(absent)), _ABSENT)
    known = np.empty(len(texts))
    for row, text in enumerate(texts):
        scores[row, ~absent], known[row] = classifier.scores_and_known(text)
    return _HeldOut(targets, misspelt, scores, known)


def _embed(
    texts: Sequence[str], embeddings: Scores, speller: Speller, embedder: SentenceEmbedder
) -> Scores:
    """Embeddings, a row per text. Only corrected texts and copies are embedded again."""
    spelt = corrected(texts, speller, embedder.knows)
    anew = [
        row
        for row, (text, other) in enumerate(zip(texts, spelt, strict=True))
        if row >= len(embeddings) or text.lower() != other
    ]
    rows = np.empty((len(texts), embeddings.shape[1]), np.float32)
    rows[: len(embeddings)] = embeddings
    if anew:
        rows[anew] = embedder([spelt[each] for each in anew])
    return rows


def _embedded(rows: Scores, known: _Known) -> _Embedded:
    head = LinearHead.fit(known.rows, known.targets, len(known.absent))
    scores = head.scores(rows)
    scores[:, known.absent] = _ABSENT
    return _Embedded(rows, scores, Neighbours.of(known.rows, known.targets, len(known.absent)))


def _calibrated(found: Sequence[_HeldOut], none: int) -> Calibration:
    targets = np.concatenate([each.targets for each in found])
    shares = _shares(targets, np.concatenate([each.misspelt for each in found]))
    ngrams = np.concatenate([each.scores for each in found])
    knowable = targets != _NO_TARGET
    wide, wanted = ngrams.astype(np.float64), targets[knowable]
    temperature = min(
        _TEMPERATURES.tolist(), key=lambda each: _cross_entropy(wide[knowable] / each, wanted)
    )
    first_certainty, first = _outcomes(
        wide / temperature, (np.concatenate([each.known for each in found]),), targets, none, shares
    )
    alone = _threshold(first)
    embedded = [each.embedded for each in found if each.embedded is not None]
    if not embedded:
        return Calibration(
            temperature, first_certainty=first_certainty, first_threshold=alone, threshold=alone
        )
    dense = np.concatenate([each.scores for each in embedded])
    weights = min(
        product((0.0, *_WEIGHTS.tolist()), _WEIGHTS.tolist()),
        key=lambda each: _cross_entropy(
            weighted_sum((ngrams[knowable], dense[knowable]), each), wanted
        ),
    )
    both = weighted_sum((ngrams, dense), weights)
    near = _similarities(embedded, both.argmax(1).tolist())
    certainty, second = _outcomes(both, (both.max(1), near), targets, none, shares)
    confident = first.confidences >= alone
    threshold = _threshold(
        _Outcomes(
            np.where(confident, first.confidences, second.confidences),
            np.where(confident, first.right, second.right),
            shares,
        )
    )
    return Calibration(
        temperature, weights, first_certainty, certainty, max(alone, threshold), threshold
    )


def _shares(targets: NDArray[np.int64], misspelt: NDArray[np.bool_]) -> Wide:
    """The weight of each message in a mix with the given share of messages without an intent."""
    unknown = targets == _NO_TARGET
    shares = np.where(misspelt, 0.0, 1.0)
    count = int((~unknown & ~misspelt).sum())
    shares[unknown] = _UNKNOWN_SHARE / (1 - _UNKNOWN_SHARE) * count / max(int(unknown.sum()), 1)
    return shares


def _similarities(embedded: Sequence[_Embedded], indices: Sequence[int]) -> Wide:
    near: list[float] = []
    for each in embedded:
        here = indices[len(near) : len(near) + len(each.rows)]
        near += map(each.neighbours.similarity, each.rows, here)
    return np.array(near)


def _cross_entropy(scores: Wide, targets: NDArray[np.int64]) -> float:
    probabilities = softmax(scores)[np.arange(len(targets)), targets]
    return -float(np.mean(np.log(np.maximum(probabilities, 1e-12))))


def _outcomes(
    scores: Wide, others: Sequence[Wide], targets: NDArray[np.int64], none: int, shares: Wide
) -> tuple[tuple[float, ...], _Outcomes]:
    """Fit the certainty, and its results. "None" is no answer."""
    guesses = scores.argmax(1)
    seen, right = evidence(scores, *others), guesses == targets
    answers = guesses != none
    certainty = _logistic_regression(seen[answers], right[answers], shares[answers])
    confidences = np.where(answers, to_probability(seen, certainty), 0.0)
    return certainty, _Outcomes(confidences, right, shares)


def _logistic_regression(
    rows: Wide, outcomes: NDArray[np.bool_], shares: Wide
) -> tuple[float, ...]:
    """Logistic regression by Newton's method; the prior takes the first column as log-odds."""
    rows = np.column_stack((rows, np.ones(len(rows))))
    prior = np.zeros(rows.shape[1])
    prior[0] = 1.0
    penalty = np.full(len(prior), _PENALTY)

    def loss(weights: Wide) -> float:
        odds = np.where(outcomes, -1.0, 1.0) * (rows @ weights)
        pull = penalty * (weights - prior) ** 2 / 2
        return float(shares @ np.logaddexp(0.0, odds) + pull.sum())

    weights = prior
    for _ in range(_NEWTON_STEPS):
        probabilities = 1 / (1 + np.exp(-np.clip(rows @ weights, -500.0, 500.0)))
        slope = rows.T @ (shares * (probabilities - outcomes)) + penalty * (weights - prior)
        spread = shares * probabilities * (1 - probabilities)
        step = np.linalg.solve((rows.T * spread) @ rows + np.diag(penalty), slope)
        for _ in range(_HALVINGS):
            if loss(weights - step) <= loss(weights):
                weights = weights - step
                break
            step = step / 2
    return tuple(weights.tolist())


def _threshold(outcomes: _Outcomes) -> float:
    """The lowest threshold with the required precision.

    The messages at or above it must meet two conditions: the lower bound of the precision
    (Wilson, Probable inference, 1927; one-sided, 95 %) is the required one, so that luck with few
    examples does not pass for precision; and the mean confidence leaves a margin, for users that do
    not write as the examples do. If no threshold satisfies both, it is the one with the best lower
    bound, and at least 0.9.
    """
    best, best_bound = _FALLBACK, 0.0
    for threshold in map(float, _THRESHOLDS):
        answered = (outcomes.confidences >= threshold) & (outcomes.shares > 0)
        if not answered.any():
            continue
        shares = outcomes.shares[answered]
        if np.average(outcomes.confidences[answered], weights=shares) < _MEAN_CONFIDENCE:
            continue
        right = float(np.average(outcomes.right[answered], weights=shares))
        # Kish, Survey Sampling, 1965: as many as these would be if all counted the same.
        bound = _lower_bound(right, float(shares.sum() ** 2 / (shares**2).sum()))
        if bound >= PRECISION:
            return threshold
        if bound > best_bound:
            best, best_bound = threshold, bound
    return max(best, _FALLBACK)


def _lower_bound(share: float, count: float) -> float:
    """Wilson's lower bound of a share."""
    square = _ONE_SIDED_95**2
    spread = _ONE_SIDED_95 * (share * (1 - share) / count + square / (4 * count**2)) ** 0.5
    return float((share + square / (2 * count) - spread) / (1 + square / count))
