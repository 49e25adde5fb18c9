"""What can be configured about caches."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

__all__ = ["AnswerCacheSettings", "CacheLimits"]


class AnswerCacheSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """That an agent's answers to opening questions may be given again.

    seconds: how long an answer may be given again. scope: to the same subject only, or to all of
    a tenant; the latter only where every tool is declared as shared.
    """

    seconds: Annotated[float, Meta(gt=0, le=86_400)]
    scope: Literal["subject", "tenant"] = "subject"


class CacheLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """What one process keeps at most: of answers, and again so much of what tools read."""

    entries: Annotated[int, Meta(ge=1)] = 10_000
    bytes: Annotated[int, Meta(ge=1)] = 64 << 20
