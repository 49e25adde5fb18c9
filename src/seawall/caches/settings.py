"""Settings of caches."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

__all__ = ["AnswerCacheSettings", "CacheLimits"]


class AnswerCacheSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Reuse of an agent's answers to first questions.

    Attributes:
        seconds: How long an answer may be reused.
        scope: For the same subject only, or for all of a tenant; the latter only if every tool is
            shared.
    """

    seconds: Annotated[float, Meta(gt=0, le=86_400)]
    scope: Literal["subject", "tenant"] = "subject"


class CacheLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of one process: for answers, and the same again for tool results."""

    entries: Annotated[int, Meta(ge=1)] = 10_000
    bytes: Annotated[int, Meta(ge=1)] = 64 << 20
