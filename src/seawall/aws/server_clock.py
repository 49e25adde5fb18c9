"""When a signature was refused for its time: whose clock is right, and whether to sign anew.

AWS allows a signature to be five minutes old. It is refused where our clock is wrong, and where
they agree but the process stood still between signing and sending, as a Lambda environment does
between invocations.
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
"""Codes that may come of a clock that is wrong, as botocore and the other SDKs have them."""

_OF_TIME_ONLY = frozenset({"RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed"})
_SAID = ("signature expired", "signature not yet current")
_ALLOWED_SECONDS = 240.0  # less is not why a signature is refused


class ServerClock:
    """The time by a server's clock, as far as it is known to differ from ours.

    skew: seconds that the server's clock is ahead; 0 until it has refused a signature.
    """

    __slots__ = ("_clock", "skew")

    def __init__(self, clock: Callable[[], float]) -> None:
        """clock: ours, in Unix seconds."""
        self._clock = clock
        self.skew = 0.0

    def now(self) -> float:
        """Unix seconds by the server's clock; what requests are signed with."""
        return self._clock() + self.skew

    def should_sign_again(self, code: str, message: str, date: str, *, signed_at: float) -> bool:
        """Whether a refused request may succeed when it is signed again, at `now`.

        Args:
            code: The refusal's code, without a prefix.
            message: What the refusal says.
            date: The answer's header Date; empty where it has none.
            signed_at: What `now` was when the request was signed.
        """
        if code not in CLOCK_REFUSAL_CODES:
            return False
        # Of an exchange in which we stood still, the answer's date may be old itself.
        stood_still = self.now() - signed_at >= _ALLOWED_SECONDS
        if not stood_still and (theirs := _seconds(date)) is not None:
            skew = theirs - self._clock()
            if abs(skew - self.skew) >= _ALLOWED_SECONDS:
                self.skew = skew
                return True
        return stood_still or code in _OF_TIME_ONLY or message.lower().startswith(_SAID)


def _seconds(date: str) -> float | None:
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - rarely needed

    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None
