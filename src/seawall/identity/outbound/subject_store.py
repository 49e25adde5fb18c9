"""Tokens that the application keeps for each subject, such as those of accounts it has linked."""

import asyncio
import logging
import time
from collections.abc import Hashable
from typing import Any, Protocol

from msgspec import Struct

from seawall.errors import ConfigError
from seawall.identity.outbound.port import CredentialsUnavailable
from seawall.identity.outbound.token_endpoint import GrantRefused, TokenEndpoint, is_sendable
from seawall.identity.outbound.tokens import Token
from seawall.turn import Principal

__all__ = ["SubjectStore", "SubjectToken", "SubjectTokens"]

_REFRESH_SECONDS = 30.0  # of life left, at which a token is refreshed

_log = logging.getLogger("seawall.identity")


class SubjectToken(Struct, frozen=True):
    """What the application knows about a subject's access.

    Attributes:
        access_token: Sent to the upstream.
        expires_at: Unix seconds; None if it is not known.
        refresh_token: Obtains the next one at `token_url`; empty for none.
    """

    access_token: str
    expires_at: float | None = None
    refresh_token: str = ""

    def __repr__(self) -> str:
        return "SubjectToken(...)"


class SubjectTokens(Protocol):
    """The application's store, which a factory returns."""

    async def find(self, tenant: str, subject: str) -> SubjectToken | None:
        """The token of a subject; None if it has given none."""
        ...

    async def save(self, tenant: str, subject: str, token: SubjectToken) -> None:
        """Keep a token that was refreshed; called only where `token_url` is set."""
        ...


class SubjectStore:
    """Tokens from the application. See `TokenSource`."""

    def __init__(
        self,
        tokens: SubjectTokens,
        *,
        cache_seconds: float,
        call_seconds: float,
        endpoint: TokenEndpoint | None,
        key: str,
    ) -> None:
        """Create it.

        Args:
            tokens: What the factory has returned.
            cache_seconds: How long a token is used before it is looked up again.
            call_seconds: Time limit of one call of the application's store.
            endpoint: Refreshes tokens; None for no refreshing.
            key: The table, for errors.

        Raises:
            ConfigError: The factory has returned something else.
        """
        for name in ("find", "save") if endpoint is not None else ("find",):
            if not callable(getattr(tokens, name, None)):
                raise ConfigError(
                    f"{key}.factory: {type(tokens).__name__} has no method {name}"
                    "(tenant, subject, ...): see SubjectTokens"
                )
        self._tokens = tokens
        self._cache_seconds = cache_seconds
        self._seconds = call_seconds
        self._endpoint = endpoint
        self._key = key

    def key(self, principal: Principal | None, caller_token: str) -> Hashable:  # noqa: ARG002
        """See `TokenSource.key`."""
        if principal is None:
            raise CredentialsUnavailable(
                "a subject's token is needed, and there is no subject here"
            )
        return (principal.tenant, principal.subject)

    async def fetch(
        self,
        principal: Principal | None,
        caller_token: str,  # noqa: ARG002 - of the port
        *,
        deadline: float,
    ) -> Token:
        """See `TokenSource.fetch`."""
        if principal is None:
            raise CredentialsUnavailable(
                "a subject's token is needed, and there is no subject here"
            )
        tenant, subject = principal.tenant, principal.subject
        found = await self._find(tenant, subject)
        now = time.time()
        left = found.expires_at - now if found.expires_at is not None else float("inf")
        if left < _REFRESH_SECONDS and self._endpoint is not None and found.refresh_token:
            found = await self._refresh(self._endpoint, tenant, subject, found, deadline)
        elif left <= 0:
            raise CredentialsUnavailable("the user's access to this system has expired")
        if not is_sendable(found.access_token):
            raise CredentialsUnavailable("the user's token cannot be sent in a header")
        until = now + self._cache_seconds
        return Token(found.access_token, min(until, found.expires_at or until))

    async def _refresh(
        self,
        endpoint: TokenEndpoint,
        tenant: str,
        subject: str,
        old: SubjectToken,
        deadline: float,
    ) -> SubjectToken:
        parameters = {"grant_type": "refresh_token", "refresh_token": old.refresh_token}
        try:
            grant = await endpoint.request(parameters, deadline=deadline)
        except GrantRefused as refusal:
            if refusal.error != "invalid_grant":
                raise
            found = await self._find(tenant, subject)
            if found.refresh_token != old.refresh_token:
                return found  # another process was faster: refresh tokens are often used once
            raise CredentialsUnavailable(
                "the user's access to this system has ended: it has to be given again"
            ) from None
        new = SubjectToken(
            grant.token.value, grant.token.expires_at, grant.refresh_token or old.refresh_token
        )
        await self._call("save", tenant, subject, new)
        return new

    async def _find(self, tenant: str, subject: str) -> SubjectToken:
        found = await self._call("find", tenant, subject)
        if found is None:
            raise CredentialsUnavailable("the user has not given access to this system")
        if not isinstance(found, SubjectToken):
            raise CredentialsUnavailable(
                f"{self._key}.factory: find must return a SubjectToken, not {type(found).__name__}"
            )
        return found

    async def _call(self, name: str, *arguments: Any) -> Any:  # noqa: ANN401 - user code
        try:
            async with asyncio.timeout(self._seconds):
                return await getattr(self._tokens, name)(*arguments)
        except TimeoutError:
            raise CredentialsUnavailable(
                "the application's store of tokens has not answered in time"
            ) from None
        except Exception as error:  # noqa: BLE001 - whatever the application raises
            kind = type(error).__name__  # its text might have a secret
            _log.warning("%s.factory: %s failed: %s", self._key, name, kind)
            raise CredentialsUnavailable(f"the application's store of tokens: {kind}") from None
