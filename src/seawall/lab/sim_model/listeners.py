"""The simulated model's listening sockets: opened, closed for an outage, opened again."""

import asyncio
import socket
from collections.abc import Callable
from typing import Self

__all__ = ["Listeners"]

_LISTENERS = 256
_BACKLOG = 4_096


class Listeners:
    """Sockets on one port; several, because an event loop takes one connection of each a round.

    A further socket holds the port and never listens, so that nobody takes it in an outage.
    """

    def __init__(self, host: str, port: int, protocol: Callable[[], asyncio.Protocol]) -> None:
        self._host = host
        self._protocol = protocol
        self._servers: list[asyncio.Server] = []
        self._reserving_socket = socket.socket()
        self._reserving_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserving_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            self._reserving_socket.bind((host, port))
        except OSError:
            self._reserving_socket.close()
            raise
        self.port = int(self._reserving_socket.getsockname()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._reserving_socket.close()

    @property
    def listening(self) -> bool:
        """Whether connections are accepted."""
        return bool(self._servers)

    async def open(self) -> None:
        """Accept connections."""
        loop = asyncio.get_running_loop()
        for _ in range(_LISTENERS):
            listener = socket.create_server(
                (self._host, self.port), reuse_port=True, backlog=_BACKLOG
            )
            server = await loop.create_server(self._protocol, sock=listener, backlog=_BACKLOG)
            self._servers.append(server)

    def close(self) -> None:
        """Refuse connections; those that are open stay."""
        for server in self._servers:
            server.close()
        self._servers.clear()
