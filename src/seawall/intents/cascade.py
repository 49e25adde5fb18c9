"""The cascade: rules, n-grams, embeddings where there are some, then a model; as far as needed."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from seawall.errors import DeadlineExceeded, UpstreamFailed
from seawall.intents.aside import Aside
from seawall.intents.definition import Detection, IntentDefinition
from seawall.intents.model import ModelDetector
from seawall.intents.rules import Rules
from seawall.models.port import Model

__all__ = ["Classifier", "IntentDetector", "build_detector"]

_PATIENCE = 1.0
"""Seconds that embeddings may take; in a crowd that is too long, the turn goes on without."""

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
        *,
        deeper: Aside | None = None,
        deeper_threshold: float = 1.0,
    ) -> None:
        self._rules = rules
        self._classifier = classifier
        self._deeper = deeper
        self._model = model
        self.threshold = threshold
        self._deeper_threshold = deeper_threshold

    @property
    def may_wait(self) -> bool:
        """Whether `detect` may have to wait; if not, `detect_locally` says the same."""
        return self._model is not None or self._deeper is not None

    def locally(self) -> "IntentDetector":
        """One that never waits: without the model, and whatever takes its time."""
        return IntentDetector(self._rules, self._classifier, self.threshold, None)

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

    async def detect(self, text: str, *, deadline: float) -> Detection:
        """What the customer wants.

        A model that fails costs the turn nothing but this answer.
        """
        local = self.detect_locally(text)
        if local.intent is None and self._deeper is not None:
            local = await self._detect_deeper(text, self._deeper, local)
        if local.intent is not None or self._model is None:
            return local
        try:
            return await self._model.detect(text, deadline=deadline)
        except (UpstreamFailed, DeadlineExceeded):
            return local

    async def _detect_deeper(self, text: str, deeper: Aside, local: Detection) -> Detection:
        try:
            async with asyncio.timeout(_PATIENCE):
                best = await deeper.best(text)
        except TimeoutError:
            return local
        if best is None:
            return local
        intent, confidence = best
        if confidence >= self._deeper_threshold:
            return Detection(intent, confidence, "embeddings")
        return Detection(None, confidence, "none")

    def close(self) -> None:
        """Let go of the thread, where there is one."""
        if self._deeper is not None:
            self._deeper.close()


def build_detector(
    definitions: Sequence[IntentDefinition],
    *,
    model: Model | None = None,
    threshold: float | None = None,
    embedding_model: str | None = None,
    cache: Path | None = None,
) -> IntentDetector:
    """Compile the rules; load the classifier, or train it.

    threshold: the confidence from which the classifier answers; None for the calibrated one.
    embedding_model: the folder of one, "" for the installed one, None to do without. cache: the
    file that keeps the trained classifier. With fewer than two intents that have examples there
    is nothing to tell apart, and no classifier.

    Raises:
        ConfigError: a pattern is not a regular expression, or there is no embedding model.
    """
    rules = Rules(definitions)
    asked = ModelDetector(model, definitions) if model is not None and definitions else None
    examples = [(text, each.name) for each in definitions for text in each.examples]
    if len({name for _, name in examples}) < 2:
        return IntentDetector(rules, None, 1.0 if threshold is None else threshold, asked)
    from seawall.intents.embedder import Embedder, find_model  # noqa: PLC0415 - needs numpy
    from seawall.intents.training import obtain  # noqa: PLC0415

    trained = obtain(
        [text for text, _ in examples],
        [name for _, name in examples],
        embedder=None if embedding_model is None else Embedder(find_model(embedding_model)),
        cache=cache,
    )
    return IntentDetector(
        rules,
        trained.ngrams,
        trained.first_threshold if threshold is None else threshold,
        asked,
        deeper=None if trained.blended is None else Aside(trained.blended),
        deeper_threshold=trained.threshold if threshold is None else threshold,
    )
