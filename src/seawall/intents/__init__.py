"""Intents: what one is, and what its detection results in; the modules of the package detect it."""

from typing import Literal

from msgspec import Struct

from seawall.turn import Usage

__all__ = [
    "NO_INTENT",
    "Detection",
    "IntentDefinition",
]

NO_INTENT = "none"
"""Name under which examples of messages without an intent are configured and trained."""


class IntentDefinition(Struct, frozen=True):
    """An intent.

    Attributes:
        name: Its name.
        description: For a model that is asked.
        examples: Messages, for training.
        patterns: Regular expressions that decide it.
    """

    name: str
    description: str = ""
    examples: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()


class Detection(Struct, frozen=True):
    """The result of intent detection.

    Attributes:
        intent: None for no intent.
        confidence: 0 to 1, calibrated if a classifier decided.
        by: The step of the cascade that decided.
        usage: Tokens of a model call.
    """

    intent: str | None
    confidence: float
    by: Literal["rules", "classifier", "embeddings", "model", "none"]
    usage: Usage = Usage()
