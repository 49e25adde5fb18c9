"""The port of outbound credentials: the headers with which a call to an upstream is made."""

from typing import Protocol

from seawall.turn import Principal

__all__ = ["CredentialsUnavailable", "Headers", "OutboundCredentials"]

Headers = tuple[tuple[bytes, bytes], ...]
"""Names in lower case, and values. A name that begins with "?", which no header can have, is that
of a parameter of the query."""


class CredentialsUnavailable(Exception):
    """There are no credentials for a call.

    Attributes:
        detail: Why, and what to do about it; nothing in it is secret.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class OutboundCredentials(Protocol):
    """Whose credentials a call to one upstream carries."""

    async def headers(
        self, principal: Principal | None, caller_token: str, *, deadline: float
    ) -> Headers:
        """The headers to add to a request.

        Args:
            principal: For whom the call is made; None outside turns (a listing at start).
            caller_token: The bearer token of the request that is being answered; empty if there is
                none (API keys, background turns, resumed turns).
            deadline: Event loop time at which the answer has to be there.

        Raises:
            CredentialsUnavailable: There are none, or not in time.
        """
        ...

    def rejected(
        self,
        principal: Principal | None,
        caller_token: str,
        headers: Headers,
        challenge: str = "",
    ) -> bool:
        """Forget what a request was made with: the upstream answered with status 401.

        Also called for status 403 with a `WWW-Authenticate` of `insufficient_scope` (RFC 6750
        §3.1). Only the refused token is dropped: one that another call has fetched since stays.

        Args:
            principal: As given to `headers`.
            caller_token: As given to `headers`.
            headers: What `headers` returned for the request.
            challenge: The value of `WWW-Authenticate`; empty if there was none.

        Returns:
            Whether another attempt with new headers makes sense.
        """
        ...

    async def close(self) -> None:
        """End what runs in the background."""
        ...
