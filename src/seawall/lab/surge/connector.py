"""Opens the driver's connections, and tells what is the driver's own fault where it cannot."""

import asyncio
import errno
import os
import ssl
from collections import Counter
from collections.abc import Callable

from seawall.lab.surge.connection import Connection
from seawall.transport.http_client import Origin

__all__ = ["Connector", "NoConnection"]

_AT_ONCE = 4_096
_QUEUED_TOO_LONG = "no connection in time, while waiting in the driver's own line"
# Of the driver's machine: open files, its own ports, memory for sockets.
_OWN_LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS})


class NoConnection(Exception):
    """There is no connection; the text says why."""


class Connector:
    """Connects to all addresses of a server by turns.

    At most 4,096 connections are being made at once; the rest of the crowd stands in line.
    opened: connections so far. limits: the driver's own that turns failed by, and how many turns.
    """

    def __init__(self, origin: Origin, make: Callable[[], Connection]) -> None:
        self._origin = origin
        self._make = make
        self._tls = ssl.create_default_context() if origin.secure else None
        self._addresses: list[str] = []
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self.opened = 0
        self.limits: Counter[str] = Counter()

    async def resolve(self) -> None:
        """Look up the server's addresses.

        Raises:
            OSError: its name is not known.
        """
        origin = self._origin
        found = await asyncio.get_running_loop().getaddrinfo(origin.host, origin.port, type=1)
        self._addresses = list(dict.fromkeys(str(each[4][0]) for each in found))

    async def open(self, number: int, deadline: float, reached: Callable[[], None]) -> Connection:
        """A connection for the turn with this number, by `deadline` on the event loop's clock.

        reached: called once it is no longer in the driver's line.

        Raises:
            Unconnected: there is none, by then or at all.
        """
        in_line = True
        try:
            async with asyncio.timeout_at(deadline), self._slots:
                in_line = False
                reached()
                connection = await self._connect(number)
        except TimeoutError:
            if not in_line:
                raise NoConnection("no connection in time") from None
            reached()
            self.limits[_QUEUED_TOO_LONG] += 1
            raise NoConnection(_QUEUED_TOO_LONG) from None
        except OSError as error:
            if error.errno not in _OWN_LIMITS:
                raise NoConnection(f"cannot connect: {error.strerror or error}") from None
            reason = f"cannot connect: {os.strerror(error.errno)}"
            self.limits[reason] += 1
            raise NoConnection(reason) from None
        self.opened += 1
        return connection

    async def _connect(self, number: int) -> Connection:
        """Where one address does not take it, the next ones are tried.

        Raises:
            OSError: none does; if there are several reasons, one that is not the driver's own.
        """
        loop = asyncio.get_running_loop()
        failure: OSError | None = None
        for attempt in range(len(self._addresses)):
            try:
                _, connection = await loop.create_connection(
                    self._make,
                    self._addresses[(number + attempt) % len(self._addresses)],
                    self._origin.port,
                    ssl=self._tls,
                    server_hostname=self._origin.host if self._tls else None,
                )
            except OSError as error:
                if failure is None or failure.errno in _OWN_LIMITS:
                    failure = error
            else:
                return connection
        try:
            raise failure or OSError("the server has no address")
        finally:
            failure = None  # its traceback holds this frame, and nobody collects cycles here
