"""A pod's share of a counter, window by window: local decisions, and now and then one addition.

Additions are made by a task that the share owns, one at a time; whoever needs the outcome waits
for it, and may be cancelled without harm to the others.
"""

import asyncio
import time
from collections.abc import Callable, Mapping

from msgspec import Struct

from seawall.errors import Problem
from seawall.resilience.allotment import Allotment
from seawall.storage.counters import Addition, Counters

__all__ = ["Share", "Window"]

_PODS = "pods"
_KEPT_SECONDS = 3_600.0  # a counter outlives its window, for clocks that are apart


class Window(Struct, frozen=True):
    """The time for which a limit counts: Unix seconds, and a name that no other window has."""

    name: str
    starts: float
    ends: float


class Share:
    """What one pod has of one counter.

    limits: by measure, for a window. window: the one that a time is in. census: count the pods
    that take part. forced: what was spent beyond the limit is added to the counter all the same.
    again_seconds: how long after the counter said that nothing is left it is asked again; None:
    not in this window. seconds: the longest that one addition may take. doubt_seconds: how long
    after one that failed the counter is left alone. clock: Unix time in seconds.
    """

    def __init__(
        self,
        counters: Counters,
        counter: str,
        limits: Mapping[str, int],
        window: Callable[[float], Window],
        *,
        count_processes: bool = False,
        count_overspend: bool = False,
        recheck_seconds: float | None = None,
        seconds: float = 2.0,
        retry_seconds: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._counters = counters
        self._counter = counter
        self._limits = dict(limits)
        self._window = window
        self._count_processes = count_processes
        self._count_overspend = count_overspend
        self._recheck_seconds = recheck_seconds
        self._seconds = seconds
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._wanted = dict.fromkeys(self._limits, 0)
        self._adding: asyncio.Task[None] | None = None
        self._looked_at = 0.0
        self._counted = False
        self._pods = self._pods_before = 0
        self.failed_at: float | None = None
        self.window = window(clock())
        self.parts = {name: Allotment(limit) for name, limit in self._limits.items()}

    @property
    def pods(self) -> int:
        """How many pods took part, at least: in this window or the one before; 0 if not known."""
        return max(self._pods, self._pods_before)

    @property
    def in_doubt(self) -> bool:
        """Whether the counter could not be asked when it was last tried."""
        return self.failed_at is not None

    @property
    def _left_alone(self) -> bool:
        """Whether the counter failed just now."""
        return self.failed_at is not None and self._clock() < self.failed_at + self._retry_seconds

    def advance_window(self) -> None:
        """Go on to the window that it is now. What was not spent of the last one is left to it."""
        now = self._clock()
        if self.window.starts <= now < self.window.ends:
            return
        following = self._window(now).starts == self.window.ends
        self.window = self._window(now)
        self.parts = {
            name: Allotment(limit, expected=self.parts[name].spent if following else 0)
            for name, limit in self._limits.items()
        }
        self._pods_before, self._pods, self._counted = self.pods if following else 0, 0, False
        self._looked_at = 0.0

    def fits(self, needs: Mapping[str, int]) -> bool:
        """Whether so much can be spent now."""
        return all(self.parts[name].spendable >= need for name, need in needs.items())

    def spend(self, amounts: Mapping[str, int]) -> None:
        """Use so much; less than zero for what was promised and not used."""
        for name, amount in amounts.items():
            self.parts[name].spend(amount)

    def may_have_more(self, needs: Mapping[str, int]) -> bool:
        """Whether the counter may have what is needed."""
        if self._left_alone:
            return False
        if all(self.parts[name].left >= need for name, need in needs.items()):
            return True
        again = self._recheck_seconds
        return again is not None and self._clock() >= self._looked_at + again

    async def ask(self, needs: Mapping[str, int], *, seconds: float | None = None) -> None:
        """Have what is needed, and more to come, taken from the counter, as far as it is there.

        seconds: the longest to wait for it. Whoever asks meanwhile shares in the addition, or
        has to ask again. Never fails: see `in_doubt`.
        """
        for name, need in needs.items():
            self._wanted[name] += need
        try:
            await asyncio.wait((self._begin(),), timeout=seconds)
        finally:
            for name, need in needs.items():
                self._wanted[name] -= need

    def probe(self) -> None:
        """See in the background, now and then, whether the counter can be asked again."""
        if not self._left_alone:
            _ = self._begin()

    def settle_debts(self) -> None:
        """Have what was spent beyond what there was added, in the background."""
        if self._count_overspend and any(part.free < 0 for part in self.parts.values()):
            _ = self._begin()

    async def close(self, *, give_back: bool) -> None:
        """Finish what was begun; give back what was not spent, if that is wished.

        Raises:
            Problem: the counter cannot be asked.
        """
        if self._adding is not None:
            await asyncio.wait((self._adding,))
        self.advance_window()
        amounts = {name: -part.free for name, part in self.parts.items() if part.free}
        if not give_back:
            amounts = {name: amount for name, amount in amounts.items() if amount > 0}
        if amounts and (give_back or self._count_overspend):
            await self._add(amounts, limited=False)

    def _begin(self) -> asyncio.Task[None]:
        if self._adding is None or self._adding.done():
            self._adding = asyncio.create_task(self._work())
        return self._adding

    async def _work(self) -> None:
        await asyncio.sleep(0)  # let all who come in this round say what they need
        self.advance_window()
        try:
            if self._count_overspend:
                debts = {name: -part.free for name, part in self.parts.items() if part.free < 0}
                if debts:
                    await self._add(debts, limited=False)
            blocks = {name: part.block(self._wanted[name]) for name, part in self.parts.items()}
            blocks = {name: amount for name, amount in blocks.items() if amount > 0}
            if self._count_processes and not self._counted:
                blocks[_PODS] = 1
            if not blocks:
                blocks = dict.fromkeys(self.parts, 0)  # only to see whether it answers
            await self._add(blocks, limited=True)
        except (Problem, TimeoutError):
            self.failed_at = self._clock()
        else:
            self.failed_at = None
            for part in self.parts.values():
                part.floor = 0

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
            self._looked_at = self._clock()
            self._counted = self._counted or _PODS in amounts
            self._pods = max(self._pods, count.used.get(_PODS, 0))
