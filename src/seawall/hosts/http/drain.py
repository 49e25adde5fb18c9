"""The end of a server process, step by step, so that nobody's turn is lost.

Leave: `/readyz` says no, turns are still taken, and each answer closes its connection, so that the
balancer in front goes elsewhere. Close the listening sockets, empty. Finish what is in flight, up
to a deadline. End the rest, and tell whoever waits for it.
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
# Classic BPF over a TCP header: of its flags (byte 13) SYN without ACK is dropped, the rest passes
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
    stop: Shutdown,
    settings: ServerSettings,
) -> float:
    """From the first signal to the last answer; a second signal skips the waits.

    Returns:
        The deadline that was set to what is in flight, on the event loop's clock.
    """
    clock = asyncio.get_running_loop().time
    for connection in _connections(server):
        connection.announce_close()
    await stop.wait(settings.shutdown_delay_seconds)
    deadline = clock() + settings.drain_seconds
    await stop_listening(server.servers, listening)
    while not _is_idle(server) and clock() < deadline and not stop.immediate:
        _close_idle(server, clock() - _IDLE_SECONDS)
        await asyncio.sleep(_TICK_SECONDS)
    await _abandon(server, stop)
    return deadline


async def stop_listening(
    servers: Sequence[asyncio.base_events.Server], listening: Sequence[socket.socket]
) -> None:
    """Close the listening sockets without a loss.

    The kernel resets whoever is still in the queue of a socket that is closed. So first nobody
    new is let in: his first packet is dropped, and TCP sends it again after a second, when either
    another server has the port, or he is refused. Then the queues are emptied, as always by the
    event loop, and only then closed.
    """
    for each in listening:
        _drop_new_connections(each)
    await asyncio.sleep(_HANDSHAKE_SECONDS)  # those who are half in
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


def _drop_new_connections(listening: socket.socket) -> None:
    code = b"".join(struct.pack("HBBI", *each) for each in _DROP_SYN_FILTER)
    kept = ctypes.create_string_buffer(code)
    program = _Program(len(_DROP_SYN_FILTER), ctypes.addressof(kept))
    try:
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(program))
    except OSError as error:  # not Linux: who comes in this very moment is reset
        _log.debug("newcomers cannot be held off: %s", error)


async def _abandon(server: uvicorn.Server, stop: Shutdown) -> None:
    """Cancel what is left; it has a moment to say so."""
    tasks = list(server.server_state.tasks)
    if tasks:
        _log.warning("ending %d requests that are not done", len(tasks))
        stop.abandoning = True
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_FINAL_RESPONSE_SECONDS)
    for connection in _connections(server):
        if connection.answering:
            connection.transport.abort()  # who does not read cannot be told
        else:
            connection.transport.close()
    if left := list(server.server_state.tasks):
        await asyncio.wait(left, timeout=_FINAL_RESPONSE_SECONDS)


def _is_idle(server: uvicorn.Server) -> bool:
    return not (server.server_state.connections or server.server_state.tasks)


def _close_idle(server: uvicorn.Server, since: float) -> None:
    """Close whoever has not said anything since then; not at once: a request may be on its way."""
    for connection in _connections(server):
        if connection.idle_since is not None and connection.idle_since <= since:
            connection.transport.close()


def _connections(server: uvicorn.Server) -> list[HttpServerProtocol]:
    return cast("list[HttpServerProtocol]", list(server.server_state.connections))
