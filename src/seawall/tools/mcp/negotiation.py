"""Find out which version of the protocol a server speaks.

`server/discover` comes first: only a modern server understands it. Whatever else a server answers,
it is asked again with the handshake of older versions.
"""

from typing import Any, Protocol

import msgspec
from msgspec import Raw, Struct

from seawall.tools.mcp.jsonrpc import UNSUPPORTED_VERSION, RpcError
from seawall.tools.mcp.protocol import (
    LEGACY_VERSIONS,
    MODERN_VERSION,
    ClientOffer,
    Discovered,
    Initialized,
    Server,
)
from seawall.tools.upstream import UpstreamFault

__all__ = ["Link", "discover", "initialize", "negotiate"]


_ATTEMPTS = 2


class Link(Protocol):
    """A way to a server whose version is not known yet."""

    async def send(self, method: str, params: dict[str, Any], version: str) -> Raw:
        """Send a request; `version` is empty before one is agreed. Returns its result.

        Raises:
            RpcError: The server answered with an error.
            UpstreamFault: It did not answer, or not in JSON-RPC.
        """
        ...

    async def notify(self, method: str, version: str) -> None:
        """Send a notification."""
        ...


class _Supported(Struct):
    supported: list[str]


async def negotiate(link: Link, offer: ClientOffer) -> Server:
    """Agree on a version.

    Args:
        link: The way to the server.
        offer: Of this client.

    Raises:
        UpstreamFault: The server cannot be reached, or there is no common version.
    """
    found = await discover(link, offer.meta)
    if found is not None:
        return found
    try:
        return await initialize(link, offer)
    except RpcError as error:
        # A modern server that was too slow for the first question names its versions now.
        supported = _supported(error)
        if supported is not None and MODERN_VERSION in supported:
            found = await discover(link, offer.meta)
            if found is not None:
                return found
        detail = f"the handshake was refused: {error.code} {error.message}"
        raise UpstreamFault("broken", detail) from None


async def discover(link: Link, meta: dict[str, Any]) -> Server | None:
    """Ask as a modern client; None if the server is not a modern one.

    Args:
        link: The way to the server.
        meta: Of modern requests.

    Raises:
        UpstreamFault: The server cannot be reached, or there is no common version.
    """
    for _ in range(_ATTEMPTS):
        try:
            result = await link.send("server/discover", {"_meta": meta}, MODERN_VERSION)
            found = msgspec.json.decode(result, type=Discovered)
        except RpcError as error:
            supported = _supported(error)
            if supported is not None and MODERN_VERSION in supported:
                continue  # it refuses what it names: another instance of it, most likely
            if supported is not None and not set(supported) & set(LEGACY_VERSIONS):
                versions = ", ".join(supported)[:200]
                raise UpstreamFault("broken", f"it speaks only MCP {versions}") from None
            return None
        except UpstreamFault as fault:
            if fault.kind in ("failed", "broken"):
                return None
            raise
        except (msgspec.DecodeError, RecursionError):
            return None
        if MODERN_VERSION not in found.supported_versions:
            return None
        return Server(MODERN_VERSION, found.capabilities)
    raise UpstreamFault("broken", f"it refuses MCP {MODERN_VERSION}, which it says it speaks")


async def initialize(link: Link, offer: ClientOffer) -> Server:
    """The handshake of legacy versions.

    Args:
        link: The way to the server.
        offer: Of this client.

    Raises:
        RpcError: The server refuses it.
        UpstreamFault: The server cannot be reached, or there is no common version.
    """
    params = {
        "protocolVersion": LEGACY_VERSIONS[0],
        "capabilities": offer.capabilities,
        "clientInfo": offer.info,
    }
    result = await link.send("initialize", params, "")
    try:
        found = msgspec.json.decode(result, type=Initialized)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UpstreamFault("broken", f"the result of initialize is invalid: {error}") from None
    if found.protocol_version not in LEGACY_VERSIONS:
        version = found.protocol_version[:40]
        raise UpstreamFault("broken", f"it speaks MCP {version!r}, which this client does not")
    await link.notify("notifications/initialized", found.protocol_version)
    return Server(found.protocol_version, found.capabilities)


def _supported(error: RpcError) -> list[str] | None:
    """The versions that an error names; None if it is not about versions."""
    if error.code != UNSUPPORTED_VERSION:
        return None
    try:
        return msgspec.json.decode(error.data, type=_Supported).supported
    except (msgspec.DecodeError, RecursionError):
        return None
