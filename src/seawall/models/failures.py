"""What a provider's refusal means to its caller; the same for every provider that speaks HTTP."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from seawall.errors import UpstreamFailed, UpstreamRefused, UpstreamThrottled

__all__ = [
    "coded_failure",
    "codes_in",
    "codes_of_body",
    "failure_of",
    "retry_after_of",
    "seconds_until",
]

_LONGEST_SECONDS = 86_400.0
# Request timeout and "too early": the server says itself that asking again may help; and Bedrock's
# "failed dependency", which is a model that failed.
_WORTH_ANOTHER_TRY = frozenset({408, 409, 424, 425})
# 529 is Anthropic's "overloaded": https://docs.anthropic.com/en/api/errors
_OVERLOADED = frozenset({429, 529})
# The account has nothing left to spend: no pause helps, however the status reads.
_SPENT = frozenset(
    {"insufficientquota", "exceededcurrentquota", "billinghardlimitreached"}
    | {"billingnotactive", "insufficientuserquota", "insufficientbalance", "insufficientcredits"}
    | {"insufficientfunds", "creditsexhausted"}
)
# The model wrote what its server cannot read, which is reported as the request's fault.
_MODEL_FAILED = frozenset({"toolusefailed", "outputparsefailed", "jsonvalidatefailed"})
# Names of errors as the status that they would have been, without case, underscores and the ending
# "error" or "exception": OpenAI's, Anthropic's, Google's, AWS's and those of common servers.
_STATUS_OF = {
    **dict.fromkeys(("invalidrequest", "invalidprompt", "badrequest", "validation"), 400),
    **dict.fromkeys(("contextlengthexceeded", "invalidargument", "failedprecondition"), 400),
    **dict.fromkeys(("stringabovemaxlength", "unprocessableentity"), 400),
    **dict.fromkeys(("authentication", "invalidapikey", "unauthenticated"), 401),
    "billing": 402,
    **dict.fromkeys(("permission", "permissiondenied", "accessdenied"), 403),
    **dict.fromkeys(("notfound", "modelnotfound", "resourcenotfound"), 404),
    "requesttoolarge": 413,
    **dict.fromkeys(("modelstream", "modelstreamerror"), 424),
    **dict.fromkeys(("ratelimitexceeded", "ratelimit", "toomanyrequests", "throttling"), 429),
    **dict.fromkeys(("resourceexhausted", "ratelimitreached", "servicequotaexceeded"), 429),
    **dict.fromkeys(("server", "internal", "internalserver", "api"), 500),
    **dict.fromkeys(("serviceunavailable", "unavailable", "modelnotready"), 503),
    **dict.fromkeys(("timeout", "deadlineexceeded", "gatewaytimeout", "modeltimeout"), 504),
    **dict.fromkeys(("overloaded", "engineoverloaded", "serveroverloaded"), 529),
}


def failure_of(
    model: str,
    status: int,
    retry_after: float | None = None,
    *,
    midway: bool = False,
    codes: Sequence[object] = (),
) -> UpstreamFailed:
    """The problem that an answer with this status is; it says no more than the status.

    Args:
        model: Its name in the configuration.
        status: Of the answer.
        retry_after: What it asks for, in seconds.
        midway: The status stands for an error that came in mid-answer.
        codes: Names of the error in the answer's body.
    """
    names = frozenset(map(_plain, codes))
    if names & _SPENT:
        return UpstreamRefused(
            f"The account's quota at the provider of the model '{model}' is used up."
        )
    how = (
        "failed in the middle of its answer, with what is elsewhere" if midway else "answered with"
    )
    said = f"The model '{model}' {how} status {status}."
    if status in _OVERLOADED:
        return UpstreamThrottled(said, retry_after=retry_after)
    passing = status in _WORTH_ANOTHER_TRY or names & _MODEL_FAILED
    if 400 <= status < 500 and not passing:
        return UpstreamRefused(said)
    return UpstreamFailed(said, retry_after=retry_after)


def coded_failure(model: str, codes: Iterable[object]) -> UpstreamFailed | None:
    """The problem that an error in mid-answer is, by the first code that is known.

    Args:
        model: Its name in the configuration.
        codes: Statuses, as numbers or digits, and names of errors.
    """
    known = tuple(codes)
    status = next((each for each in map(_status, known) if each is not None), None)
    if status is None and not any(_plain(code) in _SPENT for code in known):
        return None
    return failure_of(model, status or 429, midway=True, codes=known)


def codes_in(error: object) -> tuple[object, ...]:
    """What tells the kind of an error, in an error object as providers write it."""
    if not isinstance(error, dict):
        return ()
    inner = error.get("error")
    found = [error.get(key) for key in ("code", "status", "status_code", "type", "error_type")]
    return (*(codes_in(inner) if isinstance(inner, dict) else ()), *found)


def codes_of_body(body: bytes) -> tuple[object, ...]:
    """The same, in the body of an answer; nothing where that is no JSON."""
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()
    if isinstance(decoded, list):
        decoded = decoded[0] if decoded else None
    return codes_in(decoded)


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """Seconds after which to ask again, by an answer's headers; None where they do not say.

    `retry-after-ms` is more exact than `Retry-After` (RFC 9110 §10.2.3), where it is a number.
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        try:
            milliseconds = float(headers.get(name, ""))
        except ValueError:
            continue
        if milliseconds >= 0:
            return min(milliseconds / 1_000, _LONGEST_SECONDS)
    return seconds_until(headers.get("retry-after"), now=time.time())


def _status(code: object) -> int | None:
    if isinstance(code, str):
        known = _STATUS_OF.get(_plain(code))
        if known is not None or not (code.isascii() and code.isdigit() and len(code) == 3):
            return known
        code = int(code)
    if isinstance(code, float):
        code = int(code) if code.is_integer() else None
    return code if isinstance(code, int) and 400 <= code <= 599 else None


def _plain(code: object) -> str:
    """A name without case, separators and its ending."""
    if not isinstance(code, str):
        return ""
    name = code[:64].lower().replace("_", "").replace("-", "").replace(" ", "")
    return name.removesuffix("exception").removesuffix("error")


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
        except (ValueError, TypeError, OverflowError):
            return None
    if math.isnan(seconds):
        return None
    return min(max(seconds, 0.0), _LONGEST_SECONDS)
