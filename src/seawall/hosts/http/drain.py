"""Graceful shutdown of a server process, so that no turn is lost.

Announce: `/readyz` fails, turns are still accepted, and each response closes its connection, so
that the load balancer goes elsewhere. Close the listening sockets once their queues are empty.
Drain: wait for turns in flight, up to a deadline. Abandon the rest with an error to the client.
"""

import asyncio
import ctypes
import logging
import select
import socket
import struct
from collections.abc import Sequence
from typing import cast

import uvicorn

from seawall.config import ServerSettings
from seawall.hosts.http.protocol import HttpServerProtocol
from seawall.hosts.http.shutdown import Shutdown

__all__ = ["drain", "stop_listening"]

_log = logging.getLogger("seawall.server")

_TICK_SECONDS = 0.02
_HANDSHAKE_SECONDS = 0.1
_EMPTY_SECONDS = 10.0
_IDLE_SECONDS = 1.0
_FINAL_RESPONSE_SECONDS = 2.0
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
# Classic BPF over a TCP header: drops SYN without ACK (flags are byte 13), passes everything else
# (https://docs.kernel.org/networking/filter.html). As (code, jump if true, if false, value).
_DROP_SYN_FILTER = (
    (0x30, 0, 0, 13),  # load the byte
    (0x54, 0, 0, 0x12),  # and SYN | ACK
    (0x15, 0, 1, 0x02),  # equal to SYN?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # keep
)


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


async def drain(
    server: uvicorn.Server,
    listening: Sequence[socket.socket],
    shutdown: Shutdown,
    settings: ServerSettings,
) -> float:
    """Shut the server down, from the first signal to the last response.

    Args:
        server: Whose requests and connections are drained.
        listening: Its listening sockets.
        shutdown: Requested already; if requested again, waits are skipped.
        settings: Its `shutdown_delay_seconds` and `drain_seconds` apply.

    Returns:
        The drain deadline, on the event loop's clock.
    """
    clock = asyncio.get_running_loop().time
    for connection in _connections(server):
        connection.announce_close()
    await shutdown.wait(settings.shutdown_delay_seconds)
    deadline = clock() + settings.drain_seconds
    await stop_listening(server.servers, listening)
    while not _is_idle(server) and clock() < deadline and not shutdown.immediate:
        _close_idle(server, clock() - _IDLE_SECONDS)
        await asyncio.sleep(_TICK_SECONDS)
    await _abandon(server, shutdown)
    return deadline


async def stop_listening(
    servers: Sequence[asyncio.base_events.Server], listening: Sequence[socket.socket]
) -> None:
    """Close the listening sockets without resetting connections in their queues.

    The kernel resets connections that are in the queue of a socket when it is closed. So first
    the SYN packets of new connections are dropped; TCP sends them again after a second, when
    another server has the port or the connection is refused. Then the event loop accepts what is
    in the queues, and only then the sockets are closed.
    """
    _drop_new_connections(listening)
    await asyncio.sleep(_HANDSHAKE_SECONDS)  # for handshakes in progress
    waiting = select.poll()
    for each in listening:
        waiting.register(each, select.POLLIN)
    clock = asyncio.get_running_loop().time
    latest = clock() + _EMPTY_SECONDS
    while waiting.poll(0) and clock() < latest:  # noqa: ASYNC110 - the event loop accepts them
        await asyncio.sleep(_TICK_SECONDS / 4)
    for server in servers:
        server.close()
    for each in listening:
        each.close()


def _drop_new_connections(listening: Sequence[socket.socket]) -> None:
    code = b"".join(struct.pack("HBBI", *each) for each in _DROP_SYN_FILTER)
    buffer = ctypes.create_string_buffer(code)
    program = bytes(_Program(len(_DROP_SYN_FILTER), ctypes.addressof(buffer)))
    try:
        for each in listening:
            each.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    except OSError as error:  # not Linux: connections made at this moment are reset
        _log.debug("new connections cannot be dropped: %s", error)


async def _abandon(server: uvicorn.Server, shutdown: Shutdown) -> None:
    """Cancel the requests that are left; each has a moment to send an error."""
    tasks = list(server.server_state.tasks)
    if tasks:
        _log.warning("abandoning %d requests that are not complete", len(tasks))
        shutdown.abandoning = True
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_FINAL_RESPONSE_SECONDS)
    for connection in _connections(server):
        if connection.answering:
            connection.transport.abort()  # the client is not reading
        else:
            connection.transport.close()
    if left := list(server.server_state.tasks):
        await asyncio.wait(left, timeout=_FINAL_RESPONSE_SECONDS)


def _is_idle(server: uvicorn.Server) -> bool:
    return not (server.server_state.connections or server.server_state.tasks)


def _close_idle(server: uvicorn.Server, since: float) -> None:
    """Close connections idle since then; not at once: a request may be on its way."""
    for connection in _connections(server):
        if connection.idle_since is not None and connection.idle_since <= since:
            connection.transport.close()


def _connections(server: uvicorn.Server) -> list[HttpServerProtocol]:
    return cast("list[HttpServerProtocol]", list(server.server_state.connections))
