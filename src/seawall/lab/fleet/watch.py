"""Watching a fleet from outside while a crowd is at it."""

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
from seawall.transport.errors import TransportError
from seawall.transport.http_client import Endpoint, HttpClient

__all__ = ["NOTABLE_OTHER_LOAD", "FleetSample", "FleetWatch", "watch_fleet"]

# Of a processor, used by others: from here on, figures are not of the fleet alone.
NOTABLE_OTHER_LOAD = 0.2

_EVERY = 0.5
# Of a processor, at most: to add up the memory of hundreds of processes takes long.
_WATCHING = 0.05
_ANSWER_SECONDS = 20.0


class FleetSample(Struct, array_like=True, frozen=True):
    """At `at` seconds: processes that serve, CPU seconds that they have used since the beginning.

    memory_bytes: their proportional share of it, which counts what they share once
    (docs.kernel.org/filesystems/proc.html, Pss). around_cpu_seconds: of the balancer or the local
    Lambda itself. model_connections, store_connections: that are open.
    """

    at: float
    processes: int
    cpu_seconds: float
    memory_bytes: int
    around_cpu_seconds: float
    model_connections: int
    store_connections: int


class FleetWatch:
    """What was seen of a fleet.

    initialisations: of environments or pods, ever. added: environments that are there at the end
    and were not before; an initialisation that was tried again counts once in them. model_opened,
    store_opened: connections since the watch began; for SQLite, processes that opened the
    database. A connection to a store that lives for less than half a second may be missed; with
    hundreds of processes, for less than several seconds: looks are then further apart.
    machine_cpu_seconds: of all processes of the machine. store_cpu_seconds: of the store's own
    process, where it is one of this machine. driver_cpu_seconds: of children of ours that have
    ended meanwhile, from their start to their end: the driver is the only one.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.looks: list[FleetSample] = []
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
        self._around_before = 0.0
        self._started_before = self._environments_before = 0
        self._busy_before = self._model_cpu_before = self._store_cpu_before = 0.0
        self._own_before = self._ended_before = 0.0
        self.seconds = self.machine_cpu_seconds = 0.0
        self.model_cpu_seconds = self.store_cpu_seconds = 0.0
        self.own_cpu_seconds = self.driver_cpu_seconds = 0.0

    @property
    def others(self) -> float:
        """Processors that were used by nobody who belongs to this, on average."""
        own = self.cpu_seconds + self.around_cpu_seconds + self.own_cpu_seconds
        behind = self.model_cpu_seconds + self.store_cpu_seconds + self.driver_cpu_seconds
        return max(0.0, self.machine_cpu_seconds - own - behind) / self.seconds

    @property
    def store_opened(self) -> int:
        """See the class."""
        return len(self._store_seen - self._store_before)

    @property
    def store_peak(self) -> int:
        """The most at once."""
        return max(each.store_connections for each in self.looks)

    @property
    def cpu_seconds(self) -> float:
        """Of all that served, since the watch began, also of those that have gone."""
        return self.looks[-1].cpu_seconds

    @property
    def around_cpu_seconds(self) -> float:
        """Of what stands for the cloud's own part."""
        return self.looks[-1].around_cpu_seconds

    @property
    def peak_bytes(self) -> int:
        """The most memory at once."""
        return max(each.memory_bytes for each in self.looks)

    async def begin(self) -> None:
        """The first look: everything counts from here."""
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
        self._around_before = sum(_own_cpu(pid) for pid in self._fleet.around)
        pids = await self._take_sample()
        self._first_used = {pid: self._used[pid] for pid in pids}
        self._store_before = set(self._store_seen)
        self.looks.clear()
        await self._take_sample()

    async def run(self) -> None:
        """Until cancelled."""
        pause = _EVERY
        while True:
            await asyncio.sleep(pause)
            before = time.process_time()
            await self._take_sample()
            pause = max(_EVERY, (time.process_time() - before) / _WATCHING)

    async def end(self) -> None:
        """The last look."""
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
        around = sum(_own_cpu(pid) for pid in fleet.around) - self._around_before
        self._store_seen |= opened
        model = await self._model_stats()
        self.looks.append(
            FleetSample(
                round(time.monotonic() - self._began, 2),
                len(pids),
                round(used, 4),
                memory,
                round(around, 4),
                max(0, model.connections - 1),  # without the one by which we ask it
                len(opened),
            )
        )
        return pids

    def _serving(self) -> list[int]:
        fleet = self._fleet
        if fleet.servers:
            return [each for pid in fleet.servers for each in (pid, *descendants(pid))]
        return [each for pid in fleet.around for each in descendants(pid)]

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
    """Watch a fleet while the block runs; what was seen is complete when it has ended."""
    watch = FleetWatch(fleet)
    await watch.begin()
    running = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await watch.end()


def _own_cpu(pid: int) -> float:
    """Of a process without its children, seconds; 0 of none, whose number is 0."""
    return consumption(pid, children=False).cpu_seconds if pid else 0.0


def _ended_cpu() -> float:
    """Of all children that have ended, and theirs, seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _share(pid: int) -> int:
    """Proportional memory; 0 of a process that has gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1_024
    except OSError:
        pass
    return 0


def _store_connections(fleet: Fleet, pids: list[int]) -> set[tuple[int, int]]:
    """Open connections to the store, as pairs that tell them apart."""
    if fleet.spec.store == "sqlite":
        return {(pid, 0) for pid in pids if _has_database(pid)}
    port = Endpoint.parse(fleet.spec.store).origin.port
    there = {
        name: (local, remote) for name, local, remote in tcp_sockets(ESTABLISHED) if remote == port
    }
    if not there:
        return set()
    return {there[name] for pid in pids for name in open_files(pid) if name in there}


def _has_database(pid: int) -> bool:
    """Whether it has the index of SQLite's write-ahead log in its memory."""
    try:
        return "sessions.db-shm" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False
