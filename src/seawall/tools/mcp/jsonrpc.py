"""JSON-RPC 2.0 as MCP uses it: messages in both directions, and error codes."""

from typing import Any

import msgspec
from msgspec import Raw, Struct

__all__ = [
    "HEADER_MISMATCH",
    "INTERNAL_ERROR",
    "INVALID_PARAMS",
    "METHOD_NOT_FOUND",
    "UNSUPPORTED_VERSION",
    "URL_REQUIRED",
    "InvalidMessage",
    "Message",
    "RpcError",
    "decode",
    "encode_error",
    "encode_notification",
    "encode_request",
    "encode_result",
]

INVALID_PARAMS = -32602
METHOD_NOT_FOUND = -32601
INTERNAL_ERROR = -32603
HEADER_MISMATCH = -32020
UNSUPPORTED_VERSION = -32022
URL_REQUIRED = -32042

_MAX_BATCH = 100  # messages; only servers of 2025-03-26 send batches
_MAX_ERROR_CHARACTERS = 2_000


class InvalidMessage(Exception):
    """What a server sent is not a message of JSON-RPC 2.0."""


class RpcError(Exception):
    """The error with which a server answered a request.

    Attributes:
        code: As JSON-RPC and MCP define it.
        message: The server's text, or its beginning.
        data: As it came: JSON, or nothing.
    """

    def __init__(self, code: int, message: str, data: bytes = b"") -> None:
        self.code = code
        self.message = message[:_MAX_ERROR_CHARACTERS]
        super().__init__(self.message)
        self.data = data


class _Error(Struct):
    code: int
    message: str = ""
    data: Raw = Raw()


class Message(Struct):
    """A message of a server: a request, a notification, or the answer to a request.

    Attributes:
        jsonrpc: "2.0".
        id: Of the request; None in a notification, and where a server could not read it.
        method: Of a request or notification.
        params: Of a request or notification: JSON, or nothing.
        result: Of an answer: JSON, or nothing.
        error: Of an answer that is an error.
    """

    jsonrpc: str
    id: int | str | None = None
    method: str | None = None
    params: Raw = Raw()
    result: Raw = Raw()
    error: _Error | None = None

    @property
    def is_answer(self) -> bool:
        """Whether it answers a request of ours."""
        return self.method is None

    def outcome(self) -> Raw:
        """The result of an answer.

        Raises:
            RpcError: It is an error.
        """
        if self.error is not None:
            raise RpcError(self.error.code, self.error.message, bytes(self.error.data))
        return self.result


_messages = msgspec.json.Decoder(Message | list[Message])


def decode(data: bytes) -> list[Message]:
    """Decode what a server sent: a message, or a batch.

    Raises:
        InvalidMessage: It is neither.
    """
    try:
        # Parts that are decoded later are not looked into here; all of a message is text.
        data.isascii() or data.decode()
        found = _messages.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidMessage(str(error)) from None
    except RecursionError:
        raise InvalidMessage("it is nested too deeply") from None
    messages = found if isinstance(found, list) else [found]
    if len(messages) > _MAX_BATCH:
        raise InvalidMessage(f"a batch of more than {_MAX_BATCH} messages")
    for each in messages:
        if each.jsonrpc != "2.0":
            raise InvalidMessage(f"JSON-RPC {each.jsonrpc[:20]!r}")
        if each.is_answer and each.error is None and not each.result:
            raise InvalidMessage("neither a request nor an answer")
    return messages


def encode_request(number: int, method: str, params: dict[str, Any]) -> bytes:
    """A request."""
    return msgspec.json.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


def encode_notification(method: str, params: dict[str, Any] | None = None) -> bytes:
    """A notification."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if params:
        message["params"] = params
    return msgspec.json.encode(message)


def encode_result(number: int | str, result: dict[str, Any]) -> bytes:
    """The answer to a request of the server."""
    return msgspec.json.encode({"jsonrpc": "2.0", "id": number, "result": result})


def encode_error(number: int | str, code: int, text: str) -> bytes:
    """The error with which a request of the server is answered."""
    return msgspec.json.encode(
        {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": text}}
    )
