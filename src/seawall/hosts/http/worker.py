"""One server process: uvicorn with our limits, an orchestrator, a graceful stop."""

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
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from errno import EADDRINUSE
from pathlib import Path
from types import FrameType

import uvicorn
from msgspec import structs

from seawall.admission.gate import sample_load
from seawall.config import ServerSettings
from seawall.errors import ConfigError, SeawallError
from seawall.hosts.http.app import HttpApplication
from seawall.hosts.http.connection_limits import ConnectionLimits
from seawall.hosts.http.counts import COMPLETED, FAILED, IN_FLIGHT, TurnCounts
from seawall.hosts.http.drain import drain
from seawall.hosts.http.loop_watch import EventLoopWatchdog
from seawall.hosts.http.non_turn_limiter import NonTurnLimiter
from seawall.hosts.http.pre_admission import PreAdmissionCheck
from seawall.hosts.http.protocol import HttpServerProtocol
from seawall.hosts.http.shutdown import Shutdown
from seawall.hosts.http.warmup import warm_up
from seawall.hosts.watchdogs import ExitDeadline, run_loop
from seawall.orchestrator import Orchestrator
from seawall.pipeline.report import TurnReport
from seawall.timers import TimingWheel
from seawall.user_code import find_object

__all__ = [
    "MIN_FROZEN_SECONDS",
    "load_orchestrator",
    "open_listeners",
    "raise_file_limit",
    "reserve_port",
    "run_worker",
]

_log = logging.getLogger("seawall.server")
_BACKLOG = 4_096
_LISTENERS = 256
# What the kernel keeps of a connection, which by itself may become 32 MiB: of an answer, for a
# client that does not read; of requests that are not read yet.
_UNSENT_BYTES = 32_768
_UNREAD_BYTES = 131_072
# Thousands of turns in flight are a large heap, and turns leave next to no cycles: collecting
# after every 700 allocations, as by default, would walk it all the time.
_COLLECT_EVERY = 200_000
_COLLECT_SECONDS = 30
_MAX_TURNS_FOR_COLLECTION = 256  # turns in flight that a whole collection takes about 15 ms with
_DEADLINE_TICK = 0.05
_KEEP_ALIVE_SECONDS = 75  # longer than the 60 s of the usual load balancers
_HEARTBEAT_SECONDS = 0.5
MIN_FROZEN_SECONDS = 2.0
"""Some beats: less would take an ordinary delay for a freeze."""
_BLOCKED_SECONDS = 5.0
_EXIT_GRACE_SECONDS = 8.0  # for what a worker does beyond its drain deadline, whatever hangs
_PORT_RETRY_SECONDS = 3.0  # until workers whose supervisor was killed have left the port


class _Server(uvicorn.Server):
    """uvicorn without its signal handling: a worker that was asked to stop exits with 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def load_orchestrator(source: str) -> Orchestrator:
    """From a configuration file, or from `module:name` of an Orchestrator made in code.

    Raises:
        ConfigError: there is none.
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
    """Allow as many open files as the system does; a turn in flight needs two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def reserve_port(settings: ServerSettings) -> socket.socket:
    """A bound socket that does not listen: it holds the port for those of the workers.

    Raises:
        ConfigError: the address cannot be used, for one because another server has it.
    """
    # Sockets that share a port ask nobody, so ask first with one that does not share.
    latest = time.monotonic() + _PORT_RETRY_SECONDS
    while True:
        try:
            _bind(settings, settings.port, shared=False).close()
        except ConfigError as error:
            used = isinstance(error.__cause__, OSError) and error.__cause__.errno == EADDRINUSE
            if not used or time.monotonic() > latest:
                raise
            time.sleep(_PORT_RETRY_SECONDS / 30)
        else:
            return _bind(settings, settings.port, shared=True)


def open_listeners(settings: ServerSettings, port: int) -> list[socket.socket]:
    """The sockets that one worker listens on; the kernel spreads connections over all of them.

    The event loop takes one connection of a listening socket a round, and under a crowd a round
    is long. With one socket the last of 5,000 waited seven seconds to be accepted, on a server
    that answered within one.
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
    """Serve until SIGTERM or SIGINT, then finish what is in flight, up to the drain deadline.

    Some seconds later the process ends even if a tool or a library does not.

    Args:
        orchestrator: Not open yet.
        sockets: Bound; they are listened on.
        on_ready: Called once, when turns are taken.
        all_ready: Whether the whole server is.
        on_shutdown: Called once, when the stop is asked for.
        on_heartbeat: Called while the event loop comes round, from when it is ready to when it leaves.
        hurries: Whether a further signal means to hurry; without, each after the first does.
        parent: The process whose end ends this one as well.
        index: Which of several workers this is.
        counts: Of turns; kept up to date.

    Returns:
        The exit status: 0 after a stop that was asked for.

    Raises:
        ConfigError: It could not start; nothing was served.
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
    status = run_loop(worker.serve(), worker.end, fast=True)
    if worker.end.armed:  # it ends anyway; the closed loop has given up its handlers
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
        self.end = ExitDeadline()
        self._parent = parent
        self._counts: TurnCounts = [0, 0, 0] if counts is None else counts
        self._ready = False
        self._metrics = Metrics(index)
        self._scraper = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        orchestrator.observe(self._metrics.observe)
        orchestrator.observe(self._count)
        settings = orchestrator.settings.server
        application = HttpApplication(
            orchestrator,
            all_ready=lambda: self._ready and all_ready(),
            scrape=self._scrape,
            manage_lifespan=False,
            stop=self._shutdown,
        )
        config = uvicorn.Config(
            application,
            http=functools.partial(  # type: ignore[arg-type]
                HttpServerProtocol,
                limits=settings,
                wheel=TimingWheel(_DEADLINE_TICK),
                stop=self._shutdown,
                door=PreAdmissionCheck(orchestrator),
                intake=ConnectionLimits(settings, files),
                share=NonTurnLimiter(
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
            timeout_graceful_shutdown=1,  # nothing is left for it, see draining.py
        )
        self._server = _Server(config)

    async def serve(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._request_shutdown)
            # Python's own handler is called even while the loop is blocked, and beside the loop's.
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
                # What exists now stays: sparing the collector from walking it over and over.
                gc.collect()
                gc.freeze()
                gc.set_threshold(_COLLECT_EVERY, 20, 100)
                self._ready = True
                if not self._shutdown.requested:
                    self._on_ready()
                ticking = group.create_task(self._tick())
                beating = group.create_task(self._heartbeat())
                watching = group.create_task(sample_load(self._orchestrator.engine.gate))
                await self._shutdown.wait_requested()
                beating.cancel()
                await self._orchestrator.engine.stop_recovery()
                settings = self._orchestrator.settings.server
                if self._orphaned:  # another server may want the port now
                    settings = structs.replace(settings, shutdown_delay_seconds=0.0)
                deadline = await drain(self._server, self._sockets, self._shutdown, settings)
                ticking.cancel()
                watching.cancel()
            self._server.should_exit = True
        left = 0.0 if self._shutdown.immediate else max(0.0, deadline - loop.time())
        await self._orchestrator.close(left)
        if failure is not None:
            raise ConfigError(str(failure)) from failure
        return 0

    async def _open(self) -> bool:
        """Open the orchestrator and warm_up, or stop either; whether it is open.

        Raises:
            SeawallError: It cannot be opened.
        """
        opening = asyncio.create_task(self._prepare())
        wait_requested = asyncio.create_task(self._shutdown.wait_requested())
        await asyncio.wait((opening, wait_requested), return_when=asyncio.FIRST_COMPLETED)
        wait_requested.cancel()
        if self._shutdown.requested:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)  # of no interest any more
        else:
            await opening
        return self._orchestrator.ready

    async def _prepare(self) -> None:
        await self._orchestrator.open()
        if self._orchestrator.settings.server.warm_up:
            await warm_up(self._orchestrator)

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
        """When this process is over, even if its event loop never comes round again."""
        settings = self._orchestrator.settings.server
        waits = (
            0.0 if self._skip_waits() else settings.shutdown_delay_seconds + settings.drain_seconds
        )
        self.end.arm(waits + _EXIT_GRACE_SECONDS)

    @property
    def _orphaned(self) -> bool:
        return self._parent is not None and os.getppid() != self._parent

    async def _heartbeat(self) -> None:
        """Show that the event loop comes round."""
        frozen = self._orchestrator.settings.server.frozen_seconds or 2 * _BLOCKED_SECONDS
        watch = EventLoopWatchdog(min(_BLOCKED_SECONDS, max(frozen, MIN_FROZEN_SECONDS) / 2))
        try:
            while not self._shutdown.requested:  # a beat after the last would be missed later on
                watch.beat()
                self._on_heartbeat()
                await asyncio.sleep(_HEARTBEAT_SECONDS)
        finally:
            watch.stop()

    def _count(self, report: TurnReport) -> None:
        self._counts[COMPLETED if report.outcome in ("completed", "replayed") else FAILED] += 1

    async def _tick(self) -> None:
        for second in itertools.count():
            self._sample()
            if (
                not second % _COLLECT_SECONDS
                and self._orchestrator.engine.gate.in_flight <= _MAX_TURNS_FOR_COLLECTION
            ):
                # What outlived a collection and died later would wait for twenty more: hours.
                gc.collect()
            if self._orphaned and not self._shutdown.requested:
                self._request_shutdown()  # where the kernel has sent no signal
            await asyncio.sleep(1.0)

    def _sample(self) -> None:
        if self._orchestrator.ready:
            self._metrics.sample(
                self._orchestrator.engine.gate, self._orchestrator.engine.upstream_streams
            )
            self._metrics.sample_upstreams(self._orchestrator.engine.upstreams)

    async def _scrape(self) -> tuple[bytes, bytes]:
        self._sample()
        # On a thread of its own: it reads the files of all workers, which the loop must not wait
        # for, and threads for tools may all be taken.
        return await asyncio.get_running_loop().run_in_executor(self._scraper, self._metrics.scrape)
