"""Settings of outbound credentials: the tables `[tools.NAME.auth]`, distinguished by `kind`."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from msgspec import Meta, Struct, field, structs

__all__ = [
    "AUTH_KINDS",
    "AuthSettings",
    "ClientCredentialsAuth",
    "McpAuth",
    "NoAuth",
    "OAuthClientAuth",
    "PassThroughAuth",
    "StaticAuth",
    "SubjectStoreAuth",
    "TokenExchangeAuth",
    "is_by_subject",
    "is_loopback",
    "is_protected",
    "resolve_files",
]

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
_ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name

ClientAuth = Literal["client_secret_basic", "client_secret_post", "private_key_jwt", "none"]
_Name = Annotated[str, Meta(min_length=1, max_length=1_024)]
_Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class NoAuth(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="none"):
    """No credentials."""


class StaticAuth(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="static"
):
    """The same secret for all calls.

    Attributes:
        secret_env: Environment variable with the secret.
        secret_file: File with it, instead; read again when it changes.
        header: The header that carries it.
        scheme: Stands before the secret in the header; empty for nothing.
        username: With it, the header is HTTP Basic of this name and the secret.
        query: The parameter of the query that carries it, instead of a header.
        cookie: The cookie that carries it, instead of a header.
    """

    secret_env: str = ""
    secret_file: str = ""
    header: Annotated[str, Meta(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")] = "authorization"
    scheme: Annotated[str, Meta(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]*\Z")] = "Bearer"
    username: str = ""
    query: Annotated[str, Meta(pattern=r"^[!-~]{0,128}\Z")] = ""
    cookie: Annotated[str, Meta(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{0,128}\Z")] = ""

    def __post_init__(self) -> None:
        """Check where the secret is, what carries it, and the name."""
        _check_one("secret_env", self.secret_env, "secret_file", self.secret_file)
        in_header = self.header != "authorization" or self.scheme != "Bearer" or self.username
        if bool(self.query) + bool(self.cookie) + bool(in_header) > 1:
            raise ValueError("set one of query, cookie, and header with scheme and username")
        if ":" in self.username or not self.username.isprintable():
            raise ValueError("username must be printable and have no colon (RFC 7617)")


class OAuthClientAuth(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """This server as a client of an OAuth authorization server.

    Attributes:
        token_url: The token endpoint.
        client_id: Of this server.
        client_auth: How the client authenticates; RFC 7591 §2 has the names.
        client_secret_env: Environment variable with its secret.
        client_secret_file: File with it, instead; read again when it changes.
        private_key_file: PEM file with its private key, for `private_key_jwt`: RSA, P-256 or
            Ed25519; read again when it changes.
        key_id: `kid` of that key; empty for none.
        assertion_audience: `aud` of the client's assertions; empty for `token_url`.
        scope: Scopes that are asked for, with spaces between them.
        audience: For whom tokens are asked for (`audience`); empty for none.
        resource: The same as a URL (`resource`, RFC 8707); empty for none.
        parameters: More parameters of the request.
        timeout_seconds: For one request.
        ca_file: Certificates of the authorities that are trusted; empty for those of the system.
    """

    token_url: _Name
    client_id: _Name
    client_auth: ClientAuth = "client_secret_basic"
    client_secret_env: str = ""
    client_secret_file: str = ""
    private_key_file: str = ""
    key_id: str = ""
    assertion_audience: str = ""
    scope: str = ""
    audience: str = ""
    resource: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    timeout_seconds: _Seconds = 5.0
    ca_file: str = ""

    def __post_init__(self) -> None:
        """Check the address, and what the way of authentication needs."""
        _check_url("token_url", self.token_url)
        _check_client(
            self.client_auth, self.client_secret_env, self.client_secret_file, self.private_key_file
        )
        if self.ca_file and not self.token_url.startswith("https:"):
            raise ValueError("ca_file has no effect: token_url is not https")
        if reserved := _RESERVED & self.parameters.keys():
            raise ValueError(f"parameters: {min(reserved)} has a key of its own")


_RESERVED = frozenset(
    {
        *("grant_type", "client_id", "client_secret", "client_assertion", "scope"),
        *("client_assertion_type", "audience", "resource", "subject_token", "subject_token_type"),
        *("actor_token", "actor_token_type", "requested_token_type", "refresh_token", "code"),
    }
)


class ClientCredentialsAuth(
    OAuthClientAuth, frozen=True, kw_only=True, tag_field="kind", tag="client-credentials"
):
    """Tokens of this server itself (RFC 6749 §4.4): all subjects of a tenant share one."""


class TokenExchangeAuth(
    OAuthClientAuth, frozen=True, kw_only=True, tag_field="kind", tag="token-exchange"
):
    """The caller's token, exchanged for one that the upstream accepts (RFC 8693).

    Attributes:
        subject_token_type: What the caller's token is said to be.
        requested_token_type: What is asked for; empty for the authorization server's choice.
        actor_token_env: Environment variable with a token of the actor, this server.
        actor_token_file: File with it, instead; read again when it changes. Empty for no actor.
        actor_token_type: What it is.
    """

    subject_token_type: _Name = _ACCESS_TOKEN_TYPE
    requested_token_type: str = ""
    actor_token_env: str = ""
    actor_token_file: str = ""
    actor_token_type: _Name = _JWT_TYPE

    def __post_init__(self) -> None:
        """Check the actor, and what every client needs."""
        super().__post_init__()
        if self.actor_token_env and self.actor_token_file:
            raise ValueError("actor_token_file: actor_token_env is set already")


class SubjectStoreAuth(
    Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="subject-store",
):
    """Tokens that the application keeps for each subject.

    Attributes:
        factory: `module:function`; returns a `SubjectTokens`.
        arguments: Of the factory.
        cache_seconds: How long a token is used before it is looked up again.
        timeout_seconds: For one look-up or refresh.
        token_url: Where tokens that come with a refresh token are refreshed; empty for nowhere.
        client_id: See `OAuthClientAuth`; like the following, for refreshing only.
        client_auth: See there.
        client_secret_env: See there.
        client_secret_file: See there.
        private_key_file: See there.
        key_id: See there.
        assertion_audience: See there.
        ca_file: See there.
    """

    factory: Annotated[str, Meta(pattern=r"^[^:]+:[^:]+\Z")]
    arguments: dict[str, Any] = field(default_factory=dict)
    cache_seconds: _Seconds = 60.0
    timeout_seconds: _Seconds = 5.0
    token_url: str = ""
    client_id: str = ""
    client_auth: ClientAuth = "client_secret_basic"
    client_secret_env: str = ""
    client_secret_file: str = ""
    private_key_file: str = ""
    key_id: str = ""
    assertion_audience: str = ""
    ca_file: str = ""

    def __post_init__(self) -> None:
        """Check what refreshing needs."""
        if self.token_url:
            self.refreshing()
        elif self.client_id or self.ca_file:
            raise ValueError("token_url: is needed to refresh tokens")

    def refreshing(self) -> OAuthClientAuth:
        """The client that refreshes tokens."""
        names = {each.name for each in structs.fields(OAuthClientAuth)}
        return OAuthClientAuth(
            **{name: value for name, value in structs.asdict(self).items() if name in names}
        )


class PassThroughAuth(
    Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="pass-through",
):
    """The caller's own token, unchanged.

    Attributes:
        audience: One of the token's `aud` has to be this; no token is sent that is for others.
        addresses: Where it may be sent, such as `https://orders.example.com`: origins, of which the
            upstream's has to be one.
    """

    audience: _Name
    addresses: Annotated[tuple[str, ...], Meta(min_length=1)]

    def __post_init__(self) -> None:
        """Check the addresses."""
        for each in self.addresses:
            _check_url("addresses", each)
            parts = urlsplit(each)
            if parts.path not in ("", "/") or parts.query or parts.fragment:
                raise ValueError(f"addresses: {each} must be an origin: scheme, host and port")


class McpAuth(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="mcp"
):
    """What an MCP server asks for when it refuses a request: found by its metadata.

    Attributes:
        issuers: Authorization servers that may be used; without any, the one that the server
            names, if its address is public or the server's own. Needed where a client secret or
            callers' tokens are sent, which no server may choose the place for.
        grant: How tokens are obtained: as this server, by exchange of the caller's token, or by
            the refresh token of a person who has signed in with `seawall tools login`.
        client_id: Of this server; empty where it may be registered (RFC 7591). An https URL is
            that of a client metadata document.
        client_auth: See `OAuthClientAuth`; empty for the best that both know.
        client_secret_env: See there.
        client_secret_file: See there.
        private_key_file: See there.
        key_id: See there.
        scope: Scopes that are asked for; empty for those that the server names.
        login_file: Where `seawall tools login` keeps the client and its refresh token.
        default_endpoints: Whether a server that has no metadata at all, as 2025-03-26 allowed, is
            its own authorization server, at /authorize, /token and /register.
        timeout_seconds: For one request.
        ca_file: See there.
    """

    issuers: tuple[str, ...] = ()
    grant: Literal["client-credentials", "token-exchange", "login"] = "client-credentials"
    client_id: str = ""
    client_auth: ClientAuth | Literal[""] = ""
    client_secret_env: str = ""
    client_secret_file: str = ""
    private_key_file: str = ""
    key_id: str = ""
    scope: str = ""
    login_file: str = ""
    default_endpoints: bool = False
    timeout_seconds: _Seconds = 5.0
    ca_file: str = ""

    def __post_init__(self) -> None:
        """Check the keys against each other."""
        for each in self.issuers:
            _check_url("issuers", each)
        if self.client_auth:
            _check_client(
                self.client_auth,
                self.client_secret_env,
                self.client_secret_file,
                self.private_key_file,
            )
        secret = self.client_secret_env or self.client_secret_file
        if self.client_secret_env and self.client_secret_file:
            raise ValueError("client_secret_file: client_secret_env is set already")
        if (secret or self.private_key_file) and not self.client_id:
            raise ValueError("client_id: is needed with a secret or a private key")
        if not self.issuers and (secret or self.grant == "token-exchange"):
            raise ValueError(
                "issuers: name the authorization server that client secrets and callers' tokens "
                "may be sent to"
            )
        if (self.grant == "login") != bool(self.login_file):
            raise ValueError('login_file: is needed for grant = "login", and for nothing else')


AuthSettings = (
    NoAuth
    | StaticAuth
    | ClientCredentialsAuth
    | TokenExchangeAuth
    | SubjectStoreAuth
    | PassThroughAuth
    | McpAuth
)


AUTH_KINDS: dict[str, type[Struct]] = {
    str(kind.__struct_config__.tag): kind for kind in get_args(AuthSettings)
}
"""The settings of each `kind`."""


def is_by_subject(auth: AuthSettings) -> bool:
    """Whether each subject is called for with credentials of its own, or may be."""
    if isinstance(auth, McpAuth):
        return auth.grant == "token-exchange"
    return isinstance(auth, TokenExchangeAuth | SubjectStoreAuth | PassThroughAuth)


def resolve_files(settings: AuthSettings, at: Callable[[str, str], str]) -> AuthSettings:
    """The settings with other paths.

    Args:
        settings: Of one upstream.
        at: Makes a path of a key and its value.
    """
    paths = {
        each.name: at(each.name, value)
        for each in structs.fields(settings)
        if each.name.endswith("_file") and (value := getattr(settings, each.name))
    }
    return structs.replace(settings, **paths)


def is_loopback(url: str) -> bool:
    """Whether the host of a URL is this machine."""
    return urlsplit(url).hostname in _LOOPBACK


def is_protected(url: str) -> bool:
    """Whether what is sent to a URL cannot be read on its way: https, or loopback."""
    if not url.isprintable() or " " in url:
        return False  # some of it would be dropped, or control a terminal
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    if not parts.hostname or parts.username or parts.password or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url))


def _check_url(key: str, url: str) -> None:
    if not is_protected(url):
        raise ValueError(
            f"{key}: {url} must be https without user name and fragment; "
            "http is for this machine only"
        )


def _check_one(first: str, given: str, second: str, also_given: str) -> None:
    if bool(given) == bool(also_given):
        raise ValueError(f"set exactly one of {first} and {second}")


def _check_client(auth: str, secret_env: str, secret_file: str, key_file: str) -> None:
    if auth.startswith("client_secret"):
        _check_one("client_secret_env", secret_env, "client_secret_file", secret_file)
    elif secret_env or secret_file:
        raise ValueError(f'client_auth: "{auth}" has no client_secret')
    if (auth == "private_key_jwt") != bool(key_file):
        raise ValueError('private_key_file: is needed for "private_key_jwt", and for nothing else')
