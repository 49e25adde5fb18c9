"""Settings of tools that live elsewhere: tables `[tools.NAME]` with `openapi`, `mcp` or `command`.

Imported only where such a table exists.
"""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct, field

from seawall.identity.outbound.settings import AuthSettings, NoAuth
from seawall.transport.http_client import Endpoint

__all__ = [
    "McpSettings",
    "OpenApiSettings",
    "OperationSettings",
    "SourceLimits",
    "SourceSettings",
    "TenantSource",
    "TenantTables",
    "TlsSettings",
]

_Seconds = Annotated[float, Meta(gt=0, le=600)]
_Count = Annotated[int, Meta(ge=1, le=100_000)]
_Share = Annotated[float, Meta(ge=0, le=1)]
_Name = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
_Header = Annotated[str, Meta(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$")]
_OWN_HEADERS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "expect", "upgrade", "te"}
    | {"trailer", "keep-alive", "proxy-connection"}
)
_CREDENTIALS = frozenset({"authorization", "proxy-authorization", "cookie"})


class SourceLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one upstream of tools is called. Numbers are of each process.

    Attributes:
        concurrency: Calls in flight at most.
        wait_seconds: Longest wait for a place among them; then the call is refused.
        rate_per_second: Calls begun a second; None for no limit.
        connect_seconds: Timeout for connecting, TLS included.
        answer_seconds: Timeout of one attempt. The agent's `tool_seconds` limits the whole call.
        attempts: Attempts at a read. A call that changes something is repeated only if it has
            certainly not arrived.
        backoff_seconds: Longest pause before the second attempt; doubles with each further one.
        retry_budget: Retries as a share of all calls.
        failure_rate: Share of failed calls in the window that opens the circuit breaker.
        window_seconds: Window of the circuit breaker.
        min_calls: Calls in the window below which it stays closed.
        open_seconds: How long it stays open at first.
        probes: Concurrent calls while it is half-open.
        list_seconds: Timeout of the listing of tools.
    """

    concurrency: _Count = 32
    wait_seconds: _Seconds = 1.0
    rate_per_second: Annotated[float, Meta(gt=0, le=100_000)] | None = None
    connect_seconds: _Seconds = 2.0
    answer_seconds: _Seconds = 8.0
    attempts: Annotated[int, Meta(ge=1, le=10)] = 2
    backoff_seconds: _Seconds = 0.2
    retry_budget: _Share = 0.1
    failure_rate: Annotated[float, Meta(gt=0, le=1)] = 0.5
    window_seconds: _Seconds = 10.0
    min_calls: _Count = 10
    open_seconds: _Seconds = 5.0
    probes: Annotated[int, Meta(ge=1, le=100)] = 2
    list_seconds: _Seconds = 10.0


class TlsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom to trust.

    Attributes:
        ca_file: Certificates of one's own authority; empty for those of the system.
    """

    ca_file: str = ""


class OperationSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is changed in one tool of a source; a key that is not set leaves the source's.

    Attributes:
        name: As models see it.
        description: For models.
        changes: Whether it changes something outside.
        select: JMESPath of the part of a result that a model gets.
        cache_seconds: How long a result may be reused for the same arguments and subject.
        shared: Whether it may be reused for every subject of every tenant.
    """

    name: _Name | None = None
    description: Annotated[str, Meta(min_length=1, max_length=8_192)] | None = None
    changes: bool | None = None
    select: Annotated[str, Meta(max_length=4_096)] | None = None
    cache_seconds: Annotated[float, Meta(gt=0, le=86_400)] | None = None
    shared: bool = False


class SourceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What OpenAPI documents and MCP servers have in common.

    Attributes:
        include: The tools that are taken: names, for OpenAPI also "tag:NAME" and "METHOD /path";
            "*" for all.
        prefix: Put before the names of all its tools.
        select: JMESPath of the part of results that models get, if the tool has none of its own.
        max_result_bytes: Of a result as a model gets it; what is cut is said.
        max_response_bytes: Of an answer as it comes; a longer one is an error.
        headers: Sent with every request.
        session_header: Header that carries the id of the session; empty for none.
        overrides: What is changed in single tools, by the source's name of them.
        limits: How it is called.
        auth: With whose credentials.
        tls: Whom to trust.
        pin: What happens to a tool that differs from the lock file, or is not in it: "refuse" (it
            is not offered), "report" (a warning) or "off". Without a lock file nothing is compared.
    """

    include: tuple[str, ...] = ()
    prefix: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{0,32}$")] = ""
    select: Annotated[str, Meta(max_length=4_096)] = ""
    max_result_bytes: Annotated[int, Meta(ge=256, le=1 << 20)] = 16_384
    max_response_bytes: Annotated[int, Meta(ge=1_024, le=64 << 20)] = 1 << 20
    headers: dict[_Header, str] = field(default_factory=dict)
    session_header: _Header | Literal[""] = ""
    overrides: dict[str, OperationSettings] = field(default_factory=dict)
    limits: SourceLimits = SourceLimits()
    auth: AuthSettings = NoAuth()
    tls: TlsSettings = TlsSettings()
    pin: Literal["refuse", "report", "off"] = "refuse"

    def __post_init__(self) -> None:
        for name, value in self.headers.items():
            if name.lower() in _CREDENTIALS:
                raise ValueError(
                    f"headers: {name} is a credential, which belongs into a table auth: "
                    'kind = "static" with secret_env or secret_file'
                )
            if name.lower() in _OWN_HEADERS:
                raise ValueError(f"headers: {name} is set by the client itself")
            if not value.isascii() or any(each < " " and each != "\t" for each in value):
                raise ValueError(f"headers: {name} must be ASCII without control characters")
        for name, each in self.overrides.items():
            if each.shared and each.cache_seconds is None:
                raise ValueError(f"overrides: {name}: shared needs cache_seconds")
            if each.changes and each.cache_seconds is not None:
                raise ValueError(f"overrides: {name}: only a read can be cached")


class TenantSource(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a tenant has of its own for one source.

    Attributes:
        auth: With whose credentials it is called for this tenant.
    """

    auth: AuthSettings


class TenantTables(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[tenants.NAME]`.

    Attributes:
        tools: What the tenant has of its own, by source.
    """

    tools: dict[str, TenantSource] = field(default_factory=dict)


class OpenApiSettings(SourceSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The operations of an OpenAPI document as tools.

    Attributes:
        openapi: The document: a file beside the configuration, or an https URL.
        base_url: Where the service is; empty for the first server of the document, which must then
            be an absolute https URL with a public address.
        key_header: Header that carries the idempotency key of a call that changes something; empty
            for none.
    """

    openapi: Annotated[str, Meta(min_length=1)]
    base_url: str = ""
    key_header: Annotated[str, Meta(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{0,128}$")] = (
        "Idempotency-Key"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.include:
            raise ValueError('include must name the operations that are offered; ["*"] for all')
        if self.openapi.startswith(("https://", "http://")):
            _check_url("openapi", self.openapi)
        if self.base_url:
            _check_url("base_url", self.base_url)
            if "?" in self.base_url:
                raise ValueError("base_url must have no query: paths follow it")
        elif type(self.auth) is not NoAuth:
            raise ValueError("auth needs base_url: no document says where credentials are sent")
        elif self.headers or self.session_header:
            raise ValueError("headers need base_url: no document says where they are sent")


class McpSettings(SourceSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tools of an MCP server.

    Attributes:
        mcp: URL of a server that speaks streamable HTTP; empty for `command`.
        command: A server to start, which speaks on its standard input and output.
        env_pass: Environment variables that it gets, beside PATH, HOME and the language.
        cwd: Its working folder; empty for that of the configuration.
        trust_annotations: Whether the server's word counts that a tool only reads.
        resources: Whether agents may list and read its resources.
        prompts: Whether agents may list and get its prompts.
        elicitation: Whether it may ask the user something, for which the turn pauses: None for a
            server of 2026-07-28 only, True for those of before too, whose calls are made again
            with the answer; False for none.
        redact_answers: Fields of its forms whose values are not shown in records; "*" for all.
    """

    mcp: str = ""
    command: tuple[str, ...] = ()
    env_pass: tuple[str, ...] = ()
    cwd: str = ""
    include: tuple[str, ...] = ("*",)
    trust_annotations: bool = False
    resources: bool = False
    prompts: bool = False
    elicitation: bool | None = None
    redact_answers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.mcp) == bool(self.command):
            raise ValueError("set exactly one of mcp and command")
        if self.mcp:
            _check_url("mcp", self.mcp)
        elif type(self.auth) is not NoAuth or self.headers:
            raise ValueError("a server that is started has no auth and no headers; use env_pass")


def _check_url(key: str, url: str) -> None:
    parts = urlsplit(url)
    if not parts.hostname or parts.username or parts.password or parts.fragment:
        raise ValueError(f"{key} must be an absolute URL without a user name or password")
    if parts.scheme not in ("https", "http"):
        raise ValueError(f"{key} must begin with https:// or http://")
    if not url.isascii():
        raise ValueError(f"{key} must be ASCII: a host as xn--…, the rest percent-encoded")
    try:
        Endpoint.parse(url)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
