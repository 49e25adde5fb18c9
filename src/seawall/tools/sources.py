"""Opening of configured sources: their connections, credentials and adapters."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from seawall.errors import ConfigError
from seawall.identity.outbound.open import open_credentials
from seawall.identity.outbound.settings import AuthSettings, NoAuth, is_by_subject, resolve_files
from seawall.tools.catalog import Source, ToolCatalog
from seawall.tools.pins import LOCK_FILE, read_pins
from seawall.tools.remote_http import RemoteHttp
from seawall.tools.settings import McpSettings, OpenApiSettings, SourceSettings, TenantTables
from seawall.tools.upstream import Payer, ToolUpstream
from seawall.transport.http_client import HttpClient
from seawall.transport.tls import tls_context
from seawall.turn import Principal
from seawall.user_code import find_object

if TYPE_CHECKING:
    from seawall.tools.mcp.wire import Wire
    from seawall.tools.remote import ToolSource

__all__ = ["open_catalog"]

_MORE_CONNECTIONS = 8  # for what is no call: listings, cancellations, streams of changes


def open_catalog(
    settings: Mapping[str, SourceSettings],
    *,
    folder: str,
    environment: Mapping[str, str],
    tenants: Mapping[str, TenantTables] = MappingProxyType({}),
    taken: frozenset[str] = frozenset(),
    stateless: bool = False,
) -> ToolCatalog:
    """The catalog of all configured sources; nothing is listed yet.

    Args:
        settings: Tables `[tools.NAME]`, by name.
        folder: That of the configuration, where paths start.
        environment: Environment variables, for secrets.
        tenants: Tables `[tenants.NAME]`, by name.
        taken: Names of other tools.
        stateless: Whether the process may be frozen or ended after each turn, so that servers that
            are started, or keep a session, cannot be used.

    Raises:
        ConfigError: Something that is configured cannot be used.
    """
    sources = []
    for name, each in settings.items():
        own = {
            tenant: table.tools[name].auth
            for tenant, table in tenants.items()
            if name in table.tools
        }
        opened = _open(name, each, folder, environment, own, stateless=stateless)
        upstream = ToolUpstream(name, each.limits, payer=_payer(each.auth, own))
        sources.append(Source(name, each, opened, upstream))
    return ToolCatalog(tuple(sources), read_pins(Path(folder, LOCK_FILE)), taken)


def _payer(
    common: AuthSettings, own: Mapping[str, AuthSettings]
) -> Callable[[Principal | None], Payer]:
    """With whose credentials a source is called; `own` are those of tenants."""
    by_subject = {tenant: is_by_subject(auth) for tenant, auth in own.items()}
    others = is_by_subject(common)

    def payer(principal: Principal | None) -> Payer:
        if principal is None:
            return None
        if by_subject.get(principal.tenant, others):
            return principal
        return principal.tenant if principal.tenant in by_subject else None

    return payer


def _open(
    name: str,
    settings: SourceSettings,
    folder: str,
    environment: Mapping[str, str],
    tenants: Mapping[str, AuthSettings],
    *,
    stateless: bool,
) -> "ToolSource":
    """The source of a table; each adapter is imported where it is configured."""
    key = f"tools.{name}"

    def beside(_: str, value: str) -> str:
        return str(Path(folder, value))

    def connect(
        *urls: str, auth: AuthSettings, public_only: bool = False, document: bool = False
    ) -> RemoteHttp:
        ca_file = settings.tls.ca_file and beside("", settings.tls.ca_file)
        credentials = open_credentials(
            resolve_files(auth, beside),
            key=f"{key}.auth",
            addresses=urls,
            find=lambda reference: find_object(reference, (folder,), key=f"{key}.auth.factory"),
            environment=environment,
            ca_file=ca_file,
            tenants={tenant: resolve_files(each, beside) for tenant, each in tenants.items()},
            tenant_key=lambda tenant: f"tenants.{tenant}.{key}.auth",
        )
        # A server with sessions asks on a stream beside that of the call.
        asks = isinstance(settings, McpSettings) and settings.elicitation is True
        secure = ca_file or not all(each.startswith("http://") for each in urls)
        client = HttpClient(
            max_connections=settings.limits.concurrency * (1 + asks) + _MORE_CONNECTIONS,
            connect_seconds=settings.limits.connect_seconds,
            ssl_context=tls_context(ca_file, key=f"{key}.tls.ca_file") if secure else None,
            public_only=public_only,
        )
        headers = [
            (name.lower().encode(), each.encode())
            for name, each in settings.headers.items()
            if not document
        ]
        return RemoteHttp(
            client,
            allowed=urls,
            credentials=credentials,
            headers=headers,
            session_header=settings.session_header,
            max_response_bytes=settings.max_response_bytes,
        )

    if isinstance(settings, OpenApiSettings):
        from seawall.tools.openapi.source import OpenApiSource  # noqa: PLC0415

        at = (settings.base_url,) if settings.base_url else ()
        is_remote = settings.openapi.startswith(("https://", "http://"))
        return OpenApiSource(
            name,
            settings,
            folder=Path(folder),
            http=connect(*at, auth=settings.auth, public_only=not (at or is_remote)),
            # The document may be on another server, which must not get credentials and headers.
            documents=(
                connect(settings.openapi, auth=NoAuth(), document=True) if is_remote else None
            ),
        )
    assert isinstance(settings, McpSettings)  # noqa: S101 - there is no other kind
    from seawall.tools.mcp.source import McpSource  # noqa: PLC0415

    if settings.command:
        if stateless:
            raise ConfigError(
                f"{key}.command: a server that is started cannot run in a function; use a server "
                "that speaks HTTP without sessions"
            )
        from seawall.tools.mcp.stdio import (  # noqa: PLC0415
            StdioWire,
            child_environment,
        )

        wire: Wire = StdioWire(
            settings.command,
            name=name,
            environment=child_environment(environment, settings.env_pass),
            folder=str(Path(folder, settings.cwd)),
            limit=settings.max_response_bytes,
            elicitation=settings.elicitation,
        )
    else:
        from seawall.tools.mcp.http import HttpWire  # noqa: PLC0415

        wire = HttpWire(
            connect(settings.mcp, auth=settings.auth),
            settings.mcp,
            name=name,
            limit=settings.max_response_bytes,
            stateless=stateless,
            elicitation=settings.elicitation,
        )
    return McpSource(name, wire, settings)
