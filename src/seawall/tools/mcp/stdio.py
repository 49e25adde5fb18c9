"""The way to a server that is a child process, over its standard streams.

The process is kept running: it starts with the first request, and again, after a pause that grows,
whenever it ends. Requests of all turns are in progress on it at a time. It has no session and no
subject: what it does, it does with its own rights.
"""

import asyncio
import logging
import os
import random
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from ctypes import CDLL
from subprocess import SubprocessError
from typing import Any

from msgspec import Raw

from seawall.resilience import full_jitter
from seawall.tools.mcp.jsonrpc import encode_notification
from seawall.tools.mcp.negotiation import negotiate
from seawall.tools.mcp.protocol import Server, client_offer
from seawall.tools.mcp.stdio_channel import Channel
from seawall.tools.mcp.wire import MAX_MESSAGE_BYTES, Request
from seawall.tools.port import ToolContext
from seawall.tools.upstream import UpstreamFault

__all__ = ["StdioWire", "child_environment"]

_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
_START_SECONDS = 60.0  # `npx` and `uvx` download what they start
_PROBE_SECONDS = 5.0
_EXIT_SECONDS = 1.0  # at the end of its input; then after SIGTERM
_LAST_WORDS_SECONDS = 0.2
_FIRST_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 30.0
_STEADY_SECONDS = 60.0  # a process that lived longer was in order
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

_log = logging.getLogger("seawall.tools.mcp")


def child_environment(environment: Mapping[str, str], passed: Sequence[str]) -> dict[str, str]:
    """The environment of a server: what programs need to run, and what is passed on to it.

    Args:
        environment: Of this process.
        passed: Names of further variables.
    """
    return {name: environment[name] for name in (*_ENVIRONMENT, *passed) if name in environment}


class StdioWire:
    """The way to one server; see `wire.Wire`."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        name: str,
        environment: Mapping[str, str],
        folder: str,
        limit: int = MAX_MESSAGE_BYTES,
        elicitation: bool | None = None,
    ) -> None:
        """Create it; nothing is started before it is used.

        Args:
            command: The program and its arguments; without a shell.
            name: Of the source, for the log.
            environment: All of the server's environment.
            folder: Its working folder.
            limit: Bytes of one message of the server.
            elicitation: Whether the server may ask the user; None for a modern one only.
        """
        self._command = tuple(command)
        self._name = name
        self._environment = dict(environment)
        self._folder = folder
        self._limit = limit
        self._offer = client_offer(elicitation)
        self._changed: Callable[[], None] | None = None
        self._running: asyncio.Task[None] | None = None
        self._closed = False
        # The process that runs, that is starting (a future that is not done), or the reason why
        # there is none.
        self._channel: asyncio.Future[tuple[Channel, Server]] | None = None

    async def open(self, *, deadline: float) -> Server:
        """See `Wire.open`."""
        _, server = await self._ready(deadline)
        return server

    async def request(
        self,
        request: Request,
        *,
        context: ToolContext | None,  # noqa: ARG002 - the process serves all subjects alike
        deadline: float,
    ) -> Raw:
        """See `Wire.request`."""
        channel, server = await self._ready(deadline)
        meta = {**self._offer.meta, **request.meta} if server.modern else request.meta
        return await channel.call(
            request.method, request.params, meta, request.elicitations, deadline=deadline
        )

    def subscribe(self, changed: Callable[[], None]) -> None:
        """See `Wire.subscribe`."""
        self._changed = changed

    async def close(self) -> None:
        """Stop the process."""
        self._closed = True
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._have_none("it was stopped")

    async def _ready(self, deadline: float) -> tuple[Channel, Server]:
        if self._closed:
            raise UpstreamFault("unreachable", "it was stopped")
        if self._running is None:
            self._channel = asyncio.get_running_loop().create_future()
            self._running = asyncio.create_task(self._keep_running())
        assert self._channel is not None  # noqa: S101 - set above
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.shield(self._channel)
        except TimeoutError:
            raise UpstreamFault("unreachable", "it has not started yet") from None
        except UpstreamFault as fault:  # a new one each time: it gets a traceback
            raise UpstreamFault(fault.kind, fault.detail, sent=False) from None

    async def _keep_running(self) -> None:
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            began = loop.time()
            reason = await self._run_once(again=attempt > 0)
            attempt = 1 if loop.time() - began > _STEADY_SECONDS else attempt + 1
            pause = _FIRST_PAUSE_SECONDS + full_jitter(
                attempt,
                base=_FIRST_PAUSE_SECONDS,
                cap=_MAX_PAUSE_SECONDS,
                chance=random.random(),  # noqa: S311 - a pause
            )
            _log.warning("%s: %s; it is started again in %.1f s", self._name, reason, pause)
            self._have_none(reason)
            await asyncio.sleep(pause)
            self._channel = loop.create_future()

    def _have_none(self, reason: str) -> None:
        """Let requests fail, those that wait and those to come, until there is another process."""
        if self._channel is None or self._channel.done():
            self._channel = asyncio.get_running_loop().create_future()
        self._channel.set_exception(UpstreamFault("unreachable", reason))
        self._channel.exception()  # it may well be that nothing asks for it

    async def _run_once(self, *, again: bool) -> str:
        """Start the process and wait for its end; return why it ended."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=self._limit,
                env=self._environment,
                cwd=self._folder,
                start_new_session=True,
                preexec_fn=_ending_with_parent(),
            )
        except (OSError, ValueError, SubprocessError) as error:
            return f"it cannot be started: {error}"
        channel = Channel(process, self._name, self._limit, self._listing_changed)
        reading = asyncio.create_task(channel.read())
        try:
            async with asyncio.timeout(_START_SECONDS):
                server = await negotiate(_Link(channel), self._offer)
            assert self._channel is not None  # noqa: S101 - set before this was called
            if not self._channel.done():
                self._channel.set_result((channel, server))
            if again:
                self._listing_changed()  # it may be another version of the program by now
            if server.modern and server.notifies:
                channel.listen(self._offer.meta)
            exited = asyncio.create_task(process.wait())
            await asyncio.wait((reading, exited), return_when=asyncio.FIRST_COMPLETED)
            exited.cancel()
            await _exit_of(process)
        except TimeoutError:
            return f"it did not answer within {_START_SECONDS:g} s of its start"
        except UpstreamFault as fault:
            await _exit_of(process)
            return f"{fault.detail}{_status(process)}"
        else:
            return f"{channel.reason or 'it has ended'}{_status(process)}"
        finally:
            channel.end("it was stopped")
            reading.cancel()
            await _stop(process)
            await asyncio.gather(reading, return_exceptions=True)

    def _listing_changed(self) -> None:
        if self._changed is not None:
            self._changed()


class _Link:
    """Negotiates with a process; see `negotiation.Link`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def send(self, method: str, params: dict[str, Any], version: str) -> Raw:  # noqa: ARG002 - in the message
        loop = asyncio.get_running_loop()
        probing = method == "server/discover"
        seconds = _PROBE_SECONDS if probing else _START_SECONDS
        try:
            return await self._channel.call(method, params, deadline=loop.time() + seconds)
        except UpstreamFault as fault:
            if fault.kind == "late" and probing:  # many servers leave unknown requests unanswered
                raise UpstreamFault("broken", fault.detail) from None
            raise

    async def notify(self, method: str, version: str) -> None:  # noqa: ARG002 - in the message
        self._channel.write(encode_notification(method))


async def _exit_of(process: asyncio.subprocess.Process) -> None:
    """Wait for the end of a process that has closed its output, or may have."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WORDS_SECONDS):
            await process.wait()


def _status(process: asyncio.subprocess.Process) -> str:
    return f", with status {process.returncode}" if process.returncode else ""


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End a process and all that it has started: the end of its input, SIGTERM, SIGKILL."""
    try:
        if process.stdin is not None:
            process.stdin.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(TimeoutError):
                async with asyncio.timeout(_EXIT_SECONDS):
                    await process.wait()
                return
            _signal(process, number)
        await process.wait()
    finally:
        _signal(process, signal.SIGKILL)
        # Unread output keeps the pipes open; asyncio has no public way to close them.
        process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001
        await asyncio.sleep(0)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _ending_with_parent() -> Callable[[], None] | None:
    """Has the kernel end a child together with this process; None where it cannot."""
    if sys.platform != "linux":
        return None
    control = CDLL(None).prctl
    parent = os.getpid()

    def before() -> None:
        control(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:  # it has already ended
            os._exit(1)

    return before
