"""Token buckets that all processes share, as one process sees them: local decisions, few readings.

The shared counter has what was ever taken. By a given time no more may have been taken than the
limit allows until then, and no less counts as taken than if the bucket had been full: so a bucket
that is refilled all the time, or at the beginning of each minute, needs no other state, and no
process has to add what flows in. A process takes blocks and spends them locally.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from seawall.budgets.refill import Refill
from seawall.errors import Problem, StoreUnavailable
from seawall.storage.counters import Addition, Counters

__all__ = ["SharedBucket"]

_log = logging.getLogger("seawall.models")
_CALLS_AHEAD = 16
_PART = 4
_IDLE_PART = 8  # of what is left, so that a server with few calls seldom asks
_KEPT_SECONDS = 3_600.0  # without a call; afterwards the bucket is full again anyway
_PROCESSES = "pods"
_MINUTE = 60.0


class SharedBucket:
    """The buckets of one quota, by measure.

    Attributes:
        refills: By measure.
        free: What this process has taken and not spent, by measure; negative after an overdraft.
        read_at: Unix seconds of the last reading of the shared counter.
        number: Of the present window, as of the last call; 0 where there are none.
        degraded: Whether the last request to the counter failed, or its figures are of a later
            time. Then this process goes by its static share: the limit divided by the number of
            processes.
    """

    def __init__(
        self,
        counters: Counters,
        counter: str,
        refills: Mapping[str, Refill],
        *,
        processes: int = 1,
        seconds: float = 2.0,
        retry_seconds: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Create it; the counter is first asked by `ask`.

        Args:
            counters: Shared by all processes.
            counter: Name of the counter.
            refills: By measure.
            processes: That take part, at least.
            seconds: Longest wait for the counter.
            retry_seconds: How long the counter is not asked after a failure.
            clock: Unix time in seconds.
        """
        self.refills = dict(refills)
        self.free = dict.fromkeys(refills, 0)
        self.read_at = 0.0
        self.degraded = False
        self._counters = counters
        self._counter = counter
        self._least_processes = processes
        self._seconds = seconds
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._used = dict.fromkeys(refills, 0)  # by all processes, when last read
        self._spent = dict.fromkeys(refills, 0)  # since the counter was last asked
        self._minute, self._processes = 0, 1  # in which they were counted, and their number
        self._failed_at = -math.inf
        self._shares: dict[str, Refill] = {}  # while the counter cannot be reached
        self._taken: dict[str, int] = {}
        self._debt = dict.fromkeys(refills, 0)  # spent while the counter could not be reached
        self._windows = any(each.window for each in refills.values())
        self.number = self._window_at(clock())

    @property
    def processes(self) -> int:
        """Processes that take part, as far as is known."""
        return max(self._least_processes, self._processes)

    @property
    def recovery_due(self) -> bool:
        """Whether the counter should be asked again after a failure."""
        return self.degraded and not 0 <= self._clock() - self._failed_at < self._retry_seconds

    def fits(self, needs: Mapping[str, int]) -> bool:
        """Return whether amounts are free here."""
        self._advance()
        free = self.free
        return all(free[measure] >= need for measure, need in needs.items())

    def take(self, needs: Mapping[str, int]) -> bool:
        """Spend amounts if all of them are free here."""
        self._advance()
        free = self.free
        for measure, need in needs.items():
            if free[measure] < need:
                return False
        for measure, need in needs.items():
            free[measure] -= need
            self._spent[measure] += need
            if self.degraded:
                self._debt[measure] += need
        return True

    def give(self, amounts: Mapping[str, int], window: int) -> None:
        """Return amounts that were reserved in a window; negative for what was used beyond.

        What was reserved in an earlier window has expired with it.
        """
        if self._windows or self.degraded:
            self._advance()
            if window != self.number:
                return
        for measure, amount in amounts.items():
            if amount < 0:  # not more than a whole bucket is owed, whatever a provider reports
                lowest = -self.refills[measure].capacity - self.free[measure]
                amount = min(0, max(amount, lowest))  # noqa: PLW2901
            self.free[measure] += amount
            if self.degraded:
                self._debt[measure] -= amount

    def left(self, measure: str) -> int:
        """What is free here and, by the last reading, at the counter."""
        self._advance()
        if self.degraded:
            return self.free[measure]
        refill, now = self.refills[measure], self._clock()
        used = max(self._used[measure], refill.floor(now))
        return self.free[measure] + max(0, refill.allowed(now) - used)

    def ready_in(self, needs: Mapping[str, int]) -> float:
        """Seconds until the amounts can be had, if no other caller takes any."""
        self._advance()
        now = self._clock()
        if self.degraded:
            return max(
                self._shares[name].allowed_at(self._taken[name] + need - self.free[name]) - now
                for name, need in needs.items()
            )
        soonest = 0.0
        for name, need in needs.items():
            refill = self.refills[name]
            used = max(self._used[name], refill.floor(now))
            soonest = max(soonest, refill.allowed_at(used + need - self.free[name]) - now)
        return soonest

    async def ask(self, needs: Mapping[str, int]) -> None:
        """Take what is missing, and a block in advance, from the counter, as far as it has it.

        One call at a time. Never raises for the counter: see `degraded`.
        """
        now = self._clock()
        if 0 <= now - self._failed_at < self._retry_seconds:
            return
        try:
            await self._ask(needs, now)
        except Exception as failure:  # noqa: BLE001 - calls wait for it; the share always works
            self._failed_at = now
            if not self.degraded:
                self._degrade(now)
                known = isinstance(failure, Problem | TimeoutError)
                reason = str(failure) or "no answer in time"
                _log.warning(
                    "%s: this server goes by its static share: %s",
                    *(self._counter, reason),
                    exc_info=None if known else failure,
                )

    async def return_surplus(self) -> None:
        """Return what other processes could use: all that is free here beyond a small block."""
        amounts = {}
        for name, refill in self.refills.items():
            kept = refill.capacity // (_CALLS_AHEAD * self.processes)
            if self.free[name] > 2 * kept:
                amounts[name] = kept - self.free[name]
        if not amounts or self.degraded:
            return
        for name, amount in amounts.items():
            self.free[name] += amount
        with suppress(Problem, TimeoutError):  # they flow in again with time
            await self._add(amounts, {})

    async def _ask(self, needs: Mapping[str, int], now: float) -> None:
        await self._count_process(now)
        floors = {name: refill.floor(now) for name, refill in self.refills.items()}
        low = {name: floor for name, floor in floors.items() if self._used[name] < floor}
        if low:
            await self._add(low, low)  # up to the floor
        self._check_clock(now)
        if self.degraded:
            self._advance()
            debt = {  # what was spent long ago has flowed in again
                name: min(self._debt[name], share.capacity - self.free[name])
                for name, share in self._shares.items()
            }
            self._debt = dict.fromkeys(self._debt, 0)
            if any(debt.values()):
                await self._add(debt, {})
            self.degraded = False
            self.free = dict.fromkeys(self.free, 0)
        self._advance()
        amounts = {}
        for name, refill in self.refills.items():
            missing = needs.get(name, 0) - self.free[name]
            if missing > 0:
                left = refill.allowed(now) - self._used[name]
                ahead = max(
                    _CALLS_AHEAD * needs.get(name, 0), 2 * self._spent[name], left // _IDLE_PART
                )
                amounts[name] = max(missing, min(ahead, left // _PART) // self.processes)
        self._spent = dict.fromkeys(self._spent, 0)
        window = self.number
        if amounts:
            limits = {name: refill.allowed(now) for name, refill in self.refills.items()}
            granted = await self._add(amounts, limits)
            self._advance()
            if window == self.number:  # else it has expired meanwhile
                for name, amount in granted.items():
                    self.free[name] += amount

    def _check_clock(self, now: float) -> None:
        """Check that the counter is not of a later time: then the clock of some server is wrong.

        Raises:
            StoreUnavailable: It is.
        """
        for name, refill in self.refills.items():
            ahead = self._used[name] - refill.allowed(now)
            if ahead > 2 * refill.capacity + refill.per_minute:
                seconds = ahead * 60.0 / refill.per_minute
                raise StoreUnavailable(
                    f"its counter is {seconds:,.0f} s ahead of this server's clock; is that of a "
                    "server wrong?"
                )

    def _degrade(self, now: float) -> None:
        """Go by the static share; it begins empty where a part was taken before."""
        self.degraded = True
        self._shares = {
            name: Refill(
                max(1, refill.per_minute // self.processes),
                max(1, refill.capacity // self.processes),
                refill.window,
            )
            for name, refill in self.refills.items()
        }
        self._taken = {
            name: share.allowed(now) if self.read_at else share.floor(now)
            for name, share in self._shares.items()
        }
        self.free = {name: min(0, each) for name, each in self.free.items()}

    async def _count_process(self, now: float) -> None:
        """Count this process once a minute, and read how many there were in the last one."""
        minute = int(now / _MINUTE)
        if minute == self._minute:
            return
        counter = f"{self._counter}/{_PROCESSES}"
        addition = Addition(
            counter=counter,
            window=str(minute),
            amounts={_PROCESSES: 1},
            expires_at=now + _KEPT_SECONDS,
        )
        async with asyncio.timeout(self._seconds):
            count = await self._counters.add(addition)
            before = await self._counters.read(counter, str(minute - 1))
        self._minute = minute
        self._processes = max(count.used.get(_PROCESSES, 1), before.get(_PROCESSES, 0))

    async def _add(self, amounts: Mapping[str, int], limits: dict[str, int]) -> dict[str, int]:
        now = self._clock()
        async with asyncio.timeout(self._seconds):
            count = await self._counters.add(
                Addition(
                    counter=self._counter,
                    window="bucket",
                    amounts=dict(amounts),
                    limits=limits,
                    expires_at=now + _KEPT_SECONDS,
                )
            )
        self.read_at = now
        for name in self._used:
            self._used[name] = count.used.get(name, self._used[name])
        return count.granted

    def _advance(self) -> None:
        """Account for the time: what expires, and the static share."""
        now = self._clock()
        if self.degraded:
            for name, share in self._shares.items():
                allowed = share.allowed(now)
                flowed = max(0, allowed - max(self._taken[name], share.floor(now)))
                self.free[name] = min(share.capacity, self.free[name] + flowed)
                self._taken[name] = allowed
            return
        if (window := self._window_at(now)) != self.number:
            self.number = window
            self.free = {name: min(0, each) for name, each in self.free.items()}
            return
        for name, refill in self.refills.items():
            # With what is free here the bucket is not more than full, either.
            most = self._used[name] - refill.floor(now)
            if self.free[name] > most:
                self.free[name] = max(0, most)

    def _window_at(self, now: float) -> int:
        window = next(iter(self.refills.values())).window
        return int(now / window) if window else 0
