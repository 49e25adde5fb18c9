"""N-grams and sentence embeddings together: dearer, and right where words alone are not enough."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seawall.intents.classifier import NgramClassifier, softmax
from seawall.intents.embedder import Embedder
from seawall.intents.head import LinearHead

__all__ = ["BlendedClassifier", "TwoSteps", "mix"]


class BlendedClassifier:
    """Adds up the scores of both, each with a weight that calibration has found.

    Takes milliseconds a message, fewer a message when asked for several at once.
    """

    def __init__(
        self,
        ngrams: NgramClassifier,
        embedder: Embedder,
        head: LinearHead,
        weights: tuple[float, float],
    ) -> None:
        self.labels = ngrams.labels
        self.ngrams = ngrams
        self.head = head
        self.weights = weights
        self._embedder = embedder

    def best_of(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """The likeliest class of each text and its calibrated probability."""
        scores = np.stack([self.ngrams.scores(text) for text in texts])
        probabilities = softmax(
            mix((scores, self.head.scores(self._embedder(texts))), self.weights)
        )
        places = probabilities.argmax(1)
        return [
            (self.labels[place], float(row[place]))
            for place, row in zip(places.tolist(), probabilities, strict=True)
        ]


class TwoSteps:
    """Both steps in a row, as the cascade takes them: the dear one only where the cheap is unsure.

    For evaluation; the cascade itself asks the second off the event loop.
    """

    def __init__(self, blended: BlendedClassifier, threshold: float) -> None:
        self._blended = blended
        self._threshold = threshold

    def best(self, text: str) -> tuple[str, float]:
        """The likeliest class and its calibrated probability."""
        first = self._blended.ngrams.best(text)
        return first if first[1] >= self._threshold else self._blended.best_of([text])[0]


def mix(
    scores: tuple[NDArray[np.float32], NDArray[np.float32]], weights: tuple[float, float]
) -> NDArray[np.float64]:
    """The weighted sum."""
    return scores[0].astype(np.float64) * weights[0] + scores[1].astype(np.float64) * weights[1]
