"""Clock correction for signatures that AWS refuses because of their time.

AWS accepts signatures that are up to five minutes old. One is refused where our clock is wrong,
and where the clocks agree but the process was frozen between signing and sending, as a Lambda
environment is between invocations.
"""

from collections.abc import Callable

__all__ = ["CLOCK_REFUSAL_CODES", "ServerClock"]

CLOCK_REFUSAL_CODES = frozenset(
    {
        "AuthFailure",
        "InvalidSignatureException",
        "RequestExpired",
        "RequestInTheFuture",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
"""Codes that a wrong clock may cause, as in botocore and the other SDKs."""

_ONLY_CLOCK_CODES = frozenset({"RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed"})
_CLOCK_MESSAGES = ("signature expired", "signature not yet current")
_ALLOWED_SECONDS = 240.0  # a smaller difference is not the cause of a refusal


class ServerClock:
    """The time by a server's clock.

    Attributes:
        skew: Seconds that the server's clock is ahead; 0 until it has refused a signature.
    """

    __slots__ = ("_clock", "skew")

    def __init__(self, clock: Callable[[], float]) -> None:
        """Create it; `clock` is ours, in Unix seconds."""
        self._clock = clock
        self.skew = 0.0

    def now(self) -> float:
        """Return the Unix seconds by the server's clock, to sign requests with."""
        return self._clock() + self.skew

    def should_sign_again(self, code: str, message: str, date: str, *, signed_at: float) -> bool:
        """Return whether a refused request may succeed when it is signed again, at `now`.

        Args:
            code: The refusal's code, without a prefix.
            message: The refusal's message.
            date: The response's header Date; empty where it has none.
            signed_at: `now` at the time of signing.
        """
        if code not in CLOCK_REFUSAL_CODES:
            return False
        # If the process was frozen, the response's date may be old itself.
        frozen = self.now() - signed_at >= _ALLOWED_SECONDS
        if not frozen and (theirs := _seconds(date)) is not None:
            skew = theirs - self._clock()
            if abs(skew - self.skew) >= _ALLOWED_SECONDS:
                self.skew = skew
                return True
        return frozen or code in _ONLY_CLOCK_CODES or message.lower().startswith(_CLOCK_MESSAGES)


def _seconds(date: str) -> float | None:
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - rarely needed

    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None
