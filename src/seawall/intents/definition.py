"""What an intent is, and what detecting one gives."""

from typing import Literal

from msgspec import Struct

from seawall.turn import Usage

__all__ = ["NO_INTENT", "Detection", "IntentDefinition"]

NO_INTENT = "none"
"""The name under which examples of messages without an intent are configured and trained."""


class IntentDefinition(Struct, frozen=True):
    """Something that customers want.

    description: for the model, where one is asked. examples: what customers say, for training.
    patterns: regular expressions that settle it without further question.
    """

    name: str
    description: str = ""
    examples: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()


class Detection(Struct, frozen=True):
    """What the customer wants.

    intent: None for "none of these". confidence: 0 to 1, calibrated where a classifier answered.
    by: the step of the cascade that answered. usage: what asking a model cost.
    """

    intent: str | None
    confidence: float
    by: Literal["rules", "classifier", "embeddings", "model", "none"]
    usage: Usage = Usage()
