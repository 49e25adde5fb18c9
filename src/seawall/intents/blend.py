"""N-grams and sentence embeddings together: dearer, and right where words alone are not enough."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from seawall.intents.classifier import LEAST_ODDS, NgramClassifier
from seawall.intents.embedder import Embedder
from seawall.intents.features import MAX_CHARACTERS
from seawall.intents.head import LinearHead
from seawall.intents.spelling import Speller

__all__ = [
    "BlendedClassifier",
    "Neighbours",
    "TwoStageClassifier",
    "corrected",
    "evidence",
    "to_probability",
    "weighted_sum",
]

Array = NDArray[np.float32]
Wide = NDArray[np.float64]


class Neighbours:
    """How near a message is to the nearest example of an intent.

    rows: the examples' embeddings, in the order of their targets. targets: their intents' places.
    """

    def __init__(self, rows: NDArray[np.float16], targets: NDArray[np.int64], classes: int) -> None:
        self.rows = rows
        self.targets = targets
        self._borders = np.searchsorted(targets, np.arange(classes + 1)).tolist()

    @classmethod
    def of(cls, rows: Array, targets: NDArray[np.int64], classes: int) -> "Neighbours":
        """Sort them; half precision is enough for a similarity."""
        order = np.argsort(targets, kind="stable")
        return cls(rows[order].astype(np.float16), targets[order], classes)

    def similarity(self, row: Array, index: int) -> float:
        """The cosine with the nearest example of the intent at this place; -1 where it has none."""
        examples = self.rows[self._borders[index] : self._borders[index + 1]]
        return float((examples.astype(np.float32) @ row).max(initial=-1.0))


class BlendedClassifier:
    """Adds up the scores of both, each with a weight that calibration has found.

    Takes milliseconds a message, fewer a message when asked for several at once.

    weights: of the two scores. certainty: the weights of log-odds, best score and similarity, and
    an offset, that make the probability of being right.
    """

    def __init__(
        self,
        ngrams: NgramClassifier,
        embedder: Embedder,
        head: LinearHead,
        neighbours: Neighbours,
        *,
        weights: tuple[float, float],
        certainty: tuple[float, ...],
    ) -> None:
        self.labels = ngrams.labels
        self.ngrams = ngrams
        self.head = head
        self.neighbours = neighbours
        self.weights = weights
        self.certainty = certainty
        self._embedder = embedder

    def best_of(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """The likeliest class of each text and the calibrated probability that it is right."""
        scores = np.stack([self.ngrams.scores(text) for text in texts])
        rows = self._embedder(corrected(texts, self.ngrams.vectorise.speller, self._embedder.knows))
        both = weighted_sum((scores, self.head.scores(rows)), self.weights)
        indices = both.argmax(1)
        near = [self.neighbours.similarity(*each) for each in zip(rows, indices, strict=True)]
        probabilities = to_probability(evidence(both, both.max(-1), np.array(near)), self.certainty)
        return [
            (self.labels[index], probability)
            for index, probability in zip(indices.tolist(), probabilities.tolist(), strict=True)
        ]


class TwoStageClassifier:
    """Both steps in a row, as the cascade takes them: the dear one only where the cheap is unsure.

    For evaluation; the cascade itself asks the second off the event loop.
    """

    def __init__(self, blended: BlendedClassifier, threshold: float) -> None:
        self._blended = blended
        self._threshold = threshold

    def best(self, text: str) -> tuple[str, float]:
        """The likeliest class and the calibrated probability that it is right."""
        first = self._blended.ngrams.best(text)
        return first if first[1] >= self._threshold else self._blended.best_of([text])[0]


def corrected(texts: Sequence[str], speller: Speller, knows: Callable[[str], bool]) -> list[str]:
    """The texts as they are embedded: what the embedding does not know is corrected."""
    return [speller.correct_text(text[:MAX_CHARACTERS], knows) for text in texts]


def weighted_sum(scores: tuple[Array, Array], weights: tuple[float, float]) -> Wide:
    """The weighted sum."""
    return scores[0].astype(np.float64) * weights[0] + scores[1].astype(np.float64) * weights[1]


def log_odds(scores: Wide) -> Wide:
    """Of the best class against all others, a number a row."""
    odds = np.exp(scores - scores.max(-1, keepdims=True)).sum(-1)
    return -np.log(np.maximum(odds - 1, LEAST_ODDS))  # type: ignore[no-any-return]


def evidence(scores: Wide, *others: Wide) -> Wide:
    """What certainty is made from, a row a message."""
    return np.stack((log_odds(scores), *others), -1)


def to_probability(evidence: Wide, certainty: Sequence[float]) -> Wide:
    """Evidence to probabilities of being right."""
    return 1 / (1 + np.exp(-np.maximum(evidence @ certainty[:-1] + certainty[-1], -500.0)))
