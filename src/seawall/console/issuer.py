"""Login with the issuer: OpenID Connect's authorization code flow with PKCE.

https://openid.net/specs/openid-connect-core-1_0.html §3.1, RFC 7636, RFC 9207. The ID token is
verified like every token of the issuer, for the console as its audience, and with the nonce of the
login that was begun in the same browser.
"""

import asyncio
import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import quote_plus, urlencode, urlsplit

import msgspec
from msgspec import Struct, structs

from seawall.errors import ConfigError, IdentityUnavailable, Overloaded, Unauthenticated
from seawall.identity import Bearer
from seawall.identity.authenticator import build_authenticator
from seawall.identity.settings import IdentitySettings, JwtSettings
from seawall.settings import ConsoleLoginSettings
from seawall.transport.connection import TransportError
from seawall.transport.http_client import Endpoint, HttpClient
from seawall.turn import Principal

__all__ = ["BegunLogin", "IssuerLogin"]

_MAX_BYTES = 1 << 20
_CALL_SECONDS = 10.0
_METADATA_SECONDS = 600.0
_PAUSE_SECONDS = 5.0  # after a failure to fetch them
_EXCHANGES = 16  # at the same time; a login needs no credential
T = TypeVar("T")

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class BegunLogin(Struct, frozen=True):
    """A login that was begun: what the browser has to bring back, sealed in a cookie.

    Attributes:
        state: Which the issuer repeats.
        nonce: Which the ID token repeats.
        verifier: Of PKCE.
        expires_at: Unix seconds.
    """

    state: str
    nonce: str
    verifier: str
    expires_at: float


class _Metadata(Struct, frozen=True):
    """The members of the issuer's metadata that are used."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class _Tokens(Struct, frozen=True):
    id_token: str


class _Nonce(Struct, frozen=True):
    nonce: str = ""


class IssuerLogin:
    """Logins with one issuer."""

    def __init__(
        self,
        settings: ConsoleLoginSettings,
        jwt: JwtSettings,
        client: HttpClient,
        environment: Mapping[str, str],
    ) -> None:
        """Create it; the issuer's metadata are fetched with the first login.

        Args:
            settings: The section `[console.login]`.
            jwt: The issuer and its keys.
            client: Calls the issuer.
            environment: Has the client's secret, if one is configured.

        Raises:
            ConfigError: The secret is missing.
        """
        self._settings = settings
        self._issuer = jwt.issuer
        self._client = client
        self._secret = ""
        if settings.client_secret_env:
            self._secret = environment.get(settings.client_secret_env, "")
            if not self._secret:
                raise ConfigError(
                    f"console.login.client_secret_env: {settings.client_secret_env} is not set"
                )
        own = IdentitySettings(jwt=structs.replace(jwt, audience=settings.client_id))
        self._authenticator = build_authenticator(own, self._fetch)
        self._metadata: _Metadata | None = None
        self._fetched_at = 0.0
        self._failed_at = float("-inf")
        self._fetching = asyncio.Lock()
        self._exchanges = 0

    async def begin(self) -> tuple[BegunLogin, str]:
        """Begin a login.

        Returns:
            What the browser keeps, and where it goes.

        Raises:
            IdentityUnavailable: The issuer's metadata cannot be fetched.
        """
        metadata = await self._discover()
        begun = BegunLogin(
            secrets.token_urlsafe(24),
            secrets.token_urlsafe(24),
            secrets.token_urlsafe(48),
            time.time() + 600,
        )
        query = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self._redirect_uri,
            "scope": " ".join(("openid", *self._settings.scopes)),
            "state": begun.state,
            "nonce": begun.nonce,
            "code_challenge": _encoded(hashlib.sha256(begun.verifier.encode()).digest()),
            "code_challenge_method": "S256",
        }
        joint = "&" if urlsplit(metadata.authorization_endpoint).query else "?"
        return begun, f"{metadata.authorization_endpoint}{joint}{urlencode(query)}"

    async def complete(self, begun: BegunLogin | None, returned: Mapping[str, str]) -> Principal:
        """Complete a login.

        Args:
            begun: What the browser kept; None if it kept nothing.
            returned: Parameters of the address to which the issuer sent the browser.

        Returns:
            Who logged in.

        Raises:
            Unauthenticated: The login was not begun in this browser, or the issuer refused it.
            IdentityUnavailable: The issuer does not answer.
            Overloaded: Too many logins are being completed.
        """
        if begun is None or begun.expires_at <= time.time():
            raise Unauthenticated("The login was not begun in this browser, or took too long.")
        if not hmac.compare_digest(begun.state.encode(), returned.get("state", "").encode()):
            raise Unauthenticated("The login was not begun in this browser.")
        if returned.get("iss", self._issuer) != self._issuer:
            raise Unauthenticated("The answer is of another issuer.")
        if "code" not in returned:
            reason = returned.get("error", "no code")[:64]
            raise Unauthenticated(f"The issuer refused the login: {reason!r}.")
        if self._exchanges >= _EXCHANGES:
            raise Overloaded("Too many logins are being completed.", retry_after=1.0)
        self._exchanges += 1
        try:
            token = await self._exchange(returned["code"], begun.verifier)
        finally:
            self._exchanges -= 1
        principal = await self._authenticator.authenticate(Bearer(token))
        payload = token.split(".")[1]
        decoded = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        try:
            claims = msgspec.json.decode(decoded, type=_Nonce)
        except msgspec.ValidationError as error:
            raise Unauthenticated("The nonce of the token is not text.") from error
        if not hmac.compare_digest(claims.nonce.encode(), begun.nonce.encode()):
            raise Unauthenticated("The token is of another login.")
        return principal

    @property
    def _redirect_uri(self) -> str:
        return self._settings.url + "/callback"

    async def _discover(self) -> _Metadata:
        async with self._fetching:  # one fetches for all
            now = time.monotonic()
            if self._metadata is not None and now - self._fetched_at <= _METADATA_SECONDS:
                return self._metadata
            if now - self._failed_at <= _PAUSE_SECONDS:
                raise IdentityUnavailable("The issuer has just failed.", retry_after=_PAUSE_SECONDS)
            self._failed_at = now  # unless it succeeds
            url = self._issuer.rstrip("/") + "/.well-known/openid-configuration"
            found = await self._call("GET", url, _Metadata)
            if found.issuer != self._issuer:
                raise IdentityUnavailable("The issuer's metadata are of another issuer.")
            for each in (found.authorization_endpoint, found.token_endpoint):
                if not _is_safe(each):
                    raise IdentityUnavailable("An address in the issuer's metadata is not https.")
            self._metadata, self._fetched_at = found, time.monotonic()
            self._failed_at = float("-inf")
            return found

    async def _exchange(self, code: str, verifier: str) -> str:
        """The ID token for a code."""
        metadata = await self._discover()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "client_id": self._settings.client_id,
            "code_verifier": verifier,
        }
        headers = [(b"content-type", b"application/x-www-form-urlencoded")]
        if self._secret and "client_secret_post" in metadata.token_endpoint_auth_methods_supported:
            form["client_secret"] = self._secret
        elif self._secret:
            # RFC 6749 §2.3.1: both are encoded like a form before.
            pair = ":".join(map(quote_plus, (self._settings.client_id, self._secret)))
            headers.append((b"authorization", b"Basic " + base64.b64encode(pair.encode())))
        url, body = metadata.token_endpoint, urlencode(form).encode()
        return (await self._call("POST", url, _Tokens, headers, body)).id_token

    async def _call(
        self,
        method: str,
        url: str,
        kind: type[T],
        headers: list[tuple[bytes, bytes]] | None = None,
        body: bytes = b"",
    ) -> T:
        deadline = asyncio.get_running_loop().time() + _CALL_SECONDS
        try:
            response = await self._client.request(
                method,
                Endpoint.parse(url),
                headers=[(b"accept", b"application/json"), *(headers or ())],
                body=body,
                deadline=deadline,
                limit=_MAX_BYTES,
                replay=method == "GET",
            )
            if response.status == 400 and method == "POST":
                raise Unauthenticated("The issuer does not accept the code of this login.")
            if response.status != 200:
                raise IdentityUnavailable(
                    f"The issuer answered with status {response.status}.", retry_after=5.0
                )
            return msgspec.json.decode(response.body, type=kind)
        except (TransportError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
            raise IdentityUnavailable(
                "The issuer cannot be reached, or its answer cannot be read.", retry_after=5.0
            ) from error

    async def _fetch(self, url: str, deadline: float) -> bytes:
        """The issuer's key set; see `identity.jwks.Fetch`."""
        response = await self._client.request(
            "GET", Endpoint.parse(url), deadline=deadline, limit=_MAX_BYTES
        )
        if response.status != 200:
            raise TransportError(f"{url} answered with status {response.status}")
        return response.body


def _is_safe(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
