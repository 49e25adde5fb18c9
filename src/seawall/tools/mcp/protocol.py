"""What both sides of MCP know: versions, capabilities, and the parts of results that are read.

Versions to 2025-11-25 begin with a handshake and may have sessions ("legacy"). 2026-07-28 has
neither: each request says who asks, and in which version ("modern").
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from seawall.printable import printable
from seawall.tools.mcp.jsonrpc import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    Message,
    RpcError,
    encode_error,
    encode_result,
)

__all__ = [
    "LEGACY_CAPABILITIES",
    "LEGACY_VERSIONS",
    "MODERN_VERSION",
    "Discovered",
    "Initialized",
    "Server",
    "answer_request",
    "client_info",
    "decline",
    "is_listing_change",
    "modern_meta",
    "progress_of",
]

MODERN_VERSION = "2026-07-28"
LEGACY_VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")

# No person can be asked while a call runs, so a server's question is declined. To a modern server
# elicitation is offered nevertheless: its question comes as a result, and is passed on to the
# model. A legacy server may send its question on a stream that is not open, and then wait.
_MODERN_CAPABILITIES: dict[str, Any] = {"elicitation": {"form": {}}}
LEGACY_CAPABILITIES: dict[str, Any] = {}

_MAX_QUESTION_CHARACTERS = 1_000
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


class _Elicitation(Struct):
    message: str = ""
    mode: str = "form"


def client_info() -> dict[str, str]:
    """Name and version of this client, as it introduces itself."""
    from importlib.metadata import version  # noqa: PLC0415 - slow, once a server

    return {"name": "seawall", "version": version("seawall")}


def modern_meta(info: dict[str, str]) -> dict[str, Any]:
    """What each request of a modern client carries in `_meta`."""
    return {
        "io.modelcontextprotocol/protocolVersion": MODERN_VERSION,
        "io.modelcontextprotocol/clientInfo": info,
        "io.modelcontextprotocol/clientCapabilities": _MODERN_CAPABILITIES,
    }


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


def decline(method: str, params: Raw, asked: list[str]) -> dict[str, Any]:
    """Decline what a server asks for while a call runs.

    Args:
        method: What it asks for.
        params: JSON, or nothing.
        asked: Receives its question, for the model.

    Raises:
        RpcError: This client does not offer it.
    """
    if method != "elicitation/create":
        raise RpcError(METHOD_NOT_FOUND, f"{method[:80]} is not offered by this client")
    try:
        question = msgspec.json.decode(params, type=_Elicitation)
    except (msgspec.DecodeError, RecursionError):
        raise RpcError(INVALID_PARAMS, "invalid parameters") from None
    asked.append(question.message[:_MAX_QUESTION_CHARACTERS])
    return {"action": "decline"}


def answer_request(message: Message, asked: list[str]) -> bytes:
    """The answer to a request of a legacy server; see `decline`."""
    assert message.id is not None  # noqa: S101 - it is a request
    method = message.method or ""
    if method == "ping":
        return encode_result(message.id, {})
    try:
        return encode_result(message.id, decline(method, message.params, asked))
    except RpcError as error:
        return encode_error(message.id, error.code, error.message)
