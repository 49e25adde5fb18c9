"""Messages of the Model Context Protocol over HTTP: versions, JSON-RPC envelopes, headers.

Version 2026-07-28 is stateless: each request names its version and what its client can do in
`_meta`, and repeats parts of itself in headers (https://modelcontextprotocol.io/specification/
2026-07-28/basic/transports/streamable-http). The versions before begin with a handshake
(`initialize`), whose outcome the client repeats in a header.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from seawall.errors import InvalidRequest
from seawall.hosts.http.bodies import decode

__all__ = [
    "HANDSHAKE_VERSIONS",
    "INTERNAL_ERROR",
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "METHOD_NOT_FOUND",
    "REQUEST_CANCELLED",
    "VERSIONS",
    "Message",
    "Rejected",
    "RequestId",
    "read_message",
]

STATELESS_VERSION = "2026-07-28"
HANDSHAKE_VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26")
VERSIONS = (STATELESS_VERSION, *HANDSHAKE_VERSIONS)

PARSE_ERROR = -32_700
INTERNAL_ERROR = -32_603
REQUEST_CANCELLED = -32_800  # as the protocol's own SDK answers
INVALID_REQUEST = -32_600
METHOD_NOT_FOUND = -32_601
INVALID_PARAMS = -32_602
HEADER_MISMATCH = -32_020
UNSUPPORTED_VERSION = -32_022

_VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
_CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"
_NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}

RequestId = int | str

_decoder = msgspec.json.Decoder()
_encoded = re.compile(r"=\?base64\?(.*)\?=\Z")


class Message(Struct, frozen=True, kw_only=True):
    """A message of a client.

    Attributes:
        kind: A response is an answer to a request of the server, which sends none.
        stateless: Whether its version is the stateless one.
        id: Of a request.
        method: Of a request or a notification.
        params: Empty if there are none.
        meta: The member `_meta` of the parameters.
    """

    kind: Literal["request", "notification", "response"]
    stateless: bool
    id: RequestId | None = None
    method: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def progress_token(self) -> RequestId | None:
        """With what notifications of progress are marked; None if the client wants none."""
        token = self.meta.get("progressToken")
        return token if _is_id(token) else None

    @property
    def elicits(self) -> set[str]:
        """What its client can put before its user for the result: "form", "url"; or nothing."""
        if not (self.stateless and self.kind == "request"):
            return set()
        elicitation = self.meta[_CAPABILITIES_KEY].get("elicitation")
        if not isinstance(elicitation, dict):
            return set()
        return {"form", "url"} & elicitation.keys() if elicitation else {"form"}


class Rejected(Exception):
    """A message that is answered with a JSON-RPC error.

    Attributes:
        code: Of the error.
        status: Of the HTTP response.
        id: Of the request, if it could be read.
        data: More about it; None for nothing.
    """

    def __init__(
        self,
        code: int,
        message: str,
        *,
        status: int = 400,
        id: RequestId | None = None,  # noqa: A002 - its name in the protocol
        data: object = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.id = id
        self.data = data


def read_message(body: bytes, headers: Mapping[bytes, bytes]) -> Message:
    """Read and check a message.

    Args:
        body: Of the HTTP request.
        headers: Names in lower case.

    Raises:
        Rejected: It is not a message of a supported version.
    """
    read = _read_object(body)
    identifier: RequestId | None = read.get("id")
    method, params = read["method"], read["params"]
    meta = params.get("_meta", {})
    if not isinstance(meta, dict):
        raise Rejected(INVALID_PARAMS, "params._meta must be an object.", id=identifier)
    version = headers.get(b"mcp-protocol-version", b"2025-03-26").decode("latin-1")
    stateless = _VERSION_KEY in meta or version not in HANDSHAKE_VERSIONS
    kind: Literal["request", "notification", "response"] = "request"
    if not method:
        kind = "response"
        if stateless or not ("result" in read or "error" in read):
            raise Rejected(INVALID_REQUEST, "The message has no method.", id=identifier)
    elif identifier is None:
        kind = "notification"
        if stateless:
            _check_version(version, None)
    elif stateless:
        _check_request(headers, identifier, method, params, meta)
    return Message(
        kind=kind, stateless=stateless, id=identifier, method=method, params=params, meta=meta
    )


def _read_object(body: bytes) -> dict[str, Any]:
    """The JSON-RPC object, with a method (empty for none), parameters, and an id if it has one."""
    try:
        read = decode(_decoder, body)
    except InvalidRequest as problem:
        raise Rejected(PARSE_ERROR, problem.detail) from problem
    if not isinstance(read, dict):
        raise Rejected(INVALID_REQUEST, "The body must be one JSON-RPC message, not a batch.")
    if "id" in read and not _is_id(read["id"]):
        raise Rejected(INVALID_REQUEST, "The id must be a string or an integer.")
    read = {"method": "", "params": {}, **read}
    typed = isinstance(read["method"], str) and isinstance(read["params"], dict)
    if read.get("jsonrpc") != "2.0" or not typed:
        message = "The body must be a JSON-RPC 2.0 message with a method, and an object as params."
        raise Rejected(INVALID_REQUEST, message, id=read.get("id"))
    return read


def _check_request(
    headers: Mapping[bytes, bytes],
    identifier: RequestId,
    method: str,
    params: Mapping[str, Any],
    meta: Mapping[str, Any],
) -> None:
    """Check what the stateless version demands of a request."""
    version = meta.get(_VERSION_KEY)
    if not isinstance(version, str) or not isinstance(meta.get(_CAPABILITIES_KEY), dict):
        message = f"params._meta must have {_VERSION_KEY} and {_CAPABILITIES_KEY}."
        raise Rejected(INVALID_PARAMS, message, id=identifier)
    expected = [("MCP-Protocol-Version", version), ("Mcp-Method", method)]
    named = params.get(_NAMED[method]) if method in _NAMED else None
    if named is not None:
        expected.append(("Mcp-Name", named))
    for header, value in expected:
        sent = headers.get(header.lower().encode())
        if sent is None or _header_value(sent, encodable=header == "Mcp-Name") != value:
            message = f"The header {header} must be sent, and equal what the body says."
            raise Rejected(HEADER_MISMATCH, message, id=identifier)
    _check_version(version, identifier)


def _check_version(version: str, identifier: RequestId | None) -> None:
    if version != STATELESS_VERSION:
        raise Rejected(
            UNSUPPORTED_VERSION,
            "Unsupported protocol version",
            id=identifier,
            data={"supported": VERSIONS, "requested": version},
        )


def _header_value(sent: bytes, *, encodable: bool) -> str | None:
    """The value of a header, which may be in base64; None if it cannot be decoded."""
    value = sent.decode("latin-1").strip(" \t")
    found = _encoded.match(value) if encodable else None
    if found is None:
        return value
    try:
        return base64.b64decode(found[1], validate=True).decode()
    except (binascii.Error, ValueError):
        return None


def _is_id(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)
