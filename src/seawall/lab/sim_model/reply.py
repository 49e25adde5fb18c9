"""Replies of the simulated model and their timing: a pure function of seed and message."""

import hashlib
import random

from msgspec import Struct

__all__ = ["ReplyPlan", "SimTimes", "plan_reply"]

_WORDS = (
    *("order", "parcel", "store", "price", "size", "colour", "item", "return", "refund", "card"),
    *("address", "today", "tomorrow", "small", "large", "blue", "green", "soft", "warm", "light"),
    *("strong", "ready", "shipped", "packed", "found", "checked", "happy", "the", "is", "and"),
)


class SimTimes(Struct, frozen=True):
    """Ranges of service times in seconds, and the number of chunks of a reply.

    The defaults are the reference article's 3 to 6 seconds for an LLM invocation, streamed in 40
    chunks, the first after 0.4 to 0.8 seconds.
    """

    first_token: tuple[float, float] = (0.4, 0.8)
    duration: tuple[float, float] = (3.0, 6.0)
    chunks: int = 40


class ReplyPlan(Struct, frozen=True):
    """Text and timing of a reply.

    The text begins with a digest of the message, so that a client can check that it belongs to its
    question.

    Attributes:
        first_token: Seconds until the first chunk.
        interval: Seconds between chunks.
        chunks: The pieces of the text.
    """

    first_token: float
    interval: float
    chunks: tuple[str, ...]

    @property
    def text(self) -> str:
        """The whole reply."""
        return "".join(self.chunks)

    @property
    def duration(self) -> float:
        """Seconds until the last chunk."""
        return self.first_token + self.interval * (len(self.chunks) - 1)


def plan_reply(seed: int, message: str, times: SimTimes) -> ReplyPlan:
    """Plan the reply to a message; depends on nothing but the arguments."""
    digest = hashlib.sha256(f"{seed}\0{message}".encode("utf-8", "replace")).hexdigest()
    chance = random.Random(digest)  # noqa: S311 - a simulation, not a secret
    first = chance.uniform(*times.first_token)
    duration = max(first, chance.uniform(*times.duration))
    words = [f"[{digest[:12]}]", *(chance.choice(_WORDS) for _ in range(times.chunks - 1))]
    interval = (duration - first) / max(1, times.chunks - 1)
    return ReplyPlan(first, interval, (words[0], *(f" {word}" for word in words[1:])))
