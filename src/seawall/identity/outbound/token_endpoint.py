"""Requests to a token endpoint (RFC 6749 §5, RFC 8693 §2): grants in, tokens out."""

import time
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from seawall.identity.outbound.client import OAuthClient
from seawall.identity.outbound.http import post_form
from seawall.identity.outbound.port import CredentialsUnavailable
from seawall.identity.outbound.tokens import Token
from seawall.transport.http_client import BufferedResponse, HttpClient

__all__ = ["Grant", "GrantRefused", "TokenEndpoint", "is_sendable"]

_DEFAULT_LIFE_SECONDS = 300.0  # of a token whose life the answer does not say
_MAX_LIFE_SECONDS = 86_400.0
_MAX_TOKEN_CHARACTERS = 16_384
_SHOWN = 200
_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class GrantRefused(CredentialsUnavailable):
    """The authorization server has refused a grant.

    Attributes:
        error: Its code, such as `invalid_grant`.
    """

    def __init__(self, detail: str, error: str) -> None:
        super().__init__(detail)
        self.error = error


class Grant(Struct, frozen=True):
    """What a token endpoint has issued.

    Attributes:
        token: The access token.
        refresh_token: For later ones; empty for none.
        scope: What the token grants, if that is said.
    """

    token: Token
    refresh_token: str = ""
    scope: str = ""

    def __repr__(self) -> str:
        return "Grant(...)"


class _Answer(Struct):
    access_token: str
    token_type: str = "Bearer"  # noqa: S105 - a kind
    expires_in: float | str | None = None
    refresh_token: str = ""
    scope: str = ""


class _Refusal(Struct):
    error: str = ""
    error_description: str = ""


class TokenEndpoint:
    """One token endpoint, as one client uses it."""

    def __init__(
        self, http: HttpClient, url: str, client: OAuthClient, *, assertion_audience: str = ""
    ) -> None:
        """Create it.

        Args:
            http: Sends the requests.
            url: The token endpoint.
            client: Authenticates.
            assertion_audience: `aud` of the client's assertions; empty for `url`.
        """
        self._http = http
        self._url = url
        self._client = client
        self._audience = assertion_audience or url

    async def request(self, parameters: Mapping[str, str], *, deadline: float) -> Grant:
        """Ask for a token.

        Args:
            parameters: Of the grant; empty ones are left out.
            deadline: On the event loop's clock.

        Raises:
            GrantRefused: The authorization server says no.
            CredentialsUnavailable: It cannot be asked, or its answer cannot be used.
        """
        form = {name: value for name, value in parameters.items() if value}
        headers = self._client.authenticate(form, self._audience)
        answer = await post_form(self._http, self._url, form, headers=headers, deadline=deadline)
        if answer.status != 200:
            raise _refusal(self._url, answer, form)
        return _grant(self._url, answer.body)


def _grant(url: str, body: bytes) -> Grant:
    try:
        answer = msgspec.json.decode(body, type=_Answer)
        life = float(answer.expires_in) if answer.expires_in else _DEFAULT_LIFE_SECONDS
    except (*_ERRORS, ValueError):
        raise CredentialsUnavailable(f"{url}: the answer is not one of RFC 6749 §5.1") from None
    if answer.token_type.lower() not in ("bearer", "n_a"):
        raise CredentialsUnavailable(f"{url}: issues tokens of another type than Bearer")
    if not is_sendable(answer.access_token):
        raise CredentialsUnavailable(f"{url}: the access token cannot be sent in a header")
    life = min(max(life, 0.0), _MAX_LIFE_SECONDS)
    return Grant(Token(answer.access_token, time.time() + life), answer.refresh_token, answer.scope)


def _refusal(url: str, answer: BufferedResponse, form: Mapping[str, str]) -> CredentialsUnavailable:
    """The error of an answer: its code, and its description without what was sent."""
    if answer.status >= 500 or answer.status == 429:
        return CredentialsUnavailable(f"{url}: answered with status {answer.status}")
    try:
        refusal = msgspec.json.decode(answer.body, type=_Refusal)
    except _ERRORS:
        refusal = _Refusal()
    code = refusal.error if refusal.error.isascii() and refusal.error.isprintable() else ""
    if not code or len(code) > 64:
        return CredentialsUnavailable(f"{url}: refused with status {answer.status}")
    description = refusal.error_description
    if not description.isprintable() or any(
        value in description for name, value in form.items() if _is_secret(name)
    ):
        description = ""
    said = f" ({description[:_SHOWN]})" if description else ""
    return GrantRefused(f"{url}: refused: {code}{said}", code)


def _is_secret(name: str) -> bool:
    return name.endswith(("_token", "_secret", "assertion", "code", "code_verifier"))


def is_sendable(token: str) -> bool:
    """Whether a token can stand in a header: printable ASCII without spaces, of bounded size."""
    return (
        0 < len(token) <= _MAX_TOKEN_CHARACTERS
        and token.isascii()
        and token.isprintable()
        and " " not in token
    )
