"""Supervisor of `seawall serve`: runs one worker, or starts and monitors several."""

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CDLL, c_bool, c_double, c_int, c_longlong
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.queues import SimpleQueue
from types import FrameType
from typing import Any, cast

from msgspec import Struct

from seawall.config import ServerSettings
from seawall.errors import ConfigError, SeawallError
from seawall.hosts.http.worker import (
    COMPLETED,
    FAILED,
    IN_FLIGHT,
    MIN_FROZEN_SECONDS,
    TurnCounts,
    load_orchestrator,
    open_listeners,
    reserve_port,
    run_worker,
)
from seawall.hosts.logs import set_up_logs

__all__ = ["ServerCallbacks", "serve"]

_log = logging.getLogger("seawall.server")
_RESTART_SECONDS = 1.0
_MAX_RESTART_SECONDS = 30.0
_STABLE_SECONDS = 60.0  # a worker that ran for so long did not fail to start
_SUSPENDED_SECONDS = 2.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_POLL_SECONDS = 0.2
_MAX_FAILURE_CHARACTERS = 4_000  # they fit into a pipe
_EXIT_GRACE_SECONDS = 10.0  # for the end of a worker after its drain deadline


class ServerCallbacks(Struct, frozen=True):
    """Called on events in the life of a server.

    Attributes:
        ready: Turns are accepted; with the URL and the number of workers.
        stopping: The shutdown began; with the turns in flight and the seconds they may take.
        stopped: The server has ended; with the turns completed and failed since its start.
    """

    ready: Callable[[str, int], None]
    stopping: Callable[[int, float], None] = lambda _in_flight, _seconds: None
    stopped: Callable[[int, int], None] = lambda _completed, _failed: None


def serve(source: str, callbacks: ServerCallbacks) -> int:
    """Serve until SIGTERM or SIGINT.

    Args:
        source: A configuration file, or `module:name` of an Orchestrator.
        callbacks: Called on events in the life of the server.

    Returns:
        The exit status.

    Raises:
        ConfigError: The configuration is wrong, something in it is not available, or the address
            cannot be used.
    """
    orchestrator = load_orchestrator(source)
    settings = orchestrator.settings.server
    if warning := orchestrator.settings.identity.warning:
        _log.warning("%s", warning)
    workers = settings.workers or len(os.sched_getaffinity(0))
    with reserve_port(settings) as reserved:
        port = reserved.getsockname()[1]
        url = _url(settings, port)
        if workers == 1:
            counts: TurnCounts = [0, 0, 0]
            allowed = settings.shutdown_delay_seconds + settings.drain_seconds
            status = run_worker(
                orchestrator,
                open_listeners(settings, port),
                on_ready=lambda: callbacks.ready(url, 1),
                all_ready=lambda: orchestrator.ready,
                on_shutdown=lambda: callbacks.stopping(counts[IN_FLIGHT], allowed),
                counts=counts,
            )
            callbacks.stopped(counts[COMPLETED], counts[FAILED])
            return status
        with _metrics_directory():
            supervisor = _Supervisor(source, settings, port, workers, callbacks)
            return supervisor.run(url)


@contextmanager
def _metrics_directory() -> Iterator[None]:
    """A directory in which the workers share their metrics, so that any of them reports all."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="seawall-metrics-", ignore_cleanup_errors=True)
    except OSError as error:
        _log.warning("no folder for metrics, each worker reports its own: %s", error)
        yield
        return
    with folder as path:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = path
        yield


class _Worker:
    """A worker and its replacements.

    Attributes:
        process: None between the end of one and the start of the next.
        started_at: When the current process was started.
        starts_at: When the next one is started.
        consecutive_exits: Since a process last ran stably.
        kill_reason: Why the supervisor killed the process, if it did.
    """

    def __init__(self, process: SpawnProcess) -> None:
        self.process: SpawnProcess | None = process
        self.started_at = time.monotonic()
        self.starts_at = 0.0
        self.consecutive_exits = 0
        self.kill_reason = ""


class _Supervisor:
    def __init__(
        self,
        source: str,
        settings: ServerSettings,
        port: int,
        workers: int,
        callbacks: ServerCallbacks,
    ) -> None:
        self._context: SpawnContext = multiprocessing.get_context("spawn")
        self._callbacks = callbacks
        self._failures: SimpleQueue[str] = self._context.SimpleQueue()
        self._counts: list[TurnCounts] = [
            cast("TurnCounts", self._context.RawArray(c_longlong, 3)) for _ in range(workers)
        ]
        self._signals = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._source = source
        self._settings = settings
        self._port = port
        self._ready = self._context.RawArray(c_bool, workers)
        self._heartbeats = self._context.RawArray(c_double, workers)  # monotonic; 0: none expected
        self._stop_signals = self._context.RawValue(c_int, 0)  # received so far
        self._workers = [_Worker(self._start(index)) for index in range(workers)]
        self._checked_at = self._suspended_until = time.monotonic()

    def run(self, url: str) -> int:
        """Monitor the workers until the end; return the exit status.

        Raises:
            SeawallError: A worker could not start.
        """
        announced = False
        status: int | None = None
        while not self._signals:
            multiprocessing.connection.wait(self._sentinels(), _POLL_SECONDS)
            if announced:
                self._check_workers()
            elif all(self._ready):
                announced = True
                self._callbacks.ready(url, len(self._workers))
            else:
                status = self._start_failure()
        if status is not None:
            self._stop()
            raise self._failure(status)
        self._stop(announced=announced)
        self._callbacks.stopped(self._total(COMPLETED), self._total(FAILED))
        return 0

    def _total(self, which: int) -> int:
        return sum(each[which] for each in self._counts)

    def _failure(self, status: int) -> SeawallError:
        """The error of the first worker that failed."""
        reason = self._reason()
        if not reason:
            return SeawallError(f"a worker {_describe_exit(status)} before it was ready")
        return ConfigError(reason)

    def _reason(self) -> str:
        """Why a worker ended, if it reported a reason."""
        return "" if self._failures.empty() else self._failures.get()

    def _start_failure(self) -> int | None:
        """The status of a worker that ended before all were ready: a new one would fail as well."""
        if self._signals:  # the workers end because of a signal
            return None
        for worker in self._workers:
            status = worker.process.exitcode if worker.process is not None else None
            if status is not None:
                self._signals = 1
                return status
        return None

    def _check_workers(self) -> None:
        """Replace workers that have ended, and kill those that are frozen."""
        now = time.monotonic()
        if now - self._checked_at > _SUSPENDED_SECONDS:
            self._suspended_until = now  # the machine was suspended, for example
        self._checked_at = now
        for index, worker in enumerate(self._workers):
            process = worker.process
            if self._signals:
                return
            if process is None:
                if now >= worker.starts_at:
                    worker.started_at, worker.kill_reason = now, ""
                    worker.process = self._start(index)
            elif process.exitcode is None:
                self._check_frozen(index, worker, process, now)
            else:
                self._on_worker_exit(index, worker, process, now)

    def _start(self, index: int) -> SpawnProcess:
        self._ready[index], self._heartbeats[index] = False, 0.0
        process = self._context.Process(
            target=_worker_main,
            kwargs={
                "source": self._source,
                "settings": self._settings,
                "port": self._port,
                "ready": self._ready,
                "heartbeats": self._heartbeats,
                "stop_signals": self._stop_signals,
                "counts": self._counts[index],
                "failures": self._failures,
                "index": index,
                "parent": os.getpid(),
            },
            name=f"seawall-{index}",
        )
        # Ctrl-C reaches all processes of a terminal; ignored there until the worker has a handler.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process.start()
        finally:
            signal.signal(signal.SIGINT, before)
        return process

    def _check_frozen(self, index: int, worker: _Worker, process: SpawnProcess, now: float) -> None:
        """Kill a worker whose event loop is blocked for too long; it is replaced."""
        allowed, beat = self._settings.frozen_seconds, self._heartbeats[index]
        allowed = max(allowed, MIN_FROZEN_SECONDS) if allowed else 0.0
        if not (allowed and beat) or now - max(beat, self._suspended_until) <= allowed:
            return
        worker.kill_reason = f"it was frozen for {allowed:g} s"
        self._heartbeats[index] = 0.0
        _log.error("worker %d (process %s) is frozen: killing it", index, process.pid)
        process.kill()

    def _on_worker_exit(
        self, index: int, worker: _Worker, process: SpawnProcess, now: float
    ) -> None:
        """Schedule the replacement of a worker that has ended, with exponential backoff."""
        self._ready[index], self._heartbeats[index] = False, 0.0
        stable = now - worker.started_at > _STABLE_SECONDS
        worker.consecutive_exits = 1 if stable else worker.consecutive_exits + 1
        pause = min(
            _MAX_RESTART_SECONDS, _RESTART_SECONDS * 2.0 ** min(worker.consecutive_exits - 1, 64)
        )
        worker.process, worker.starts_at = None, now + pause
        _log.error(
            "worker %d (process %s) %s; another starts in %g s",
            index,
            process.pid,
            _describe_exit(process.exitcode, worker.kill_reason or self._reason()),
            pause,
        )
        process.close()
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415

            mark_process_dead(index)  # type: ignore[no-untyped-call]

    def _stop(self, *, announced: bool = False) -> None:
        """Have all workers shut down; kill those that do not end in time."""
        self._signal(signal.SIGTERM)
        settings = self._settings
        allowed = settings.shutdown_delay_seconds + settings.drain_seconds
        deadline = time.monotonic() + allowed + _EXIT_GRACE_SECONDS
        while sentinels := self._sentinels():
            if time.monotonic() > deadline:
                self._signal(signal.SIGKILL)
            elif self._signals > 1:  # repeated: of two signals in quick succession one is delivered
                self._signal(signal.SIGTERM)
            multiprocessing.connection.wait(sentinels, _POLL_SECONDS)
            if announced:  # by now the workers have reported their turns in flight
                announced = False
                self._callbacks.stopping(self._total(IN_FLIGHT), allowed)

    def _alive(self) -> list[SpawnProcess]:
        processes = (each.process for each in self._workers)
        return [each for each in processes if each is not None and each.exitcode is None]

    def _sentinels(self) -> list[int]:
        return [each.sentinel for each in self._alive()]

    def _signal(self, number: signal.Signals) -> None:
        for process in self._alive():
            if process.pid is not None:
                os.kill(process.pid, number)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        self._stop_signals.value = self._signals


def _describe_exit(status: int | None, why: str = "") -> str:
    """How a process ended, as text for the log."""
    text = f"ended with status {status}"
    if status is not None and status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = "unknown"
        text = f"was ended by signal {-status} ({name})"
        if not why and -status == signal.SIGKILL:
            why = "the kernel does so when memory runs out: see its log and the container's limit"
    return f"{text}: {why}" if why else text


def _worker_main(
    *,
    source: str,
    settings: ServerSettings,
    port: int,
    ready: Any,  # noqa: ANN401 - a shared array has no public type
    heartbeats: Any,  # noqa: ANN401 - the same
    stop_signals: Any,  # noqa: ANN401 - the same
    counts: TurnCounts,
    failures: "SimpleQueue[str]",
    index: int,
    parent: int,
) -> None:
    """The main function of a worker process."""
    set_up_logs(os.environ)  # a new process has no logging set up
    _set_parent_death_signal(parent)

    def on_ready() -> None:
        ready[index] = True

    def on_shutdown() -> None:
        ready[index], heartbeats[index] = False, 0.0

    def on_heartbeat() -> None:
        heartbeats[index] = time.monotonic()

    try:
        status = run_worker(
            load_orchestrator(source),
            open_listeners(settings, port),
            on_ready=on_ready,
            all_ready=lambda: all(ready) and not stop_signals.value,
            on_shutdown=on_shutdown,
            on_heartbeat=on_heartbeat,
            # A signal to the process group, such as Ctrl-C, reaches a worker as well as ours does.
            skip_waits=lambda: stop_signals.value > 1,
            parent=parent,
            index=index,
            counts=counts,
        )
    except SeawallError as error:
        failures.put(str(error)[:_MAX_FAILURE_CHARACTERS])
        raise SystemExit(2) from None
    raise SystemExit(status)


def _set_parent_death_signal(parent: int) -> None:
    """Have the kernel send SIGTERM when the supervisor ends, so that the port becomes free."""
    try:
        CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    except (OSError, AttributeError):  # not Linux: the worker checks its parent every second
        return
    if os.getppid() != parent:
        raise SystemExit(0)


def _url(settings: ServerSettings, port: int) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{port}"
