"""Server worker: one process with uvicorn, an orchestrator and a graceful shutdown."""

import asyncio
import contextlib
import functools
import gc
import itertools
import logging
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Generator, MutableSequence
from concurrent.futures import ThreadPoolExecutor
from errno import EADDRINUSE
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
from msgspec import structs

from seawall.admission.gate import sample_load
from seawall.config import ServerSettings
from seawall.errors import ConfigError, SeawallError
from seawall.hosts.http.app import HttpApplication
from seawall.hosts.http.connection_limits import ConnectionLimits
from seawall.hosts.http.drain import drain
from seawall.hosts.http.non_turn_limiter import NonTurnLimiter
from seawall.hosts.http.pre_admission import PreAdmissionCheck
from seawall.hosts.http.protocol import HttpServerProtocol
from seawall.hosts.http.shutdown import Shutdown
from seawall.hosts.http.warmup import warm_up
from seawall.hosts.watchdogs import EventLoopWatchdog, ExitDeadline, run_loop
from seawall.orchestrator import Orchestrator
from seawall.timers import TimingWheel
from seawall.turn import TurnReport
from seawall.user_code import find_object

if TYPE_CHECKING:
    from seawall.console.service import ConsoleService

__all__ = [
    "COMPLETED",
    "FAILED",
    "IN_FLIGHT",
    "MIN_FROZEN_SECONDS",
    "TurnCounts",
    "load_orchestrator",
    "open_listeners",
    "raise_file_limit",
    "reserve_port",
    "run_worker",
]

COMPLETED, FAILED, IN_FLIGHT = range(3)
TurnCounts = MutableSequence[int]
"""Turns completed and failed so far, and those in flight when the shutdown was requested."""

_log = logging.getLogger("seawall.server")
_BACKLOG = 4_096
_LISTENERS = 256
# Kernel buffers of a connection, which could grow to 32 MiB: for the response to a slow reader, and
# for requests that are not read yet.
_UNSENT_BYTES = 32_768
_UNREAD_BYTES = 131_072
# Thousands of turns in flight are a large heap, and turns leave almost no reference cycles: the
# default of a collection after every 700 allocations would traverse it all the time.
_COLLECT_EVERY = 200_000
_COLLECT_SECONDS = 30
_MAX_TURNS_FOR_COLLECTION = 256  # a full collection takes about 15 ms then
_DEADLINE_TICK = 0.05
_KEEP_ALIVE_SECONDS = 75  # longer than the 60 s of the usual load balancers
_HEARTBEAT_SECONDS = 0.5
_DATE_SECONDS = 1.0
MIN_FROZEN_SECONDS = 2.0
"""Several heartbeats: with less, an ordinary delay would count as frozen."""
_BLOCKED_SECONDS = 5.0
_EXIT_GRACE_SECONDS = 8.0  # for the end of the process after its drain deadline
_PORT_RETRY_SECONDS = 3.0  # until workers whose supervisor was killed have closed the port


class _Server(uvicorn.Server):
    """uvicorn without its signal handling: a requested shutdown exits with status 0.

    Its main loop wakes once a second to renew the header Date, where uvicorn's would ten times.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._exit = asyncio.Event()

    def exit(self) -> None:
        """Have `serve` end."""
        self.should_exit = True
        self._exit.set()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DATE_SECONDS):
                    await self._exit.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def load_orchestrator(source: str) -> Orchestrator:
    """Load an orchestrator.

    Args:
        source: A configuration file, or `module:name` of an Orchestrator made in code.

    Raises:
        ConfigError: There is none.
    """
    if source.endswith(".toml"):
        return Orchestrator.from_config(source)
    module, colon, name = source.partition(":")
    if not (colon and name.isidentifier() and all(map(str.isidentifier, module.split(".")))):
        raise ConfigError(f"{source}: is neither a file that ends in .toml nor module:name")
    found = find_object(source, (str(Path.cwd()),), key="serve")
    if not isinstance(found, Orchestrator):
        raise ConfigError(f"{source}: is a {type(found).__name__}, not a seawall.Orchestrator")
    return found


def raise_file_limit() -> int:
    """Raise the limit of open files to the system's; a turn in flight needs two.

    Returns:
        The limit.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def reserve_port(settings: ServerSettings) -> socket.socket:
    """Bind the port without listening, so that the workers' sockets can share it.

    Raises:
        ConfigError: The address cannot be used, for example because another server uses it.
    """
    # Sockets that share a port bind in any case, so try first with one that does not share.
    latest = time.monotonic() + _PORT_RETRY_SECONDS
    while True:
        try:
            _bind(settings, settings.port, shared=False).close()
        except ConfigError as error:
            in_use = isinstance(error.__cause__, OSError) and error.__cause__.errno == EADDRINUSE
            if not in_use or time.monotonic() > latest:
                raise
            time.sleep(_PORT_RETRY_SECONDS / 30)
        else:
            return _bind(settings, settings.port, shared=True)


def open_listeners(settings: ServerSettings, port: int) -> list[socket.socket]:
    """Open the listening sockets of a worker; the kernel distributes connections over them.

    The event loop accepts one connection for each listening socket in a pass, and under load a
    pass is long. With one socket the last of 5,000 connections waited seven seconds to be
    accepted, on a server that answered within one.

    Args:
        settings: Their host is used.
        port: The reserved port.
    """
    return [_bind(settings, port, shared=True) for _ in range(_LISTENERS)]


def _bind(settings: ServerSettings, port: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UNREAD_BYTES)
    if lowat := getattr(socket, "TCP_NOTSENT_LOWAT", 0):  # accepted connections inherit it
        bound.setsockopt(socket.IPPROTO_TCP, lowat, _UNSENT_BYTES)
    try:
        bound.bind((settings.host, port))
    except OSError as error:
        bound.close()
        raise ConfigError(
            f"server: cannot listen on {settings.host}:{port}: {error.strerror}"
        ) from error
    return bound


def run_worker(
    orchestrator: Orchestrator,
    sockets: list[socket.socket],
    *,
    on_ready: Callable[[], None],
    all_ready: Callable[[], bool],
    on_shutdown: Callable[[], None] = lambda: None,
    on_heartbeat: Callable[[], None] = lambda: None,
    skip_waits: Callable[[], bool] | None = None,
    parent: int | None = None,
    index: int | None = None,
    counts: TurnCounts | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT, then drain turns in flight up to the drain deadline.

    The process ends some seconds after that deadline, even if a tool or a library hangs.

    Args:
        orchestrator: Not open yet.
        sockets: Bound, and not listening yet.
        on_ready: Called once, when turns are accepted.
        all_ready: Whether all workers of the server are ready.
        on_shutdown: Called once, when the shutdown is requested.
        on_heartbeat: Called regularly by the event loop while the worker is ready.
        skip_waits: Whether a signal after the first skips the waits; every one does if not given.
        parent: Id of the supervisor; the worker shuts down when it ends.
        index: Index of the worker, if there are several.
        counts: Of turns; updated continuously.

    Returns:
        The exit status: 0 after a requested shutdown.

    Raises:
        ConfigError: The worker could not start.
    """
    worker = _Worker(
        orchestrator,
        sockets,
        files=raise_file_limit(),
        on_ready=on_ready,
        all_ready=all_ready,
        on_shutdown=on_shutdown,
        on_heartbeat=on_heartbeat,
        skip_waits=skip_waits,
        parent=parent,
        index=index,
        counts=counts,
    )
    status = run_loop(worker.serve(), worker.exit, fast=True)
    if worker.exit.armed:  # the process is ending, and the closed loop has removed its handlers
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
    return status


class _Worker:
    def __init__(
        self,
        orchestrator: Orchestrator,
        sockets: list[socket.socket],
        *,
        files: int,
        on_ready: Callable[[], None],
        all_ready: Callable[[], bool],
        on_shutdown: Callable[[], None],
        on_heartbeat: Callable[[], None],
        skip_waits: Callable[[], bool] | None,
        parent: int | None,
        index: int | None,
        counts: TurnCounts | None,
    ) -> None:
        from seawall.telemetry.metrics import Metrics  # noqa: PLC0415 - reads its environment

        self._orchestrator = orchestrator
        self._sockets = sockets
        self._on_ready = on_ready
        self._on_shutdown = on_shutdown
        self._on_heartbeat = on_heartbeat
        self._signals = 0
        self._skip_waits = skip_waits or (lambda: self._signals > 1)
        self._shutdown = Shutdown()
        self.exit = ExitDeadline()
        self._parent = parent
        self._counts: TurnCounts = [0, 0, 0] if counts is None else counts
        self._ready = False
        self._console: ConsoleService | None = None
        self._metrics = Metrics(index)
        self._scraper = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        orchestrator.observe(self._metrics.observe)
        orchestrator.observe(self._count)
        settings = orchestrator.settings.server
        self._index = index
        self._application = HttpApplication(
            orchestrator,
            all_ready=lambda: self._ready and all_ready(),
            scrape=self._scrape,
            manage_lifespan=False,
            shutdown=self._shutdown,
            in_worker=True,
        )
        config = uvicorn.Config(
            self._application.answer,
            interface="asgi3",
            http=functools.partial(  # type: ignore[arg-type]
                HttpServerProtocol,
                limits=settings,
                wheel=TimingWheel(_DEADLINE_TICK),
                shutdown=self._shutdown,
                pre_admission=PreAdmissionCheck(orchestrator),
                connection_limits=ConnectionLimits(settings, files),
                non_turn_limiter=NonTurnLimiter(
                    lambda: orchestrator.ready and orchestrator.engine.gate.in_flight > 0
                ),
            ),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=1,  # drain.py has done it before
        )
        self._server = _Server(config)

    async def serve(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._request_shutdown)
            # Python's own handler is called in addition, even while the loop is blocked.
            signal.signal(number, self._on_signal)
        failure: SeawallError | None = None
        deadline = loop.time()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._server.serve(sockets=self._sockets))
            opened = False
            try:
                opened = await self._open()
            except SeawallError as error:
                failure = error
            if opened:
                # Permanent objects: the collector need not traverse them again and again.
                gc.collect()
                gc.freeze()
                gc.set_threshold(_COLLECT_EVERY, 20, 100)
                self._ready = True
                console = self._console = await self._open_console()
                if not self._shutdown.requested:
                    self._on_ready()
                ticking = group.create_task(self._tick())
                beating = group.create_task(self._heartbeat())
                watching = group.create_task(sample_load(self._orchestrator.engine.gate))
                await self._shutdown.wait_requested()
                beating.cancel()
                if console is not None:  # its turns are not worth waiting for
                    await console.surges.close()
                await self._orchestrator.engine.stop_recovery()
                settings = self._orchestrator.settings.server
                if self._orphaned:  # another server may need the port now
                    settings = structs.replace(settings, shutdown_delay_seconds=0.0)
                deadline = await drain(self._server, self._sockets, self._shutdown, settings)
                ticking.cancel()
                watching.cancel()
                if console is not None:
                    await console.close()
            self._server.exit()
        left = 0.0 if self._shutdown.immediate else max(0.0, deadline - loop.time())
        await self._orchestrator.close(left)
        if failure is not None:
            raise ConfigError(str(failure)) from failure
        return 0

    async def _open(self) -> bool:
        """Open the orchestrator and warm up, unless a shutdown is requested; whether it is open.

        Raises:
            SeawallError: It cannot be opened.
        """
        opening = asyncio.create_task(self._prepare())
        stopping = asyncio.create_task(self._shutdown.wait_requested())
        await asyncio.wait((opening, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if self._shutdown.requested:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)  # not needed any more
        else:
            await opening
        return self._orchestrator.ready

    async def _prepare(self) -> None:
        await self._orchestrator.open()
        if self._orchestrator.settings.server.warm_up:
            await warm_up(self._orchestrator)

    async def _open_console(self) -> "ConsoleService | None":
        """What the console of this worker shows; None where it is off."""
        if self._orchestrator.engine.recorder is None:
            return None
        from seawall.console.service import open_service  # noqa: PLC0415 - only where it is on

        service = open_service(self._orchestrator, self._index)
        await service.open()
        self._application.console_service = service
        return service

    def _request_shutdown(self) -> None:
        if not self._shutdown.requested:
            if self._orchestrator.ready:
                self._counts[IN_FLIGHT] = self._orchestrator.engine.gate.in_flight
            self._on_shutdown()
            self._shutdown.request()
        elif self._skip_waits():
            self._shutdown.request()
        self._arm_exit_deadline()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        self._arm_exit_deadline()

    def _arm_exit_deadline(self) -> None:
        """Have the process end in time even if its event loop is blocked."""
        settings = self._orchestrator.settings.server
        allowed = settings.shutdown_delay_seconds + settings.drain_seconds
        self.exit.arm((0.0 if self._skip_waits() else allowed) + _EXIT_GRACE_SECONDS)

    @property
    def _orphaned(self) -> bool:
        return self._parent is not None and os.getppid() != self._parent

    async def _heartbeat(self) -> None:
        """Show that the event loop is not blocked."""
        frozen = self._orchestrator.settings.server.frozen_seconds or 2 * _BLOCKED_SECONDS
        watch = EventLoopWatchdog(min(_BLOCKED_SECONDS, max(frozen, MIN_FROZEN_SECONDS) / 2))
        try:
            while not self._shutdown.requested:  # a later heartbeat would be expected to continue
                watch.beat()
                self._on_heartbeat()
                await asyncio.sleep(_HEARTBEAT_SECONDS)
        finally:
            watch.stop()

    def _count(self, report: TurnReport) -> None:
        self._counts[COMPLETED if report.succeeded else FAILED] += 1

    async def _tick(self) -> None:
        for second in itertools.count():
            self._sample()
            if (
                not second % _COLLECT_SECONDS
                and self._orchestrator.engine.gate.in_flight <= _MAX_TURNS_FOR_COLLECTION
            ):
                # Otherwise garbage that survived a collection would stay for hours.
                gc.collect()
            if self._orphaned and not self._shutdown.requested:
                self._request_shutdown()  # no parent-death signal on this system
            await asyncio.sleep(1.0)

    def _sample(self) -> None:
        if self._orchestrator.ready:
            self._metrics.sample(
                self._orchestrator.engine.gate, self._orchestrator.engine.upstream_streams
            )
            self._metrics.sample_upstreams(self._orchestrator.engine.upstreams)
            if quotas := self._orchestrator.engine.metering.quotas:
                self._metrics.sample_quotas(quotas)
            if (catalog := self._orchestrator.engine.catalog) is not None:
                self._metrics.sample_sources(catalog.upstreams)
            if self._console is not None:
                self._console.sample()

    async def _scrape(self) -> tuple[bytes, bytes]:
        self._sample()
        # In a thread of its own: it reads the files of all workers, which would block the loop,
        # and all threads for tools may be busy.
        return await asyncio.get_running_loop().run_in_executor(self._scraper, self._metrics.scrape)
