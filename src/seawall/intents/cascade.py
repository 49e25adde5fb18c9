"""The cascade: rules, then the local classifier, then the model, only as far as needed."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from seawall.errors import DeadlineExceeded, UpstreamFailed
from seawall.intents.definition import Detection, IntentDefinition
from seawall.intents.model import ModelDetector
from seawall.intents.rules import Rules
from seawall.models.port import Model

__all__ = ["Classifier", "IntentDetector", "build_detector"]

_NOTHING = Detection(None, 0.0, "none")


class Classifier(Protocol):
    """What the cascade needs of a classifier."""

    def best(self, text: str) -> tuple[str, float]:
        """The likeliest intent and its calibrated probability."""
        ...


class IntentDetector:
    """Detects intents. Immutable once built; shared by all turns."""

    def __init__(
        self,
        rules: Rules,
        classifier: Classifier | None,
        threshold: float,
        model: ModelDetector | None,
    ) -> None:
        self._rules = rules
        self._classifier = classifier
        self._model = model
        self.threshold = threshold

    @property
    def may_wait(self) -> bool:
        """Whether `detect` may have to wait; if not, `detect_locally` says the same."""
        return self._model is not None

    def detect_locally(self, text: str) -> Detection:
        """What rules and classifier say; an intent only where they are sure enough."""
        by_rule = self._rules.match(text)
        if by_rule is not None:
            return Detection(by_rule, 1.0, "rules")
        if self._classifier is None:
            return _NOTHING
        intent, confidence = self._classifier.best(text)
        if confidence >= self.threshold:
            return Detection(intent, confidence, "classifier")
        return Detection(None, confidence, "none")

    async def detect(self, text: str, *, gate: asyncio.Event, deadline: float) -> Detection:
        """What the customer wants.

        gate: set when the customer is authenticated; the model, which costs money, is not asked
        before. A model that fails costs the turn nothing but this answer.
        """
        local = self.detect_locally(text)
        if local.intent is not None or self._model is None:
            return local
        await gate.wait()
        try:
            return await self._model.detect(text, deadline=deadline)
        except (UpstreamFailed, DeadlineExceeded):
            return local


def build_detector(
    definitions: Sequence[IntentDefinition],
    *,
    model: Model | None = None,
    threshold: float | None = None,
) -> IntentDetector:
    """Compile the rules and train the classifier.

    threshold: the confidence from which the classifier answers; None for the calibrated one.
    With fewer than two intents that have examples there is nothing to tell apart, and no
    classifier.

    Raises:
        ConfigError: a pattern is not a regular expression.
    """
    examples = [(text, each.name) for each in definitions for text in each.examples]
    classifier: Classifier | None = None
    calibrated = 1.0
    if len({name for _, name in examples}) >= 2:
        from seawall.intents.calibration import train_calibrated  # noqa: PLC0415 - needs numpy

        classifier, calibrated = train_calibrated(
            [text for text, _ in examples], [name for _, name in examples]
        )
    return IntentDetector(
        Rules(definitions),
        classifier,
        calibrated if threshold is None else threshold,
        ModelDetector(model, definitions) if model is not None and definitions else None,
    )
