"""Opening of outbound credentials from their settings: chooses the adapter of each kind."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from seawall.errors import ConfigError
from seawall.identity.outbound.port import OutboundCredentials
from seawall.identity.outbound.settings import (
    AuthSettings,
    ClientCredentialsAuth,
    McpAuth,
    NoAuth,
    OAuthClientAuth,
    PassThroughAuth,
    StaticAuth,
    SubjectStoreAuth,
    TokenExchangeAuth,
)

if TYPE_CHECKING:
    from seawall.identity.outbound.registration import ConfiguredClient
    from seawall.identity.outbound.token_endpoint import TokenEndpoint
    from seawall.transport.http_client import HttpClient

__all__ = ["FindObject", "open_credentials", "open_login"]

FindObject = Callable[[str], Any]
"""The object of `module:name`; raises ConfigError."""

_MAX_CONNECTIONS = 16
_LOCK_SECONDS = 60.0


class _Upstream(Struct, frozen=True):
    """Where credentials are sent: URLs, and the file of authorities that are trusted for them."""

    addresses: tuple[str, ...]
    ca_file: str


def open_credentials(
    settings: AuthSettings,
    *,
    key: str,
    addresses: Sequence[str],
    find: FindObject,
    environment: Mapping[str, str] = os.environ,
    ca_file: str = "",
    tenants: Mapping[str, AuthSettings] = MappingProxyType({}),
    tenant_key: Callable[[str], str] = str,
) -> OutboundCredentials:
    """The credentials with which one upstream is called.

    Args:
        settings: The common ones.
        key: Their table, for errors, such as `tools.orders.auth`.
        addresses: URLs of the upstream. Of an MCP server, its endpoint.
        find: Imports what a factory names.
        environment: Environment variables, for secrets.
        ca_file: Authorities that are trusted for these addresses; empty for those of the system.
        tenants: Settings of tenants that have credentials of their own.
        tenant_key: The table of a tenant's, for errors.

    Raises:
        ConfigError: A secret is missing, or something that is configured cannot be used.
    """
    where = _Upstream(tuple(addresses), ca_file)
    common = _open(settings, key, where, find, environment)
    if not tenants:
        return common
    from seawall.identity.outbound.tenants import TenantCredentials  # noqa: PLC0415 - if any

    return TenantCredentials(
        common,
        {
            tenant: _open(each, tenant_key(tenant), where, find, environment)
            for tenant, each in tenants.items()
        },
    )


# Each kind is imported where it is configured.
def _open(
    settings: AuthSettings,
    key: str,
    upstream: _Upstream,
    find: FindObject,
    environment: Mapping[str, str],
) -> OutboundCredentials:
    if isinstance(settings, PassThroughAuth | McpAuth) and not upstream.addresses:
        raise ConfigError(f'{key}.kind: "{settings.__struct_config__.tag}" needs a base_url')
    match settings:
        case NoAuth():
            from seawall.identity.outbound.static import NoCredentials  # noqa: PLC0415

            return NoCredentials()
        case StaticAuth():
            return _static(settings, key, environment)
        case PassThroughAuth():
            from seawall.identity.outbound.pass_through import PassThrough  # noqa: PLC0415

            return PassThrough(settings, upstream.addresses, key=key)
        case McpAuth():
            return _mcp(settings, key, upstream, environment)
        case SubjectStoreAuth():
            return _subject_store(settings, key, find, environment)
        case _:
            return _oauth(settings, key, environment)


def _static(settings: StaticAuth, key: str, environment: Mapping[str, str]) -> OutboundCredentials:
    from seawall.identity.outbound.secrets import Secret  # noqa: PLC0415
    from seawall.identity.outbound.static import StaticCredentials  # noqa: PLC0415

    secret = Secret(
        settings.secret_env, settings.secret_file, key=f"{key}.secret", environment=environment
    )
    return StaticCredentials(settings, secret, key=key)


def _oauth(
    settings: ClientCredentialsAuth | TokenExchangeAuth,
    key: str,
    environment: Mapping[str, str],
) -> OutboundCredentials:
    from seawall.identity.outbound.oauth import (  # noqa: PLC0415
        CachedTokens,
        ClientCredentials,
        TokenExchange,
        TokenSource,
    )
    from seawall.identity.outbound.secrets import Secret  # noqa: PLC0415
    from seawall.identity.outbound.tokens import TokenCache  # noqa: PLC0415

    http, endpoint = _endpoint(settings, key, environment)
    source: TokenSource
    if isinstance(settings, TokenExchangeAuth):
        actor = None
        if settings.actor_token_env or settings.actor_token_file:
            actor = Secret(
                settings.actor_token_env,
                settings.actor_token_file,
                key=f"{key}.actor_token",
                environment=environment,
            ).value
        source = TokenExchange(settings, endpoint, actor)
    else:
        source = ClientCredentials(settings, endpoint)
    return CachedTokens(source, TokenCache(fetch_seconds=settings.timeout_seconds), http)


def _mcp(
    settings: McpAuth, key: str, upstream: _Upstream, environment: Mapping[str, str]
) -> OutboundCredentials:
    from seawall.identity.outbound.discovery import Discovery  # noqa: PLC0415
    from seawall.identity.outbound.login_file import LoginFile  # noqa: PLC0415
    from seawall.identity.outbound.mcp import (  # noqa: PLC0415
        ClientGrant,
        ExchangeGrant,
        LoginGrant,
        McpCredentials,
        McpGrant,
    )
    from seawall.identity.outbound.tokens import TokenCache  # noqa: PLC0415

    configured = _configured_client(settings, key, environment)
    grant: McpGrant
    if settings.grant == "login":
        grant = LoginGrant(configured, LoginFile(settings.login_file))
    elif settings.grant == "token-exchange":
        grant = ExchangeGrant(configured)
    else:
        grant = ClientGrant(configured)
    http, public = _mcp_clients(settings, key, upstream)
    return McpCredentials(
        Discovery(
            upstream.addresses[0],
            settings.issuers,
            http=http,
            public=public,
            default_endpoints=settings.default_endpoints,
        ),
        grant,
        TokenCache(fetch_seconds=settings.timeout_seconds),
        scope=settings.scope,
        clients=(http, public),
    )


def _configured_client(
    settings: McpAuth, key: str, environment: Mapping[str, str]
) -> "ConfiguredClient":
    """What the configuration says about the client of an MCP server.

    Raises:
        ConfigError: A secret or key is not there.
    """
    from seawall.identity.outbound.registration import ConfiguredClient  # noqa: PLC0415
    from seawall.identity.outbound.secrets import Secret  # noqa: PLC0415

    secret = private = None
    if settings.client_secret_env or settings.client_secret_file:
        secret = Secret(
            settings.client_secret_env,
            settings.client_secret_file,
            key=f"{key}.client_secret",
            environment=environment,
        ).value
    if settings.private_key_file:
        private = Secret(
            "", settings.private_key_file, key=f"{key}.private_key", environment=environment
        ).value
    return ConfiguredClient(
        settings.client_id, settings.client_auth, secret, private, settings.key_id
    )


def _mcp_clients(
    settings: McpAuth, key: str, upstream: _Upstream
) -> "tuple[HttpClient, HttpClient]":
    """The HTTP clients for configured addresses, and for those that documents name.

    Raises:
        ConfigError: The file of authorities cannot be used.
    """
    from seawall.transport.http_client import Endpoint, HttpClient  # noqa: PLC0415
    from seawall.transport.tls import tls_context  # noqa: PLC0415

    context = tls_context(settings.ca_file, key=f"{key}.ca_file") if settings.ca_file else None
    http = HttpClient(max_connections=_MAX_CONNECTIONS, ssl_context=context)
    if upstream.ca_file:
        for each in upstream.addresses:
            http.trust(Endpoint.parse(each).origin, tls_context(upstream.ca_file))
    return http, HttpClient(max_connections=_MAX_CONNECTIONS, public_only=True)


async def open_login(
    settings: McpAuth,
    url: str,
    *,
    key: str,
    show: Callable[[str], None],
    environment: Mapping[str, str] = os.environ,
    ca_file: str = "",
) -> None:
    """Sign in to an MCP server, and keep what is issued in `login_file`.

    Args:
        settings: Of the server.
        url: Of the server.
        key: The table, for errors.
        show: Called with the address that a browser has to open.
        environment: Environment variables, for secrets.
        ca_file: Authorities that are trusted for `url`; empty for those of the system.

    Raises:
        ConfigError: The settings are of no sign-in, or a secret is missing.
        CredentialsUnavailable: The sign-in failed, was refused, or took too long.
    """
    from seawall.identity.outbound.discovery import Discovery  # noqa: PLC0415
    from seawall.identity.outbound.login import log_in  # noqa: PLC0415
    from seawall.identity.outbound.login_file import LoginFile  # noqa: PLC0415

    if settings.grant != "login":
        raise ConfigError(f'{key}.grant: is "{settings.grant}"; "login" is signed in for')
    http, public = _mcp_clients(settings, key, _Upstream((url,), ca_file))
    try:
        login = await log_in(
            url,
            discovery=Discovery(
                url,
                settings.issuers,
                http=http,
                public=public,
                default_endpoints=settings.default_endpoints,
            ),
            configured=_configured_client(settings, key, environment),
            http=http,
            scope=settings.scope,
            show=show,
        )
    finally:
        await http.close()
        await public.close()
    file = LoginFile(settings.login_file)
    # A server that renews an earlier sign-in must not write that over this one.
    async with file.locked(deadline=asyncio.get_running_loop().time() + _LOCK_SECONDS):
        file.write(login)


def _subject_store(
    settings: SubjectStoreAuth, key: str, find: FindObject, environment: Mapping[str, str]
) -> OutboundCredentials:
    from seawall.identity.outbound.oauth import CachedTokens  # noqa: PLC0415
    from seawall.identity.outbound.subject_store import SubjectStore  # noqa: PLC0415
    from seawall.identity.outbound.tokens import TokenCache  # noqa: PLC0415
    from seawall.user_code import call_factory  # noqa: PLC0415

    http = endpoint = None
    if settings.token_url:
        http, endpoint = _endpoint(settings.refreshing(), key, environment)
    tokens = call_factory(
        find(settings.factory), settings.arguments, key=key, resolve=lambda _, value: value
    )
    source = SubjectStore(
        tokens,
        cache_seconds=settings.cache_seconds,
        call_seconds=settings.timeout_seconds,
        endpoint=endpoint,
        key=key,
    )
    return CachedTokens(source, TokenCache(fetch_seconds=settings.timeout_seconds), http)


def _endpoint(
    settings: OAuthClientAuth, key: str, environment: Mapping[str, str]
) -> "tuple[HttpClient, TokenEndpoint]":
    from seawall.identity.outbound.client import open_client  # noqa: PLC0415
    from seawall.identity.outbound.token_endpoint import TokenEndpoint  # noqa: PLC0415
    from seawall.transport.http_client import HttpClient  # noqa: PLC0415
    from seawall.transport.tls import tls_context  # noqa: PLC0415

    client = open_client(
        settings.client_id,
        settings.client_auth,
        secret_env=settings.client_secret_env,
        secret_file=settings.client_secret_file,
        key_file=settings.private_key_file,
        key_id=settings.key_id,
        key=key,
        environment=environment,
    )
    context = None
    if settings.token_url.startswith("https:"):
        context = tls_context(settings.ca_file, key=f"{key}.ca_file")
    http = HttpClient(max_connections=_MAX_CONNECTIONS, ssl_context=context)
    return http, TokenEndpoint(
        http, settings.token_url, client, assertion_audience=settings.assertion_audience
    )
