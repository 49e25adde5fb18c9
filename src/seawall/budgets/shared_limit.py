"""Limits that all processes share: local decisions, and a shared counter that is read rarely.

Requests to the counter are made by a task that the limit owns, one at a time. Callers that need
the outcome wait for it, and may be cancelled without harm to the others.
"""

import asyncio
import time
from collections.abc import Callable, Mapping

from msgspec import Struct

from seawall.errors import Problem
from seawall.storage.counters import Addition, Counters

__all__ = ["Allotment", "SharedLimit", "Window"]

_CALLS_AHEAD = 16
_PART = 4
_KEPT_SECONDS = 3_600.0  # that a counter outlives its window, for clock skew


class Window(Struct, frozen=True):
    """The time to which a limit applies: Unix seconds, and a unique name."""

    name: str
    starts: float
    ends: float


class Allotment:
    """This process's part of one measure in one window, such as the tokens of this minute.

    The process takes blocks of the shared limit and spends them locally. The size of a block
    follows demand and what is left: so a busy process rarely asks the counter, and near the limit
    no process takes what others could use. Amounts are whole units.

    Attributes:
        limit: Of all processes together.
        granted: What the shared counter gave this process, net of what was returned.
        spent: What was used here, or is reserved.
        used: By all processes, when the counter was last read.
    """

    __slots__ = ("_expected", "granted", "limit", "spent", "used")

    def __init__(self, limit: int, *, expected: int = 0) -> None:
        """Create it; `expected` is what this process spent in the previous window."""
        self.limit = limit
        self._expected = expected
        self.granted = 0
        self.spent = 0
        self.used = 0

    @property
    def free(self) -> int:
        """What can be spent now; negative after an overdraft."""
        return self.granted - self.spent

    @property
    def spendable(self) -> int:
        """What another call may take; reduced by the overdraft of all processes together."""
        return self.free - max(0, self.used - self.limit)

    @property
    def left(self) -> int:
        """The most that this process could still get in this window, by its last reading."""
        return self.free + max(0, self.limit - self.used)

    def spend(self, amount: int) -> None:
        """Use an amount; negative for what was reserved and not used."""
        self.spent += amount

    def grant(self, granted: int, used: int) -> None:
        """Record what the counter granted, and what it counts for all processes."""
        self.granted += granted
        self.used = used

    def block(self, need: int) -> int:
        """Return how much to ask the counter for when `need` is wanted; 0 if it is free.

        Sixteen times the need, or as much again as was spent in this window, or a quarter of
        what the previous window took, whatever is most; but at most a quarter of what is left of
        the limit, unless the need itself is larger. So the number of requests to the counter
        grows with the logarithm of the calls, and one process can use the whole limit.
        """
        missing = need - self.free
        if missing <= 0:
            return 0
        ahead = max(_CALLS_AHEAD * need, self.spent, self._expected // 4)
        return max(missing, min(ahead, (self.limit - self.used) // _PART))


class SharedLimit:
    """Limits on one shared counter, as one process sees them.

    Attributes:
        window: The present window.
        parts: By measure, what this process has of it.
    """

    def __init__(
        self,
        counters: Counters,
        counter: str,
        limits: Mapping[str, int],
        window: Callable[[float], Window],
        *,
        count_overspend: bool = False,
        recheck_seconds: float | None = None,
        seconds: float = 2.0,
        retry_seconds: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Create it; the counter is first asked by `ask`.

        Args:
            counters: Shared by all processes.
            counter: Name of the counter.
            limits: By measure, per window.
            window: Returns the window of a Unix time.
            count_overspend: Add to the counter what was spent beyond the limit.
            recheck_seconds: How long after the counter had nothing left it is asked again; None:
                not in this window.
            seconds: Longest wait for the counter.
            retry_seconds: How long the counter is not asked after a failure.
            clock: Unix time in seconds.
        """
        self._counters = counters
        self._counter = counter
        self._limits = dict(limits)
        self._window = window
        self._count_overspend = count_overspend
        self._recheck_seconds = recheck_seconds
        self._seconds = seconds
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._wanted = dict.fromkeys(self._limits, 0)
        self._adding: asyncio.Task[None] | None = None
        self._counted_at = 0.0
        self.failed_at: float | None = None
        self.window = window(clock())
        self.parts = {name: Allotment(limit) for name, limit in self._limits.items()}

    @property
    def degraded(self) -> bool:
        """Whether the last request to the counter failed."""
        return self.failed_at is not None

    @property
    def _backing_off(self) -> bool:
        """Whether the counter is not asked, after a recent failure."""
        return self.failed_at is not None and self._clock() < self.failed_at + self._retry_seconds

    def advance_window(self) -> None:
        """Advance to the current window; what was not spent of the previous one expires."""
        now = self._clock()
        if self.window.starts <= now < self.window.ends:
            return
        following = self._window(now).starts == self.window.ends
        self.window = self._window(now)
        self.parts = {
            name: Allotment(limit, expected=self.parts[name].spent if following else 0)
            for name, limit in self._limits.items()
        }
        self._counted_at = 0.0

    def fits(self, needs: Mapping[str, int]) -> bool:
        """Return whether these amounts can be spent now."""
        return all(self.parts[name].spendable >= need for name, need in needs.items())

    def spend(self, amounts: Mapping[str, int]) -> None:
        """Use amounts; negative for what was reserved and not used."""
        for name, amount in amounts.items():
            self.parts[name].spend(amount)

    def may_have_more(self, needs: Mapping[str, int]) -> bool:
        """Return whether the counter may have what is needed."""
        if self._backing_off:
            return False
        if all(self.parts[name].left >= need for name, need in needs.items()):
            return True
        again = self._recheck_seconds
        return again is not None and self._clock() >= self._counted_at + again

    async def ask(self, needs: Mapping[str, int], *, seconds: float | None = None) -> None:
        """Take what is needed, and a block in advance, from the counter, up to what it has.

        Callers that ask meanwhile share the request, or have to ask again. Never raises for the
        counter: see `degraded`.

        Args:
            needs: Amounts by measure.
            seconds: Longest wait; None for no limit.
        """
        for name, need in needs.items():
            self._wanted[name] += need
        try:
            await asyncio.wait((self._begin(),), timeout=seconds)
        finally:
            for name, need in needs.items():
                self._wanted[name] -= need

    def flush_overdraft(self) -> None:
        """Add to the counter, in the background, what was spent beyond the granted amounts."""
        if self._count_overspend and any(part.free < 0 for part in self.parts.values()):
            _ = self._begin()

    async def close(self, *, return_unspent: bool) -> None:
        """Finish pending requests.

        Args:
            return_unspent: Return what was not spent.

        Raises:
            Problem: The counter cannot be reached.
        """
        if self._adding is not None:
            await asyncio.wait((self._adding,))
        self.advance_window()
        amounts = {name: -part.free for name, part in self.parts.items() if part.free}
        if not return_unspent:
            amounts = {name: amount for name, amount in amounts.items() if amount > 0}
        if amounts and (return_unspent or self._count_overspend):
            await self._add(amounts, limited=False)

    def _begin(self) -> asyncio.Task[None]:
        if self._adding is None or self._adding.done():
            self._adding = asyncio.create_task(self._update())
        return self._adding

    async def _update(self) -> None:
        await asyncio.sleep(0)  # collect the needs of this round of the event loop
        self.advance_window()
        try:
            if self._count_overspend:
                debts = {name: -part.free for name, part in self.parts.items() if part.free < 0}
                if debts:
                    await self._add(debts, limited=False)
            blocks = {name: part.block(self._wanted[name]) for name, part in self.parts.items()}
            blocks = {name: amount for name, amount in blocks.items() if amount > 0}
            if not blocks:
                blocks = dict.fromkeys(self.parts, 0)  # see whether it can be reached
            await self._add(blocks, limited=True)
        except (Problem, TimeoutError):
            self.failed_at = self._clock()
        else:
            self.failed_at = None

    async def _add(self, amounts: dict[str, int], *, limited: bool) -> None:
        window, parts = self.window, self.parts
        addition = Addition(
            counter=self._counter,
            window=window.name,
            amounts=amounts,
            limits=self._limits if limited else {},
            expires_at=window.ends + _KEPT_SECONDS,
        )
        async with asyncio.timeout(self._seconds):
            count = await self._counters.add(addition)
        for name, part in parts.items():
            part.grant(count.granted.get(name, 0), count.used.get(name, part.used))
        if window is self.window:
            self._counted_at = self._clock()
