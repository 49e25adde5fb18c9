"""What both sides of MCP know: versions, capabilities, and the parts of results that are read.

Versions to 2025-11-25 begin with a handshake and may have sessions ("legacy"). 2026-07-28 has
neither: each request says who asks, and in which version ("modern").
"""

from typing import Any

import msgspec
from msgspec import Struct

from seawall.printable import printable
from seawall.tools.mcp.elicitation import Elicitations
from seawall.tools.mcp.jsonrpc import (
    Message,
    RpcError,
    encode_error,
    encode_result,
)

__all__ = [
    "LEGACY_VERSIONS",
    "MODERN_VERSION",
    "ClientOffer",
    "Discovered",
    "Initialized",
    "Server",
    "answer_request",
    "client_offer",
    "is_listing_change",
    "progress_of",
]

MODERN_VERSION = "2026-07-28"
LEGACY_VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")

_ELICITATION: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}}
_MAX_PROGRESS_CHARACTERS = 200


class _Feature(Struct, rename="camel", frozen=True):
    list_changed: bool = False


class Capabilities(Struct, frozen=True):
    """What a server offers; None for what it does not."""

    tools: _Feature | None = None
    resources: _Feature | None = None
    prompts: _Feature | None = None


class Server(Struct, frozen=True):
    """What a negotiation has found.

    Attributes:
        version: The protocol version of all further requests.
        capabilities: What the server offers.
    """

    version: str
    capabilities: Capabilities

    @property
    def modern(self) -> bool:
        """Whether there is neither a handshake nor a session."""
        return self.version == MODERN_VERSION

    @property
    def notifies(self) -> bool:
        """Whether it says when its tools have changed."""
        return self.capabilities.tools is not None and self.capabilities.tools.list_changed


class Discovered(Struct, rename="camel"):
    """The result of `server/discover`."""

    supported_versions: list[str]
    capabilities: Capabilities


class Initialized(Struct, rename="camel"):
    """The result of `initialize`."""

    protocol_version: str
    capabilities: Capabilities = Capabilities()


class ClientOffer(Struct, frozen=True):
    """How this client introduces itself.

    Attributes:
        info: Its name and version.
        meta: Of `_meta` of each request of a modern client.
        capabilities: Of the handshake of a legacy one.
    """

    info: dict[str, str]
    meta: dict[str, Any]
    capabilities: dict[str, Any]


def client_offer(elicitation: bool | None = None) -> ClientOffer:
    """How this client introduces itself to a server.

    A modern server's question comes as a result. A legacy server may send it on a stream that is
    not open, and then wait.

    Args:
        elicitation: Whether the server may ask the user: True, False, or None for a modern one.
    """
    from importlib.metadata import version  # noqa: PLC0415 - slow, once a server

    info = {"name": "seawall", "version": version("seawall")}
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN_VERSION,
        "io.modelcontextprotocol/clientInfo": info,
        "io.modelcontextprotocol/clientCapabilities": {} if elicitation is False else _ELICITATION,
    }
    return ClientOffer(info, meta, _ELICITATION if elicitation else {})


def is_listing_change(message: Message) -> bool:
    """Whether a notification says that a new listing of tools is worth making."""
    return message.method == "notifications/tools/list_changed"


class _Progress(Struct, rename="camel"):
    progress_token: int | str
    progress: float
    total: float | None = None
    message: str = ""


def progress_of(message: Message) -> tuple[int | str, str] | None:
    """What a notification says of the progress of a request, after its id; None for others."""
    if message.method != "notifications/progress":
        return None
    try:
        found = msgspec.json.decode(message.params, type=_Progress)
    except (msgspec.DecodeError, RecursionError):
        return None
    of = f" of {found.total:g}" if found.total is not None else ""
    said = printable(found.message[:_MAX_PROGRESS_CHARACTERS])  # it gets into the log
    text = f" ({said})" if said else ""
    return found.progress_token, f"{found.progress:g}{of}{text}"


def answer_request(message: Message, elicitations: Elicitations) -> bytes:
    """The answer to a request of a legacy server.

    Args:
        message: The request.
        elicitations: Of the call that the server asks for.
    """
    assert message.id is not None  # noqa: S101 - it is a request
    method = message.method or ""
    if method == "ping":
        return encode_result(message.id, {})
    try:
        return encode_result(message.id, elicitations.respond(method, message.params))
    except RpcError as error:
        return encode_error(message.id, error.code, error.message)
