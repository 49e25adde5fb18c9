"""What a provider's refusal means to its caller; the same for every provider that speaks HTTP."""

import math
import time

from seawall.errors import UpstreamFailed, UpstreamRefused, UpstreamThrottled

__all__ = ["failure_of", "seconds_until"]

_LONGEST_SECONDS = 86_400.0
# Request timeout and "too early": the server says itself that asking again may help; and Bedrock's
# "failed dependency", which is a model that failed.
_WORTH_ANOTHER_TRY = frozenset({408, 409, 424, 425})
# 529 is Anthropic's "overloaded": https://docs.anthropic.com/en/api/errors
_OVERLOADED = frozenset({429, 529})


def failure_of(
    model: str, status: int, retry_after: str | None, *, midway: bool = False
) -> UpstreamFailed:
    """The problem that an answer with this status is; it says no more than the status.

    retry_after: the header as it came (RFC 9110 §10.2.3). midway: the status stands for an error
    that came in mid-answer.
    """
    how = (
        "failed in the middle of its answer, with what is elsewhere" if midway else "answered with"
    )
    said = f"The model '{model}' {how} status {status}."
    wait = seconds_until(retry_after, now=time.time())
    if status in _OVERLOADED:
        return UpstreamThrottled(said, retry_after=wait)
    if 400 <= status < 500 and status not in _WORTH_ANOTHER_TRY:
        return UpstreamRefused(said)
    return UpstreamFailed(said, retry_after=wait)


def seconds_until(retry_after: str | None, *, now: float) -> float | None:
    """Seconds that a `Retry-After` asks for: a number, or a date. None where it asks for nothing.

    now: Unix time. A date in the past is 0, and nobody is believed who asks for more than a day.
    """
    if not retry_after:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        import email.utils  # noqa: PLC0415 - seldom needed, and slow to import

        try:
            seconds = email.utils.parsedate_to_datetime(retry_after).timestamp() - now
        except ValueError:
            return None
    if math.isnan(seconds):
        return None
    return min(max(seconds, 0.0), _LONGEST_SECONDS)
