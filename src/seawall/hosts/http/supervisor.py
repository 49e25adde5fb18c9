"""`seawall serve`: one process, or several that share a port."""

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import tempfile
import time
from collections.abc import Callable
from ctypes import c_bool
from multiprocessing.context import SpawnContext, SpawnProcess
from types import FrameType
from typing import Any

from seawall.config import ServerSettings
from seawall.hosts.http.worker import listeners, load_orchestrator, reserve, run_worker
from seawall.hosts.logs import set_up_logs

__all__ = ["serve"]

_log = logging.getLogger("seawall.server")
_RESTART_SECONDS = 1.0
_POLL_SECONDS = 0.2
_LAST_SECONDS = 20.0  # for what a worker does beyond its drain deadline


def serve(source: str, announce: Callable[[str, int], None]) -> int:
    """Serve until told to stop; the exit status.

    source: a configuration file, or `module:name`. announce: called with the URL and the number
    of workers once all of them take turns.

    Raises:
        ConfigError: the configuration is wrong, or the address cannot be used.
    """
    orchestrator = load_orchestrator(source)
    settings = orchestrator.settings.server
    if warning := orchestrator.settings.identity.warning:
        _log.warning("%s", warning)
    workers = settings.workers or len(os.sched_getaffinity(0))
    with reserve(settings) as reserved:
        port = reserved.getsockname()[1]
        url = _url(settings, port)
        if workers == 1:
            return run_worker(
                orchestrator,
                listeners(settings, port),
                on_ready=lambda: announce(url, 1),
                all_ready=lambda: orchestrator.ready,
            )
        with tempfile.TemporaryDirectory(prefix="seawall-metrics-") as metrics:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics
            supervisor = _Supervisor(source, settings, port, workers)
            return supervisor.run(lambda: announce(url, workers))


class _Supervisor:
    def __init__(self, source: str, settings: ServerSettings, port: int, workers: int) -> None:
        self._context: SpawnContext = multiprocessing.get_context("spawn")
        self._source = source
        self._settings = settings
        self._port = port
        self._ready = self._context.RawArray(c_bool, workers)
        self._leaving = self._context.RawValue(c_bool, False)
        self._processes = [self._start(index) for index in range(workers)]
        self._signals = 0

    def run(self, announce: Callable[[], None]) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        announced = False
        status = 0
        while not self._signals:
            multiprocessing.connection.wait(
                [each.sentinel for each in self._processes], _POLL_SECONDS
            )
            if not announced and all(self._ready):
                announced = True
                announce()
            for index, process in enumerate(self._processes):
                if process.exitcode is None or self._signals:
                    continue
                if not announced:  # it would fail again: whatever is wrong, it is wrong at start
                    status, self._signals = process.exitcode, 1
                    break
                self._replace(index, process)
        self._stop()
        return status

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
                "index": index,
                "parent": os.getpid(),
            },
            name=f"seawall-{index}",
        )
        process.start()
        return process

    def _replace(self, index: int, process: SpawnProcess) -> None:
        _log.error("worker %d ended with status %s; starting another", index, process.exitcode)
        if process.pid is not None:
            from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415

            mark_process_dead(process.pid)  # type: ignore[no-untyped-call]
        time.sleep(_RESTART_SECONDS)
        self._processes[index] = self._start(index)

    def _stop(self) -> None:
        """Ask all to finish; end those that have not when the drain deadline is over."""
        self._signal(signal.SIGTERM)
        settings = self._settings
        allowed = settings.leave_seconds + settings.drain_seconds + _LAST_SECONDS
        deadline = time.monotonic() + allowed
        while any(each.exitcode is None for each in self._processes):
            if time.monotonic() > deadline:
                self._signal(signal.SIGKILL)
            elif self._signals > 1:  # again and again: of two that come at once, one is seen
                self._signal(signal.SIGTERM)
            alive = [each.sentinel for each in self._processes if each.exitcode is None]
            multiprocessing.connection.wait(alive, _POLL_SECONDS)

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
    index: int,
    parent: int,
) -> None:
    """What a worker process runs."""
    set_up_logs(os.environ)  # a process of its own, with nothing set up
    orchestrator = load_orchestrator(source)

    def on_ready() -> None:
        ready[index] = True

    def on_leaving() -> None:
        ready[index] = False

    raise SystemExit(
        run_worker(
            orchestrator,
            listeners(settings, port),
            on_ready=on_ready,
            all_ready=lambda: all(ready) and not leaving.value,
            on_leaving=on_leaving,
            parent=parent,
        )
    )


def _url(settings: ServerSettings, port: int) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{port}"
