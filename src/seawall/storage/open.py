"""Open the session store that the settings name: the only module that chooses the adapter."""

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from seawall.errors import ConfigError
from seawall.settings import SessionSettings
from seawall.storage.port import SessionStore

__all__ = [
    "AUDIT_KEEP_SECONDS",
    "open_memory_store",
    "open_store",
    "parse_store_name",
    "require_existing_store",
    "store_name",
]

AUDIT_KEEP_SECONDS = 400 * 86_400.0

_NAMED_BY = {"sqlite": "path", "dynamodb": "table"}


async def open_store(
    settings: SessionSettings,
    environment: Mapping[str, str] = os.environ,
    *,
    read_only: bool = True,
    audit_keep_seconds: float = AUDIT_KEEP_SECONDS,
) -> SessionStore:
    """Open the store that the settings name; what is missing is created, if it is configured so.

    Args:
        settings: Which store.
        environment: Where AWS's region and credentials are found.
        read_only: Accept a store that is not writable.
        audit_keep_seconds: How long audit records are kept.

    Raises:
        ConfigError: the settings are wrong, or the store is not writable.
        StoreUnavailable: it cannot be reached.
    """
    store: SessionStore
    if settings.store == "dynamodb":
        store = _dynamodb(settings, environment, audit_keep_seconds)
    else:
        from seawall.storage.sqlite.store import SqliteStore  # noqa: PLC0415 - see _dynamodb

        store = SqliteStore(
            settings.path,
            lease_seconds=settings.lease_seconds,
            read_only=read_only,
            audit_keep_seconds=audit_keep_seconds,
        )
    try:
        await store.open()
    except BaseException:
        await store.close()
        raise
    return store


def _dynamodb(
    settings: SessionSettings, environment: Mapping[str, str], audit_keep_seconds: float
) -> SessionStore:
    # Only if it is configured: every import makes the start slower.
    from seawall.aws import CredentialsError, find_region  # noqa: PLC0415
    from seawall.aws.credential_cache import CredentialCache, default_chain  # noqa: PLC0415
    from seawall.aws.dynamodb import CallLimits, DynamoDBClient  # noqa: PLC0415
    from seawall.storage.dynamodb.store import DynamoDBStore  # noqa: PLC0415
    from seawall.transport.http_client import HttpClient  # noqa: PLC0415

    try:
        region = find_region(environment, settings.region)
    except (ValueError, CredentialsError) as error:
        raise ConfigError(f"sessions.region: {error}") from error
    if not region:
        raise ConfigError("sessions.region: not set, neither here nor as AWS_REGION")
    http = HttpClient(max_connections=settings.connections)
    if settings.ca_file:
        from seawall.transport.http_client import Endpoint  # noqa: PLC0415
        from seawall.transport.tls import tls_context  # noqa: PLC0415

        context = tls_context(settings.ca_file, key="sessions.ca_file")
        http.trust(Endpoint.parse(settings.endpoint).origin, context)
    credentials = CredentialCache(default_chain(environment, http, region=region))

    async def close() -> None:
        await credentials.close()
        await http.close()

    return DynamoDBStore(
        DynamoDBClient(
            http,
            credentials,
            region=region,
            endpoint=settings.endpoint,
            limits=CallLimits(connections=settings.connections),
        ),
        settings.table,
        create=settings.create_table,
        keep_seconds=settings.ttl_seconds,
        lease_seconds=settings.lease_seconds,
        closing=close,
        audit_keep_seconds=audit_keep_seconds,
    )


@asynccontextmanager
async def open_memory_store() -> AsyncGenerator[SessionStore, None]:
    """An empty store in memory, open while the block runs."""
    from seawall.storage.sqlite.store import SqliteStore  # noqa: PLC0415 - only for warm-up

    name = f"file:seawall-{os.urandom(8).hex()}?mode=memory&cache=shared"
    store = SqliteStore(name, uri=True)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def require_existing_store(settings: SessionSettings) -> None:
    """For commands that only read: opening would create the database.

    Raises:
        ConfigError: there is no such store yet.
    """
    if settings.store == "sqlite" and not Path(settings.path).is_file():
        raise ConfigError(f"sessions.path: there is no database {settings.path}")


def store_name(settings: SessionSettings) -> str:
    """The store that the settings name, as one text: the same text, the same store."""
    if settings.store == "dynamodb":
        return f"dynamodb:{settings.endpoint or settings.region}:{settings.table}"
    return f"sqlite:{Path(settings.path).resolve()}"


def parse_store_name(name: str, base: SessionSettings) -> SessionSettings:
    """The settings of a store named as KIND or KIND:NAME.

    Args:
        name: Such as `sqlite:seawall.db`.
        base: The remaining settings.

    Raises:
        ConfigError: there is no such kind of store.
    """
    kind, colon, rest = name.partition(":")
    changed: dict[str, object] = {"store": kind}
    if colon and kind in _NAMED_BY:
        changed[_NAMED_BY[kind]] = rest
    try:
        return msgspec.convert(msgspec.structs.asdict(base) | changed, SessionSettings)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{name!r} names no store: it must be sqlite, sqlite:PATH, dynamodb, "
            "dynamodb:TABLE, or a configuration file that ends in .toml"
        ) from error
