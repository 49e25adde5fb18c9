"""A transport that sends an answer's head together with the first of its body."""

import asyncio
from typing import Any

__all__ = ["JoiningTransport"]


class JoiningTransport(asyncio.Transport):
    """Passes everything on to the transport behind it; only a head has to wait for its body.

    uvicorn writes the head by itself, and a write is a system call, for thousands at once a good
    part of the way to their first token. ASGI lets a server wait with the head until there is a
    body (https://asgi.readthedocs.io/en/stable/specs/www.html#response-start-send-event).
    """

    __slots__ = ("_behind", "_head")

    def __init__(self, behind: asyncio.Transport) -> None:
        self._behind = behind
        self._head = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See asyncio.WriteTransport."""
        if self._head:
            data = self._head + bytes(data)
            self._head = b""
        elif data[:5] == b"HTTP/" and data[9:10] != b"1" and data[-4:] == b"\r\n\r\n":
            self._head = bytes(data)  # not of an interim answer, which must go out
            return
        self._behind.write(data)

    def flush(self) -> None:
        """The answer is over: a head without a body must wait no longer."""
        if self._head:
            self._behind.write(self._head)
            self._head = b""

    def close(self) -> None:
        """See asyncio.BaseTransport."""
        self.flush()
        self._behind.close()

    def abort(self) -> None:
        """See asyncio.WriteTransport."""
        self._behind.abort()

    def is_closing(self) -> bool:
        """See asyncio.BaseTransport."""
        return self._behind.is_closing()

    def pause_reading(self) -> None:
        """See asyncio.ReadTransport."""
        self._behind.pause_reading()

    def resume_reading(self) -> None:
        """See asyncio.ReadTransport."""
        self._behind.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - as asyncio
        """See asyncio.BaseTransport."""
        return self._behind.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """See asyncio.BaseTransport."""
        self._behind.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """See asyncio.BaseTransport."""
        return self._behind.get_protocol()
