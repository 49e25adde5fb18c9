"""Multinomial logistic regression on few dense features: embeddings to intents."""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from seawall.intents.classifier import softmax

__all__ = ["LinearHead"]

Array = NDArray[np.float32]

_STEPS = 300
_REGULARISATION = 0.08
"""Divided by the number of examples. Chosen on held-out training data: bench/intents."""


class LinearHead:
    """Scores of the classes for rows of features. Made by `fit`.

    weights: features by classes. offset: what is added to each class.
    """

    def __init__(self, weights: Array, offset: Array) -> None:
        self.weights = weights
        self.offset = offset

    def scores(self, rows: Array) -> Array:
        """One row a row, one column a class."""
        return rows @ self.weights + self.offset

    @classmethod
    def fit(cls, rows: Array, targets: NDArray[np.int64], classes: int) -> Self:
        """Accelerated gradient descent on the regularised cross-entropy; nothing is random.

        Nesterov 1983 with the step 1 / L; the Hessian of the softmax is at most a half: Böhning,
        Multinomial logistic regression algorithm, 1992.
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
