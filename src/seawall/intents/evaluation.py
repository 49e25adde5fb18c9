"""Evaluation of a classifier on labelled data: accuracy, F1, reliability, confusions."""

import csv
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from seawall.errors import ConfigError
from seawall.intents import NO_INTENT

__all__ = [
    "Bin",
    "Confusion",
    "Evaluation",
    "Labelled",
    "auroc",
    "certainty_of_intent",
    "evaluate",
    "few_shot",
    "precision_with_unknown",
    "read_labelled",
    "split",
]

_MAX_BYTES = 256 << 20
_TEXT_COLUMNS = ("text", "utterance", "message", "sentence", "query")
_LABEL_COLUMNS = ("label", "category", "intent", "class")
_BINS = 10


class Labelled(Struct, frozen=True):
    """Messages with their intents, in the order of the file."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]


class Bin(Struct, frozen=True):
    """Messages with a confidence in [low, high): mean confidence, and accuracy."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


class Confusion(Struct, frozen=True):
    """Messages of one intent that were taken for another."""

    intent: str
    taken_for: str
    count: int


class Evaluation(Struct, frozen=True, kw_only=True):
    """Scores of a classifier on messages that it was not trained on.

    Attributes:
        messages: Number of messages.
        intents: Number of intents.
        accuracy: Share of right answers.
        macro_f1: Mean of the F1 of all intents.
        calibration_error: Mean gap between confidence and accuracy, weighted by bin (Guo et al.
            2017, ECE).
        threshold: The confidence from which the cascade decides.
        coverage: Share of messages at or above the threshold.
        precision: Share of right answers among those.
        microseconds: CPU time a message.
        reliability: By confidence.
        confusions: The most frequent ones.
    """

    messages: int
    intents: int
    accuracy: float
    macro_f1: float
    calibration_error: float
    threshold: float
    coverage: float
    precision: float
    microseconds: float
    reliability: tuple[Bin, ...]
    confusions: tuple[Confusion, ...]


class _Rows(Protocol):
    """The type of csv.reader, which has no public name before Python 3.13."""

    line_num: int

    def __iter__(self) -> Iterator[list[str]]: ...
    def __next__(self) -> list[str]: ...


class Probabilistic(Protocol):
    """A classifier with calibrated confidence."""

    def best(self, text: str) -> tuple[str, float]:
        """The likeliest intent and its calibrated probability."""
        ...


def read_labelled(path: Path, *, text: str = "", label: str = "") -> Labelled:
    """Read a CSV file with a header line.

    Args:
        path: The file.
        text: The column of texts; empty for a usual name, else the first.
        label: The column of labels; empty for a usual name, else the second.

    Raises:
        ConfigError: It cannot be read, or has no such column or no row. Names the line.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"{path}: has more than {_MAX_BYTES >> 20} MiB")
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _read_rows(path, csv.reader(file, strict=True), text, label)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start})") from error


def _read_rows(path: Path, rows: "_Rows", text: str, label: str) -> Labelled:
    texts: list[str] = []
    labels: list[str] = []
    try:
        header: list[str] = next(rows, [])
        where = _column(path, header, text, _TEXT_COLUMNS, 0)
        what = _column(path, header, label, _LABEL_COLUMNS, 1)
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise ConfigError(
                    f"{path}:{rows.line_num}: has {len(row)} columns; the header has {len(header)}"
                )
            texts.append(row[where])
            labels.append(row[what])
    except csv.Error as error:
        raise ConfigError(f"{path}:{rows.line_num}: is not CSV: {error}") from error
    if not texts:
        raise ConfigError(f"{path}: has no rows")
    return Labelled(tuple(texts), tuple(labels))


def _column(
    path: Path, header: Sequence[str], asked: str, usual: Sequence[str], otherwise: int
) -> int:
    names = [name.strip().lower() for name in header]
    for name in (asked.lower(),) if asked else usual:
        if name in names:
            return names.index(name)
    if asked or len(header) < 2:
        known = ", ".join(header) or "none"
        raise ConfigError(f'{path}:1: there is no column "{asked or usual[0]}"; known: {known}')
    return otherwise


def split(labelled: Labelled, *, held_out: float, seed: int) -> tuple[Labelled, Labelled]:
    """Split at random into a training and a test part, each intent in proportion.

    Args:
        labelled: All messages.
        held_out: Share of each intent in the test part, 0 to 1; at least one is for training.
        seed: Of the random choice.
    """
    random = np.random.default_rng(seed)
    training: list[int] = []
    testing: list[int] = []
    for positions in _by_label(labelled).values():
        order = random.permutation(positions).tolist()
        away = min(round(len(order) * held_out), len(order) - 1)
        testing += order[:away]
        training += order[away:]
    return _pick(labelled, sorted(training)), _pick(labelled, sorted(testing))


def few_shot(labelled: Labelled, count: int, *, seed: int) -> Labelled:
    """At most `count` messages of each intent, at random; deterministic for a seed."""
    random = np.random.default_rng(seed)
    kept: list[int] = []
    for positions in _by_label(labelled).values():
        kept += random.permutation(positions)[:count].tolist()
    return _pick(labelled, sorted(kept))


def evaluate(
    classifier: Probabilistic,
    labelled: Labelled,
    *,
    threshold: float,
    worst: int = 10,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Evaluation:
    """Evaluate a classifier on messages that it was not trained on.

    Args:
        classifier: The classifier.
        labelled: The messages.
        threshold: The confidence from which the cascade decides.
        worst: Number of confusions in the result.
        progress: Called with messages done and in all.
    """
    began = time.process_time()
    guesses: list[str] = []
    sure: list[float] = []
    for index, text in enumerate(labelled.texts):
        guess, confidence = classifier.best(text)
        guesses.append(guess)
        sure.append(confidence)
        if index % 500 == 0:
            progress(index, len(labelled.texts))
    spent = time.process_time() - began
    confidences = np.array(sure)
    right = np.array(
        [guess == label for guess, label in zip(guesses, labelled.labels, strict=True)]
    )
    bins = _reliability(confidences, right)
    answered = (confidences >= threshold) & (np.array(guesses) != NO_INTENT)
    wrong = Counter(
        (label, guess)
        for guess, label in zip(guesses, labelled.labels, strict=True)
        if guess != label
    )
    return Evaluation(
        messages=len(guesses),
        intents=len(set(labelled.labels)),
        accuracy=float(right.mean()),
        macro_f1=_macro_f1(guesses, labelled.labels),
        calibration_error=sum(each.count * abs(each.confidence - each.accuracy) for each in bins)
        / len(guesses),
        threshold=threshold,
        coverage=float(answered.mean()),
        precision=float(right[answered].mean()) if answered.any() else 1.0,
        microseconds=spent / len(guesses) * 1e6,
        reliability=bins,
        confusions=tuple(
            Confusion(label, guess, count) for (label, guess), count in wrong.most_common(worst)
        ),
    )


def certainty_of_intent(classifier: Probabilistic, texts: Sequence[str]) -> list[float]:
    """The confidence of a classifier in the intent of each text; 0 where it finds no intent."""
    answers = map(classifier.best, texts)
    return [0.0 if intent == NO_INTENT else confidence for intent, confidence in answers]


def precision_with_unknown(result: Evaluation, unknown: Sequence[float], *, share: float) -> float:
    """Precision if a share of the messages has no intent.

    Args:
        result: Evaluation on messages with an intent.
        unknown: Confidence for messages without an intent, 0 to 1.
        share: Share of messages without an intent, 0 to 1.
    """
    wrong = share * sum(each >= result.threshold for each in unknown) / len(unknown)
    answered = (1 - share) * result.coverage
    return answered * result.precision / (answered + wrong) if answered + wrong else 1.0


def auroc(known: Sequence[float], unknown: Sequence[float]) -> float:
    """Area under the ROC curve of confidence, for known and unknown intents: 0.5 is chance.

    The probability that a message of a known intent gets more confidence than one of an unknown
    intent; ties count half (the Mann-Whitney U statistic).
    """
    ordered = np.sort(np.asarray(unknown))
    below = np.searchsorted(ordered, known, side="left")
    up_to = np.searchsorted(ordered, known, side="right")
    return float((below + up_to).mean() / 2 / len(ordered))


def _by_label(labelled: Labelled) -> dict[str, list[int]]:
    positions: dict[str, list[int]] = {}
    for index, label in enumerate(labelled.labels):
        positions.setdefault(label, []).append(index)
    return positions


def _pick(labelled: Labelled, positions: Sequence[int]) -> Labelled:
    return Labelled(
        tuple(labelled.texts[each] for each in positions),
        tuple(labelled.labels[each] for each in positions),
    )


def _reliability(confidences: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[Bin, ...]:
    bin_indices = np.minimum((confidences * _BINS).astype(int), _BINS - 1)
    bins = []
    for number in range(_BINS):
        inside = bin_indices == number
        if inside.any():
            bins.append(
                Bin(
                    number / _BINS,
                    (number + 1) / _BINS,
                    int(inside.sum()),
                    float(confidences[inside].mean()),
                    float(right[inside].mean()),
                )
            )
    return tuple(bins)


def _macro_f1(guesses: Sequence[str], labels: Sequence[str]) -> float:
    truth, guessed = Counter(labels), Counter(guesses)
    both = Counter(label for guess, label in zip(guesses, labels, strict=True) if guess == label)
    scores = [2 * both[name] / (truth[name] + guessed[name]) for name in truth]
    return sum(scores) / len(scores)
