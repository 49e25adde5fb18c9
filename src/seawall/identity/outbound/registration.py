"""Which client this server is at an authorization server that was found by metadata."""

from collections.abc import Callable, Sequence

import msgspec
from msgspec import UNSET, Struct, UnsetType

from seawall.identity.outbound.client import OAuthClient
from seawall.identity.outbound.discovery import AuthorizationServer, Discovered
from seawall.identity.outbound.http import send
from seawall.identity.outbound.port import CredentialsUnavailable

__all__ = ["ConfiguredClient", "RegisteredClient", "as_client", "register"]

_NAME = "Seawall"
_SECRET_METHODS = ("client_secret_basic", "client_secret_post")


class RegisteredClient(Struct, frozen=True):
    """A client as an authorization server knows it (RFC 7591 §3.2.1)."""

    client_id: str
    client_secret: str = ""
    token_endpoint_auth_method: str = ""

    def __repr__(self) -> str:
        return f"RegisteredClient({self.client_id!r})"


class ConfiguredClient(Struct, frozen=True):
    """What the configuration says about the client.

    Attributes:
        client_id: Empty for one that has to be registered; an https URL is a metadata document.
        auth: How it authenticates; empty for the best that both know.
        secret: Its secret; None for none.
        private_key: Its private key in PEM format; None for none.
        key_id: `kid` of that.
    """

    client_id: str = ""
    auth: str = ""
    secret: Callable[[], str] | None = None
    private_key: Callable[[], str] | None = None
    key_id: str = ""

    def at(self, server: AuthorizationServer) -> OAuthClient | None:
        """The client at an authorization server; None if it has to be registered there.

        Raises:
            CredentialsUnavailable: They have no way of authentication in common.
        """
        document = self.client_id.startswith("https://")
        if not self.client_id or (document and not server.client_id_metadata_document_supported):
            return None
        if self.private_key is not None and self.auth in ("", "private_key_jwt"):
            return OAuthClient(
                self.client_id, "private_key_jwt", self.private_key, key_id=self.key_id
            )
        if self.secret is not None:
            auth = self.auth or _best(server.token_endpoint_auth_methods_supported)
            return OAuthClient(self.client_id, auth, self.secret)
        return OAuthClient(self.client_id, "none", str)


def _best(offered: Sequence[str]) -> str:
    for method in _SECRET_METHODS:
        if method in offered:
            return method
    raise CredentialsUnavailable(
        f"the authorization server takes no client secret, only: {', '.join(offered)[:200]}"
    )


class _Request(Struct, frozen=True):
    client_name: str
    grant_types: tuple[str, ...]
    token_endpoint_auth_method: str
    redirect_uris: tuple[str, ...]
    response_types: tuple[str, ...]
    scope: str | UnsetType = UNSET
    application_type: str | UnsetType = UNSET


async def register(
    found: Discovered,
    *,
    grants: Sequence[str],
    redirect_uri: str = "",
    scope: str = "",
    deadline: float,
) -> RegisteredClient:
    """Register a client (RFC 7591).

    Args:
        found: Where.
        grants: Grants that it will use.
        redirect_uri: Where a browser comes back to; empty for no browser.
        scope: Scopes that it will ask for; empty for the server's choice.
        deadline: On the event loop's clock.

    Raises:
        CredentialsUnavailable: Clients are not registered there by themselves, or not this one.
    """
    url = found.server.registration_endpoint
    if not url:
        raise CredentialsUnavailable(
            f"{found.server.issuer} registers no clients by itself: set client_id and its secret"
        )
    offered = found.server.token_endpoint_auth_methods_supported
    # A program on a person's machine keeps no secret: "none", where that is offered.
    order = ("none", *_SECRET_METHODS) if redirect_uri else _SECRET_METHODS
    method = next((each for each in order if each in offered), order[0])
    request = _Request(
        _NAME,
        tuple(grants),
        method,
        (redirect_uri,) if redirect_uri else (),
        ("code",) if redirect_uri else (),
        scope or UNSET,
        "native" if redirect_uri else UNSET,
    )
    answer = await send(
        found.client(url),
        "POST",
        url,
        headers=((b"content-type", b"application/json"),),
        body=msgspec.json.encode(request),
        deadline=deadline,
    )
    if answer.status not in (200, 201):
        raise CredentialsUnavailable(f"{url}: registration refused with status {answer.status}")
    try:
        client = msgspec.json.decode(answer.body, type=RegisteredClient)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise CredentialsUnavailable(f"{url}: the answer is not one of RFC 7591") from None
    return msgspec.structs.replace(
        client, token_endpoint_auth_method=client.token_endpoint_auth_method or method
    )


def as_client(registered: RegisteredClient) -> OAuthClient:
    """The client that was registered."""
    auth = registered.token_endpoint_auth_method
    if not auth:
        auth = "client_secret_basic" if registered.client_secret else "none"
    return OAuthClient(registered.client_id, auth, lambda: registered.client_secret)
