"""Blended classifier: n-grams and sentence embeddings, and the thread that it runs on.

More expensive than n-grams alone, and right where words alone are not enough.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from seawall.intents.classifier import LEAST_ODDS, NgramClassifier, softmax
from seawall.intents.embedder import SentenceEmbedder
from seawall.intents.features import MAX_CHARACTERS, Speller

__all__ = [
    "BatchClassifier",
    "BatchWorker",
    "BlendedClassifier",
    "LinearHead",
    "Neighbours",
    "TwoStageClassifier",
    "corrected",
    "evidence",
    "to_probability",
    "weighted_sum",
]

Array = NDArray[np.float32]
Wide = NDArray[np.float64]
Answer = tuple[str, float]
_Pending = tuple[str, "asyncio.Future[Answer]"]

_MAX_WAITING = 64
_MAX_BATCH = 16
_STEPS = 300
_REGULARISATION = 0.08
"""Divided by the number of examples. Chosen on held-out training data: bench/intents."""


class LinearHead:
    """Multinomial logistic regression on embeddings. Made by `fit`.

    Attributes:
        weights: Array of features by classes.
        offset: Added to the score of each class.
    """

    def __init__(self, weights: Array, offset: Array) -> None:
        self.weights = weights
        self.offset = offset

    def scores(self, rows: Array) -> Array:
        """Scores: an array of rows by classes."""
        return rows @ self.weights + self.offset

    @classmethod
    def fit(cls, rows: Array, targets: NDArray[np.int64], classes: int) -> Self:
        """Fit by accelerated gradient descent on the regularised cross-entropy; deterministic.

        Nesterov 1983 with the step 1 / L; the Hessian of the softmax is at most a half: Böhning,
        Multinomial logistic regression algorithm, 1992.

        Args:
            rows: Embeddings of the examples.
            targets: Index of the class of each row.
            classes: Number of classes.
        """
        centre = rows.mean(0)
        rows = rows - centre
        count = np.float32(len(rows))
        penalty = np.float32(_REGULARISATION) / count
        steepest = np.linalg.eigvalsh(rows.T @ rows / count)[-1] / np.float32(2) + penalty
        wanted = np.zeros((len(rows), classes), np.float32)
        wanted[np.arange(len(rows)), targets] = 1
        weights = np.zeros((rows.shape[1], classes), np.float32)
        before = weights
        for step in range(_STEPS):
            ahead = weights + np.float32(step / (step + 3)) * (weights - before)
            error = softmax(rows @ ahead) - wanted
            before = weights
            weights = ahead - (rows.T @ error / count + penalty * ahead) / steepest
        return cls(weights, -(centre @ weights))


class Neighbours:
    """Similarity of a message to the nearest example of an intent.

    Attributes:
        rows: Embeddings of the examples, sorted by target.
        targets: Index of the intent of each row.
    """

    def __init__(self, rows: NDArray[np.float16], targets: NDArray[np.int64], classes: int) -> None:
        self.rows = rows
        self.targets = targets
        self._borders = np.searchsorted(targets, np.arange(classes + 1)).tolist()

    @classmethod
    def of(cls, rows: Array, targets: NDArray[np.int64], classes: int) -> "Neighbours":
        """Sort the examples; half precision is enough for a similarity."""
        order = np.argsort(targets, kind="stable")
        return cls(rows[order].astype(np.float16), targets[order], classes)

    def similarity(self, row: Array, index: int) -> float:
        """The cosine with the nearest example of an intent; -1 if it has none."""
        examples = self.rows[self._borders[index] : self._borders[index + 1]]
        return float((examples.astype(np.float32) @ row).max(initial=-1.0))


class BlendedClassifier:
    """Weighted sum of the scores of n-grams and embeddings.

    Takes milliseconds a message, less in a batch.

    Attributes:
        labels: Class names in the order of scores.
        ngrams: The n-gram classifier.
        head: The classifier of embeddings.
        neighbours: The embeddings of the examples.
        weights: Weights of the two scores.
        certainty: Weights of log-odds, best score and similarity, and an offset, from which the
            probability of being right is computed.
    """

    def __init__(
        self,
        ngrams: NgramClassifier,
        embedder: SentenceEmbedder,
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
        """The likeliest class of each text, and the calibrated probability that it is right."""
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
    """Both classifiers as the cascade runs them: the second only if the first is not confident.

    For evaluation; the cascade runs the second one off the event loop.
    """

    def __init__(self, blended: BlendedClassifier, threshold: float) -> None:
        self._blended = blended
        self._threshold = threshold

    def best(self, text: str) -> tuple[str, float]:
        """The likeliest class and the calibrated probability that it is right."""
        first = self._blended.ngrams.best(text)
        return first if first[1] >= self._threshold else self._blended.best_of([text])[0]


def corrected(texts: Sequence[str], speller: Speller, knows: Callable[[str], bool]) -> list[str]:
    """Texts for embedding: words that the embedding model does not know are corrected."""
    return [speller.correct_text(text[:MAX_CHARACTERS], knows) for text in texts]


def weighted_sum(scores: tuple[Array, Array], weights: tuple[float, float]) -> Wide:
    """Weighted sum of two arrays of scores."""
    return scores[0].astype(np.float64) * weights[0] + scores[1].astype(np.float64) * weights[1]


def log_odds(scores: Wide) -> Wide:
    """Log-odds of the best class against all others, one number a row."""
    odds = np.exp(scores - scores.max(-1, keepdims=True)).sum(-1)
    return -np.log(np.maximum(odds - 1, LEAST_ODDS))  # type: ignore[no-any-return]


def evidence(scores: Wide, *others: Wide) -> Wide:
    """Features of the certainty, a row a message."""
    return np.stack((log_odds(scores), *others), -1)


def to_probability(evidence: Wide, certainty: Sequence[float]) -> Wide:
    """Probabilities of being right, from features."""
    return 1 / (1 + np.exp(-np.maximum(evidence @ certainty[:-1] + certainty[-1], -500.0)))


class BatchClassifier(Protocol):
    """A classifier that is too slow for the event loop."""

    def best_of(self, texts: Sequence[str]) -> list[Answer]:
        """The likeliest intent of each text, and its calibrated probability."""
        ...


class BatchWorker:
    """Runs a classifier in a thread, in batches. Under load, messages are skipped."""

    def __init__(self, classifier: BatchClassifier) -> None:
        self._classifier = classifier
        self._waiting: deque[_Pending] = deque()
        # Only with embeddings: imports slow down every start.
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

        self._thread = ThreadPoolExecutor(1, thread_name_prefix="seawall-intents")

    async def best(self, text: str) -> Answer | None:
        """The likeliest intent and its probability; None if too many messages wait."""
        if len(self._waiting) >= _MAX_WAITING:
            return None
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((text, future))
        self._thread.submit(self._work, loop)
        return await future

    def close(self) -> None:
        """Shut down the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Classify a batch. Called once a message; most are done by an earlier call."""
        batch: list[_Pending] = []
        while self._waiting and len(batch) < _MAX_BATCH:
            text, future = self._waiting.popleft()
            if not future.cancelled():
                batch.append((text, future))
        if not batch:
            return
        try:
            answers: list[Answer] | Exception = self._classifier.best_of(
                [each for each, _ in batch]
            )
        except Exception as error:  # noqa: BLE001 - passed on
            answers = error
        loop.call_soon_threadsafe(_resolve, batch, answers)


def _resolve(batch: Sequence[_Pending], answers: list[Answer] | Exception) -> None:
    for index, (_, future) in enumerate(batch):
        if future.done():
            continue
        if isinstance(answers, Exception):
            future.set_exception(answers)
        else:
            future.set_result(answers[index])
