"""Opens the driver's connections, and separates the driver's own limits from server failures."""

import asyncio
import errno
import os
import ssl
from collections import Counter
from collections.abc import Callable

from seawall.lab.surge.connection import Connection
from seawall.timers import Deadline, TimingWheel
from seawall.transport.http_client import Origin

__all__ = ["Connector", "NoConnection"]

_AT_ONCE = 4_096
_QUEUED_TOO_LONG = "no connection in time, while queued in the driver"
# Limits of the driver's machine: open files, local ports, socket memory.
_OWN_LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS})


class NoConnection(Exception):
    """No connection could be opened; the message is the reason."""


class Connector:
    """Connects to the addresses of a server in rotation.

    At most 4,096 connections are opened concurrently; further ones are queued.

    Attributes:
        opened: Connections opened so far.
        limits: Limits of the driver itself, with the number of turns that failed by each.
    """

    def __init__(self, origin: Origin, make: Callable[[], Connection], wheel: TimingWheel) -> None:
        self._origin = origin
        self._make = make
        self._wheel = wheel
        self._tls = ssl.create_default_context() if origin.secure else None
        self._addresses: list[str] = []
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self.opened = 0
        self.limits: Counter[str] = Counter()

    async def resolve(self) -> None:
        """Resolve the server's name.

        Raises:
            OSError: The name cannot be resolved.
        """
        origin = self._origin
        found = await asyncio.get_running_loop().getaddrinfo(origin.host, origin.port, type=1)
        self._addresses = list(dict.fromkeys(str(each[4][0]) for each in found))

    async def open(self, number: int, deadline: float, reached: Callable[[], None]) -> Connection:
        """Open a connection.

        Args:
            number: Of the turn; selects the address.
            deadline: On the event loop's clock.
            reached: Called when the turn leaves the driver's queue.

        Raises:
            NoConnection: None could be opened, or not in time.
        """
        queued = True
        try:
            async with Deadline(self._wheel, deadline), self._slots:
                queued = False
                reached()
                connection = await self._connect(number)
        except TimeoutError:
            if not queued:
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
        """Connect to an address; if that fails, to the next ones.

        Raises:
            OSError: All failed; of several reasons, preferably one that is not the driver's own.
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
            failure = None  # break the cycle with its traceback: the lab runs without gc
