"""Observes a fleet from outside while it is under load."""

import asyncio
import resource
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from seawall.lab.fleet.lifecycle import Fleet
from seawall.lab.local_lambda.function import Stats
from seawall.lab.local_lambda.server import STATS_PATH
from seawall.lab.machine import busy_seconds
from seawall.lab.processes import ESTABLISHED, consumption, descendants, open_files, tcp_sockets
from seawall.lab.sim_model.connection import SimStats
from seawall.transport.connection import TransportError
from seawall.transport.http_client import Endpoint, HttpClient

__all__ = ["NOTABLE_OTHER_LOAD", "FleetSample", "FleetWatch", "watch_fleet"]

# Processors used by unrelated processes, above which figures are not of the fleet alone.
NOTABLE_OTHER_LOAD = 0.2

_EVERY = 0.5
# Share of a processor to spend on sampling: the memory of hundreds of processes takes long to add.
_WATCHING = 0.05
_ANSWER_SECONDS = 20.0


class FleetSample(Struct, array_like=True, frozen=True):
    """A sample of a fleet.

    Attributes:
        at: Seconds since the start.
        processes: Processes that serve.
        cpu_seconds: Processor time that they have used since the start.
        memory_bytes: Their memory, shared pages counted once (Pss in
            docs.kernel.org/filesystems/proc.html).
        infrastructure_cpu_seconds: Processor time of the balancer or the local Lambda.
        model_connections: Open connections to the model.
        store_connections: Open connections to the store.
    """

    at: float
    processes: int
    cpu_seconds: float
    memory_bytes: int
    infrastructure_cpu_seconds: float
    model_connections: int
    store_connections: int


class FleetWatch:
    """Observations of a fleet.

    A connection to the store that lives for less than half a second may be missed; with hundreds of
    processes, for less than several seconds, because samples are then further apart.

    Attributes:
        samples: In order of time.
        initialisations: Of environments or pods.
        added: Environments at the end that were not there at the start; a retried initialisation
            counts once.
        throttled: Invocations throttled.
        model_opened: Connections to the model opened.
        model_peak: Most of them open at once.
        environments: Counters of the local Lambda.
        seconds: Length of the observation.
        machine_cpu_seconds: Processor time of all processes of the machine.
        model_cpu_seconds: Of the model.
        store_cpu_seconds: Of the store, if it is a process of this machine.
        own_cpu_seconds: Of this process.
        driver_cpu_seconds: Of child processes that have ended: the driver.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.samples: list[FleetSample] = []
        self.initialisations = len(fleet.servers)
        self.added = self.throttled = 0
        self.model_opened = self.model_peak = 0
        self.environments: Stats = Stats()
        self._fleet = fleet
        self._client = HttpClient()
        self._began = time.monotonic()
        self._used: dict[int, float] = {}
        self._first_used: dict[int, float] = {}
        self._store_seen: set[tuple[int, int]] = set()
        self._store_before: set[tuple[int, int]] = set()
        self._model_before = 0
        self._infrastructure_before = 0.0
        self._started_before = self._environments_before = 0
        self._busy_before = self._model_cpu_before = self._store_cpu_before = 0.0
        self._own_before = self._ended_before = 0.0
        self.seconds = self.machine_cpu_seconds = 0.0
        self.model_cpu_seconds = self.store_cpu_seconds = 0.0
        self.own_cpu_seconds = self.driver_cpu_seconds = 0.0

    @property
    def other_processors(self) -> float:
        """Processors used by unrelated processes, on average."""
        own = self.cpu_seconds + self.infrastructure_cpu_seconds + self.own_cpu_seconds
        behind = self.model_cpu_seconds + self.store_cpu_seconds + self.driver_cpu_seconds
        return max(0.0, self.machine_cpu_seconds - own - behind) / self.seconds

    @property
    def store_opened(self) -> int:
        """Connections to the store opened; for SQLite, processes that opened the database."""
        return len(self._store_seen - self._store_before)

    @property
    def store_peak(self) -> int:
        """Most connections to the store open at once."""
        return max(each.store_connections for each in self.samples)

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all servers, also of those that have ended."""
        return self.samples[-1].cpu_seconds

    @property
    def infrastructure_cpu_seconds(self) -> float:
        """Processor time of the balancer or the local Lambda."""
        return self.samples[-1].infrastructure_cpu_seconds

    @property
    def peak_bytes(self) -> int:
        """Peak of memory."""
        return max(each.memory_bytes for each in self.samples)

    async def begin(self) -> None:
        """Take the first sample; all figures are relative to it."""
        await self._count()
        self._model_before = self.model_opened
        self._started_before = self.environments.started
        self._environments_before = self.environments.environments
        self._busy_before = busy_seconds()
        self._model_cpu_before = _own_cpu(self._fleet.model_pid)
        self._store_cpu_before = _own_cpu(self._fleet.store_pid)
        self._own_before = time.process_time()
        self._ended_before = _ended_cpu()
        self._began = time.monotonic()
        self._infrastructure_before = sum(_own_cpu(pid) for pid in self._fleet.infrastructure)
        pids = await self._take_sample()
        self._first_used = {pid: self._used[pid] for pid in pids}
        self._store_before = set(self._store_seen)
        self.samples.clear()
        await self._take_sample()

    async def run(self) -> None:
        """Sample until cancelled."""
        pause = _EVERY
        while True:
            await asyncio.sleep(pause)
            before = time.process_time()
            await self._take_sample()
            pause = max(_EVERY, (time.process_time() - before) / _WATCHING)

    async def end(self) -> None:
        """Take the last sample."""
        await self._count()
        await self._take_sample()
        self.model_opened -= self._model_before
        self.seconds = time.monotonic() - self._began
        self.machine_cpu_seconds = busy_seconds() - self._busy_before
        self.model_cpu_seconds = _own_cpu(self._fleet.model_pid) - self._model_cpu_before
        self.store_cpu_seconds = _own_cpu(self._fleet.store_pid) - self._store_cpu_before
        self.own_cpu_seconds = time.process_time() - self._own_before
        self.driver_cpu_seconds = _ended_cpu() - self._ended_before
        if not self._fleet.servers:
            self.initialisations = self.environments.started - self._started_before
            self.added = self.environments.environments - self._environments_before
            self.throttled = self.environments.throttled
        await self._client.close()

    async def _take_sample(self) -> list[int]:
        fleet = self._fleet
        pids = self._serving()
        for pid in pids:
            self._used[pid] = max(self._used.get(pid, 0.0), _own_cpu(pid))
        memory, opened = await asyncio.to_thread(
            lambda: (sum(_share(pid) for pid in pids), _store_connections(fleet, pids))
        )
        used = sum(self._used.values()) - sum(self._first_used.values())
        infrastructure = (
            sum(_own_cpu(pid) for pid in fleet.infrastructure) - self._infrastructure_before
        )
        self._store_seen |= opened
        model = await self._model_stats()
        self.samples.append(
            FleetSample(
                round(time.monotonic() - self._began, 2),
                len(pids),
                round(used, 4),
                memory,
                round(infrastructure, 4),
                max(0, model.connections - 1),  # without our own
                len(opened),
            )
        )
        return pids

    def _serving(self) -> list[int]:
        fleet = self._fleet
        if fleet.servers:
            return [each for pid in fleet.servers for each in (pid, *descendants(pid))]
        return [each for pid in fleet.infrastructure for each in descendants(pid)]

    async def _model_stats(self) -> SimStats:
        body = await self._get(self._fleet.model.removesuffix("/v1") + "/sim/stats")
        stats = msgspec.json.decode(body, type=SimStats) if body else SimStats()
        self.model_peak = max(self.model_peak, stats.connections)
        return stats

    async def _count(self) -> None:
        self.model_opened = (await self._model_stats()).accepted
        if not self._fleet.servers:
            body = await self._get(self._fleet.url + STATS_PATH)
            if body:
                self.environments = msgspec.json.decode(body, type=Stats)

    async def _get(self, url: str) -> bytes:
        deadline = asyncio.get_running_loop().time() + _ANSWER_SECONDS
        try:
            found = await self._client.request("GET", Endpoint.parse(url), deadline=deadline)
        except TransportError:
            return b""
        return found.body if found.status == 200 else b""


@asynccontextmanager
async def watch_fleet(fleet: Fleet) -> AsyncGenerator[FleetWatch, None]:
    """Observe a fleet while the block runs; the figures are complete when it has ended."""
    watch = FleetWatch(fleet)
    await watch.begin()
    sampling = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        sampling.cancel()
        with suppress(asyncio.CancelledError):
            await sampling
        await watch.end()


def _own_cpu(pid: int) -> float:
    """Processor time of a process without its children, in seconds; 0 for the process id 0."""
    return consumption(pid, children=False).cpu_seconds if pid else 0.0


def _ended_cpu() -> float:
    """Processor time of all descendants that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _share(pid: int) -> int:
    """Proportional memory of a process; 0 if it has ended."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1_024
    except OSError:
        pass
    return 0


def _store_connections(fleet: Fleet, pids: list[int]) -> set[tuple[int, int]]:
    """Open connections to the store, each as a distinct pair."""
    if fleet.spec.store == "sqlite":
        return {(pid, 0) for pid in pids if _has_database(pid)}
    port = Endpoint.parse(fleet.spec.store).origin.port
    connections = {
        name: (local, remote) for name, local, remote in tcp_sockets(ESTABLISHED) if remote == port
    }
    if not connections:
        return set()
    return {connections[name] for pid in pids for name in open_files(pid) if name in connections}


def _has_database(pid: int) -> bool:
    """Whether a process has mapped the index of SQLite's write-ahead log."""
    try:
        return "sessions.db-shm" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False
