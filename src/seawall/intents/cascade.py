"""Intent detection: a cascade of rules, n-grams, embeddings and a model, cheapest first."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from seawall.errors import DeadlineExceeded, UpstreamFailed
from seawall.intents import NO_INTENT, Detection, IntentDefinition
from seawall.intents.features import MAX_CHARACTERS
from seawall.intents.rules import Negations, Rules
from seawall.models import Meter, Model

if TYPE_CHECKING:
    from seawall.intents.blend import BatchWorker
    from seawall.intents.light import LightClassifier
from contextlib import aclosing

from seawall.models import Finish, ModelRequest, Prompt, Text
from seawall.turn import Usage, UserMessage

__all__ = ["Classifier", "IntentDetector", "ModelDetector", "build_detector"]

_EMBEDDING_SECONDS = 1.0
"""Time limit of embeddings, in seconds; beyond it, under load, the turn continues without."""

_NOTHING = Detection(None, 0.0, "none")
_NO_ENTRY = "none"
_MAX_ANSWER_TOKENS = 32


class Classifier(Protocol):
    """A classifier of texts."""

    def best(self, text: str) -> tuple[str, float]:
        """The likeliest intent and its calibrated probability."""
        ...


class IntentDetector:
    """Detects intents. Immutable; shared by all turns. Made by `build_detector`."""

    def __init__(
        self,
        rules: Rules,
        classifier: Classifier | None,
        threshold: float,
        model: "ModelDetector | None",
        *,
        batch_worker: "BatchWorker | None" = None,
        embedding_threshold: float = 1.0,
        negations: Negations | None = None,
    ) -> None:
        self._rules = rules
        self._classifier = classifier
        self._batch_worker = batch_worker
        self._model = model
        self.threshold = threshold
        self._embedding_threshold = embedding_threshold
        self._negations = negations or Negations(())

    @property
    def may_wait(self) -> bool:
        """Whether `detect` may wait; if not, `detect_locally` gives the same result."""
        return self._model is not None or self._batch_worker is not None

    def local_only(self) -> "IntentDetector":
        """A detector with the local steps only, which never waits."""
        return IntentDetector(
            self._rules, self._classifier, self.threshold, None, negations=self._negations
        )

    def detect_locally(self, text: str) -> Detection:
        """The intent by rules and n-grams, if they are confident."""
        by_rule = self._rules.match(text)
        if by_rule is not None:
            return Detection(by_rule, 1.0, "rules")
        if self._classifier is None:
            return _NOTHING
        best = self._classifier.best(text)
        if _is_answer(best, self.threshold):
            outside = self._negations.outside(text[:MAX_CHARACTERS], best[0])
            if outside is None or _agrees(best, self._classifier.best(outside), self.threshold):
                return Detection(*best, "classifier")
        return Detection(None, best[1], "none")

    @property
    def may_spend(self) -> bool:
        """Whether `detect` may call a model, which costs money."""
        return self._model is not None

    async def detect(self, text: str, *, deadline: float, meter: Meter | None = None) -> Detection:
        """Detect the intent of a message.

        It may call a model, which costs money. If the model fails, the intent is as without it.

        Args:
            text: The message.
            deadline: In seconds on the event loop's clock.
            meter: Records the cost of the model call.
        """
        local = self.detect_locally(text)
        if local.intent is None and self._batch_worker is not None:
            local = await self._detect_by_embeddings(text, self._batch_worker, local)
        if local.intent is not None or self._model is None:
            return local
        try:
            return await self._model.detect(text, deadline=deadline, meter=meter)
        except (UpstreamFailed, DeadlineExceeded):
            return local

    async def _detect_by_embeddings(
        self, text: str, batch_worker: "BatchWorker", local: Detection
    ) -> Detection:
        try:
            async with asyncio.timeout(_EMBEDDING_SECONDS):
                best = await batch_worker.best(text)
                if best is None:
                    return local
                if not _is_answer(best, self._embedding_threshold):
                    return Detection(None, best[1], "none")
                outside = self._negations.outside(text[:MAX_CHARACTERS], best[0])
                if outside is not None:
                    other = await batch_worker.best(outside)
                    if other is None or not _agrees(best, other, self._embedding_threshold):
                        return Detection(None, best[1], "none")
        except TimeoutError:
            return local
        return Detection(*best, "embeddings")

    def close(self) -> None:
        """Shut down the thread, if there is one."""
        if self._batch_worker is not None:
            self._batch_worker.close()


def _is_answer(best: tuple[str, float], threshold: float) -> bool:
    return best[0] != NO_INTENT and best[1] >= threshold


def _agrees(best: tuple[str, float], outside: tuple[str, float], threshold: float) -> bool:
    """Whether the part that is not negated has the same intent: "I do not need it. Cancel it."."""
    return outside[0] == best[0] and outside[1] >= threshold


def build_detector(
    definitions: Sequence[IntentDefinition],
    *,
    model: Model | None = None,
    threshold: float | None = None,
    embedding_model: str | None = None,
    cache: Path | None = None,
) -> IntentDetector:
    """Compile the rules, and load or train the classifier.

    With fewer than two intents that have examples there is no classifier. Without embeddings, and
    unless there are very many intents, numpy is not imported.

    Args:
        definitions: The intents.
        model: The model that is asked last; None for none.
        threshold: The confidence from which a classifier decides; None for the calibrated one.
        embedding_model: Folder of the embedding model, "" for the installed one, None for none.
        cache: File that keeps the trained classifier; None for none.

    Raises:
        ConfigError: A pattern is not a regular expression, or there is no embedding model.
    """
    rules = Rules(definitions)
    listed = [each for each in definitions if each.name != NO_INTENT]
    by_model = None
    if model is not None and listed:
        by_model = ModelDetector(model, listed)
    examples = [(text, each.name) for each in definitions for text in each.examples]
    if len({name for _, name in examples}) < 2:
        return IntentDetector(rules, None, 1.0 if threshold is None else threshold, by_model)
    negations = Negations(examples)
    texts, labels = [text for text, _ in examples], [name for _, name in examples]
    if embedding_model is None:
        found = _without_numpy(texts, labels, cache)
        if found is not None:
            confident = found.threshold if threshold is None else threshold
            return IntentDetector(rules, found, confident, by_model, negations=negations)
    from seawall.intents.open import open_embedder  # noqa: PLC0415 - needs numpy
    from seawall.intents.training import load_or_train  # noqa: PLC0415

    trained = load_or_train(
        texts,
        labels,
        embedder=None if embedding_model is None else open_embedder(embedding_model),
        cache=cache,
    )
    batch_worker = None
    if trained.blended is not None:
        from seawall.intents.blend import BatchWorker  # noqa: PLC0415 - only with embeddings

        batch_worker = BatchWorker(trained.blended)
    return IntentDetector(
        rules,
        trained.ngrams,
        trained.first_threshold if threshold is None else threshold,
        by_model,
        batch_worker=batch_worker,
        embedding_threshold=trained.threshold if threshold is None else threshold,
        negations=negations,
    )


def _without_numpy(
    texts: Sequence[str], labels: Sequence[str], cache: Path | None
) -> "LightClassifier | None":
    """The classifier without numpy, trained in another process if no file has it.

    None where numpy is faster, or is imported already, so that nothing would be saved.
    """
    from seawall.intents.light import (  # noqa: PLC0415 - only with examples
        MOST_CLASSES,
        load_light,
        read_light,
    )

    if len(set(labels)) > MOST_CLASSES:
        return None
    found = None if cache is None else load_light(cache, texts, labels)
    if found is not None or "numpy" in sys.modules:
        return found
    from seawall.intents.training_process import train_apart  # noqa: PLC0415 - only without a file

    trained = train_apart(texts, labels, cache=cache)
    return None if trained is None else read_light(trained, texts, labels)


class ModelDetector:
    """Asks a model for exactly one of the names: the last and most expensive step."""

    def __init__(self, model: Model, definitions: Sequence[IntentDefinition]) -> None:
        self._model = model
        self._names = {definition.name.lower(): definition.name for definition in definitions}
        listed = "\n".join(
            f"{each.name}: {each.description or '; '.join(each.examples[:3])}"
            for each in definitions
        )
        self._prompt = Prompt(
            "Decide what the user's message asks for. Answer with exactly one name from this "
            f"list, and nothing else; with {_NO_ENTRY} where no entry fits.\n{listed}"
        )

    async def detect(self, text: str, *, deadline: float, meter: Meter | None = None) -> Detection:
        """The model's choice; an answer that is not in the list means no intent.

        Raises:
            UpstreamFailed: The model failed.
            DeadlineExceeded: It did not answer in time.
        """
        request = ModelRequest(
            self._prompt, (UserMessage(text[:MAX_CHARACTERS]),), _MAX_ANSWER_TOKENS, 0.0, meter
        )
        answer, usage = "", Usage()
        async with aclosing(self._model.stream(request, deadline=deadline)) as stream:
            async for event in stream:
                if isinstance(event, Text):
                    answer += event.text
                elif isinstance(event, Finish):
                    usage = event.usage
        said = answer.strip().strip("\"'`.").lower()
        return Detection(self._names.get(said), 1.0, "model", usage)
