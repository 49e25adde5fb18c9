"""Credentials opened from settings as a configuration has them."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from seawall.identity.outbound.open import open_credentials
from seawall.identity.outbound.port import OutboundCredentials
from seawall.identity.outbound.settings import AuthSettings
from seawall.turn import Principal
from seawall.user_code import find_object

ADA = Principal("acme", "ada")
BOB = Principal("acme", "bob")


def settings_of(table: Mapping[str, Any]) -> AuthSettings:
    """A table `[tools.NAME.auth]`."""
    settings: AuthSettings = msgspec.convert(table, AuthSettings)
    return settings


@asynccontextmanager
async def opened(
    table: Mapping[str, Any],
    *,
    address: str = "https://orders.example.com/v1",
    environment: Mapping[str, str] | None = None,
    ca_file: str = "",
    tenants: Mapping[str, Mapping[str, Any]] | None = None,
) -> AsyncGenerator[OutboundCredentials, None]:
    """Open them, and close them at the end."""
    credentials = open_credentials(
        settings_of(table),
        key="tools.orders.auth",
        addresses=[address],
        find=lambda reference: find_object(reference, (), key="tools.orders.auth.factory"),
        environment=environment or {},
        ca_file=ca_file,
        tenants={name: settings_of(each) for name, each in (tenants or {}).items()},
        tenant_key=lambda tenant: f"tenants.{tenant}.tools.orders.auth",
    )
    try:
        yield credentials
    finally:
        await credentials.close()


async def token(
    credentials: OutboundCredentials,
    principal: Principal | None = ADA,
    caller_token: str = "",
    *,
    seconds: float = 30.0,
) -> str:
    """The bearer token of a call."""
    deadline = asyncio.get_running_loop().time() + seconds
    ((name, value),) = await credentials.headers(principal, caller_token, deadline=deadline)
    assert name == b"authorization"
    assert value.startswith(b"Bearer ")
    return value.removeprefix(b"Bearer ").decode()
