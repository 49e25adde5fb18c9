"""`seawall serve`: one process, or several that share a port."""

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import tempfile
import time
from ctypes import c_bool, c_longlong
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.queues import SimpleQueue
from types import FrameType
from typing import Any, cast

from seawall.config import ServerSettings
from seawall.errors import ConfigError, SeawallError
from seawall.hosts.http.counts import COMPLETED, FAILED, IN_FLIGHT, Counts, Watch, add_up
from seawall.hosts.http.worker import listeners, load_orchestrator, reserve, run_worker
from seawall.hosts.logs import set_up_logs

__all__ = ["serve"]

_log = logging.getLogger("seawall.server")
_RESTART_SECONDS = 1.0
_POLL_SECONDS = 0.2
_LONGEST_FAILURE = 4_000  # characters; all of them fit into a pipe
_LAST_SECONDS = 20.0  # for what a worker does beyond its drain deadline


def serve(source: str, watch: Watch) -> int:
    """Serve until told to stop; the exit status.

    source: a configuration file, or `module:name`. watch: what is called of the server's life.

    Raises:
        ConfigError: the configuration is wrong, something in it cannot be had, or the address
            cannot be used.
    """
    orchestrator = load_orchestrator(source)
    settings = orchestrator.settings.server
    workers = settings.workers or len(os.sched_getaffinity(0))
    with reserve(settings) as reserved:
        port = reserved.getsockname()[1]
        url = _url(settings, port)
        if workers == 1:
            counts: Counts = [0, 0, 0]
            allowed = settings.leave_seconds + settings.drain_seconds
            status = run_worker(
                orchestrator,
                listeners(settings, port),
                on_ready=lambda: watch.ready(url, 1),
                all_ready=lambda: orchestrator.ready,
                on_leaving=lambda: watch.stopping(counts[IN_FLIGHT], allowed),
                counts=counts,
            )
            watch.stopped(counts[COMPLETED], counts[FAILED])
            return status
        with tempfile.TemporaryDirectory(prefix="seawall-metrics-") as metrics:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics
            supervisor = _Supervisor(source, settings, port, workers, watch)
            return supervisor.run(url)


class _Supervisor:
    def __init__(
        self, source: str, settings: ServerSettings, port: int, workers: int, watch: Watch
    ) -> None:
        self._context: SpawnContext = multiprocessing.get_context("spawn")
        self._watch = watch
        self._failures: SimpleQueue[str] = self._context.SimpleQueue()
        self._counts: list[Counts] = [
            cast("Counts", self._context.RawArray(c_longlong, 3)) for _ in range(workers)
        ]
        self._signals = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._source = source
        self._settings = settings
        self._port = port
        self._ready = self._context.RawArray(c_bool, workers)
        self._leaving = self._context.RawValue(c_bool, False)
        self._processes = [self._start(index) for index in range(workers)]

    def run(self, url: str) -> int:
        """Until the end; the exit status.

        Raises:
            SeawallError: A worker could not start.
        """
        announced = False
        status = 0
        while not self._signals:
            multiprocessing.connection.wait(
                [each.sentinel for each in self._processes], _POLL_SECONDS
            )
            if not announced and all(self._ready):
                announced = True
                self._watch.ready(url, len(self._processes))
            for index, process in enumerate(self._processes):
                if process.exitcode is None or self._signals:
                    continue
                if not announced:  # it would fail again: whatever is wrong, it is wrong at start
                    status, self._signals = process.exitcode, 1
                    break
                self._replace(index, process)
        if status:
            self._stop()
            raise self._failure(status)
        self._stop(announced=announced)
        self._watch.stopped(add_up(self._counts, COMPLETED), add_up(self._counts, FAILED))
        return 0

    def _failure(self, status: int) -> SeawallError:
        """Of all workers that failed alike, the first one's."""
        if self._failures.empty():
            return SeawallError(f"a worker ended with status {status} before it took turns")
        return ConfigError(self._failures.get())

    def _start(self, index: int) -> SpawnProcess:
        self._ready[index] = False
        process = self._context.Process(
            target=_work,
            kwargs={
                "source": self._source,
                "settings": self._settings,
                "port": self._port,
                "ready": self._ready,
                "leaving": self._leaving,
                "counts": self._counts[index],
                "failures": self._failures,
                "index": index,
                "parent": os.getpid(),
            },
            name=f"seawall-{index}",
        )
        # Ctrl-C reaches all processes of a terminal; until it has its own handler, only we see it.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process.start()
        finally:
            signal.signal(signal.SIGINT, before)
        return process

    def _replace(self, index: int, process: SpawnProcess) -> None:
        why = "" if self._failures.empty() else f": {self._failures.get()}"
        _log.error(
            "worker %d ended with status %s%s; starting another", index, process.exitcode, why
        )
        if process.pid is not None:
            from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415

            mark_process_dead(process.pid)  # type: ignore[no-untyped-call]
        time.sleep(_RESTART_SECONDS)
        self._processes[index] = self._start(index)

    def _stop(self, *, announced: bool = False) -> None:
        """Ask all to finish; end those that have not when the drain deadline is over."""
        self._signal(signal.SIGTERM)
        settings = self._settings
        allowed = settings.leave_seconds + settings.drain_seconds
        deadline = time.monotonic() + allowed + _LAST_SECONDS
        while any(each.exitcode is None for each in self._processes):
            if time.monotonic() > deadline:
                self._signal(signal.SIGKILL)
            elif self._signals > 1:  # again and again: of two that come at once, one is seen
                self._signal(signal.SIGTERM)
            alive = [each.sentinel for each in self._processes if each.exitcode is None]
            multiprocessing.connection.wait(alive, _POLL_SECONDS)
            if announced:  # by now the workers have said how many turns they have
                announced = False
                self._watch.stopping(add_up(self._counts, IN_FLIGHT), allowed)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            if process.exitcode is None and process.pid is not None:
                os.kill(process.pid, number)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._leaving.value = True
        self._signals += 1


def _work(
    *,
    source: str,
    settings: ServerSettings,
    port: int,
    ready: Any,  # noqa: ANN401 - a shared array has no public type
    leaving: Any,  # noqa: ANN401 - nor has a shared value
    counts: Counts,
    failures: "SimpleQueue[str]",
    index: int,
    parent: int,
) -> None:
    """What a worker process runs."""
    set_up_logs(os.environ)  # a process of its own, with nothing set up

    def on_ready() -> None:
        ready[index] = True

    def on_leaving() -> None:
        ready[index] = False

    try:
        status = run_worker(
            load_orchestrator(source),
            listeners(settings, port),
            on_ready=on_ready,
            all_ready=lambda: all(ready) and not leaving.value,
            on_leaving=on_leaving,
            parent=parent,
            counts=counts,
        )
    except SeawallError as error:
        failures.put(str(error)[:_LONGEST_FAILURE])
        raise SystemExit(2) from None
    raise SystemExit(status)


def _url(settings: ServerSettings, port: int) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{port}"
