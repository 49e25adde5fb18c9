"""Budgets of tenants, shared by all pods: a turn is let in while there is something left.

Of each budget a pod has a share, from which it pays what its turns spend. A turn that is let in
has set aside what turns of its tenant cost on average; what it really costs is charged call by
call. A turn that has begun is not stopped, so a budget can be overdrawn: on each pod by what the
turns that run there at the end of its share cost beyond the average, and by one turn that the last
rest let in. What is overdrawn is counted too.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime

from seawall.budgets.calendar import day_of, month_of
from seawall.budgets.prices import BILLION
from seawall.budgets.settings import BudgetLimits, BudgetSettings
from seawall.counters.port import Counters
from seawall.counters.share import Share, Window
from seawall.errors import BudgetExhausted, Problem, StoreUnavailable

__all__ = ["PERIODS", "Budgets", "counter_of", "limits_of"]

_log = logging.getLogger("seawall.budgets")

PERIODS: dict[str, Callable[[float], Window]] = {"day": day_of, "month": month_of}
"""The window that a time is in, by the name of the period."""

_FIRST_TOKENS = 1_000
_WEIGHT = 0.05
_AGAIN_SECONDS = 5.0
_ASIDE_SECONDS = 5.0  # about what a turn takes
_SWEEP_SECONDS = 60.0
_IDLE_SECONDS = 300.0


def counter_of(tenant: str, period: str) -> str:
    """The name of the counter of a tenant's spending."""
    return f"budget/{period}/{tenant}"


def limits_of(limits: BudgetLimits, period: str) -> dict[str, int]:
    """By measure: tokens, and money in billionths."""
    tokens = limits.tokens_per_day if period == "day" else limits.tokens_per_month
    money = limits.money_per_day if period == "day" else limits.money_per_month
    found: dict[str, int] = {}
    if tokens is not None:
        found["tokens"] = tokens
    if money is not None:
        found["money"] = round(money * BILLION)
    return found


class _Purse:
    """One tenant's shares in this pod, and what its turns cost on average."""

    def __init__(self, shares: dict[str, Share], average: dict[str, float], now: float) -> None:
        self.shares = shares
        self.average = dict(average)
        self.aside = {period: dict.fromkeys(share.parts, 0) for period, share in shares.items()}
        self.running = 0
        self.used_at = now

    def needs(self, share: Share) -> dict[str, int]:
        """What a turn may cost, as far as this share limits it; at least 1, or nothing is tried."""
        return {measure: max(1, int(self.average[measure])) for measure in share.parts}


class _Promise:
    """Implements `Promise`: what was set aside in each share, of which window."""

    def __init__(self, budgets: "Budgets", purse: _Purse) -> None:
        self._budgets = budgets
        self._purse = purse
        self._charged = {"tokens": 0, "money": 0}
        self._aside: dict[str, tuple[Window, dict[str, int]]] = {}
        for period, share in purse.shares.items():
            needs = purse.needs(share)
            # No more than there is: what is promised must not be overdrawn by the promise.
            aside = {
                name: max(0, min(each, share.parts[name].free)) for name, each in needs.items()
            }
            share.spend(aside)
            self._aside[period] = share.window, aside
            self._note(period, aside, 1)
        purse.running += 1

    def _note(self, period: str, amounts: dict[str, int], sign: int) -> None:
        """Keep count of what is set aside by all turns together."""
        for measure, amount in amounts.items():
            self._purse.aside[period][measure] += sign * amount

    def charge(self, amounts: dict[str, int]) -> None:
        """See `Promise.charge`. A cost counts in the window in which it was caused."""
        for measure, amount in amounts.items():
            self._charged[measure] += amount
        for period, share in self._purse.shares.items():
            share.roll()
            window, aside = self._aside[period]
            for measure in share.parts:
                amount = amounts[measure]
                covered = min(aside[measure], amount) if window == share.window else 0
                aside[measure] -= covered
                self._purse.aside[period][measure] -= covered
                share.spend({measure: amount - covered})
            share.settle_debts()

    def end(self) -> None:
        """See `Promise.end`."""
        for period, share in self._purse.shares.items():
            share.roll()
            window, aside = self._aside[period]
            if window == share.window:
                share.spend({measure: -amount for measure, amount in aside.items()})
            self._note(period, aside, -1)
            self._aside[period] = window, dict.fromkeys(aside, 0)
        self._purse.running -= 1
        self._budgets.learn(self._purse, self._charged)


class Budgets:
    """The budgets of one process; implements `Treasury`.

    dearest: what a token of the dearest model costs, in billionths: a first guess at a turn.
    clock: Unix time in seconds.
    """

    def __init__(
        self,
        settings: BudgetSettings,
        counters: Counters,
        *,
        dearest: float = 0.0,
        seconds: float = 2.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._counters = counters
        self._seconds = seconds
        self._clock = clock
        self._purses: dict[str, _Purse] = {}
        self._average: dict[str, float] = {
            "tokens": float(_FIRST_TOKENS),
            "money": _FIRST_TOKENS * dearest,
        }
        self._swept_at = clock()
        self._closing: set[asyncio.Task[None]] = set()

    async def admit(self, tenant: str) -> _Promise | None:
        """See `Treasury.admit`."""
        purse = self._purse(tenant)
        if not purse.shares:
            return None
        purse.used_at = self._clock()
        purse.running += 1  # not to be put away while it asks
        try:
            for share in purse.shares.values():
                share.roll()
                needs = purse.needs(share)
                least = dict.fromkeys(needs, 1)
                if not share.fits(needs) and share.worth_asking(least):
                    await share.ask(needs)
            self._check(purse)
            return _Promise(self, purse)
        finally:
            purse.running -= 1

    def learn(self, purse: _Purse, charged: dict[str, int]) -> None:
        """A turn is over and has cost so much. Those that cost nothing say nothing."""
        if not charged["tokens"]:
            return
        for average in (purse.average, self._average):
            for measure, amount in charged.items():
                average[measure] += _WEIGHT * (amount - average[measure])

    async def close(self) -> None:
        """Give back what was not spent, or it stays counted until the window ends."""
        purses, self._purses = list(self._purses.values()), {}
        for purse in purses:
            self._put_away(purse)
        if self._closing:
            await asyncio.wait(self._closing)

    def _check(self, purse: _Purse) -> None:
        """Raise if there is nothing left.

        Raises:
            BudgetExhausted: there is not; the message names the budget that renews last.
            StoreUnavailable: there is not as far as this pod knows, and it cannot ask.
        """
        latest: tuple[float, str, str, Share] | None = None
        for period, share in purse.shares.items():
            share.roll()
            for measure, part in share.parts.items():
                if part.spendable <= 0:
                    found = (share.window.ends, measure, period, share)
                    latest = found if latest is None or found[0] > latest[0] else latest
        if latest is None:
            return
        ends, measure, period, share = latest
        field = f"budget.{measure}_per_{period}"
        if share.in_doubt:
            raise StoreUnavailable(
                "Nobody can tell now what is left of your budget; nothing was spent.",
                retry_after=1.0,
            )
        if share.parts[measure].spendable + purse.aside[period][measure] > 0:
            raise BudgetExhausted(
                f"What is left of your budget of {measure} for this {period} is set aside for "
                "turns that run.",
                field=field,
                retry_after=_ASIDE_SECONDS,
            )
        renews = datetime.fromtimestamp(ends, UTC)
        raise BudgetExhausted(
            f"Your budget of {measure} for this {period} is used up; it renews at "
            f"{renews:%Y-%m-%dT%H:%M:%SZ}.",
            field=field,
            retry_after=float(max(1, math.ceil(ends - self._clock()))),
        )

    def _purse(self, tenant: str) -> _Purse:
        purse = self._purses.get(tenant)
        if purse is None:
            self._sweep()
            limits = self._settings.of(tenant)
            shares = {
                period: Share(
                    self._counters,
                    counter_of(tenant, period),
                    measures,
                    window,
                    forced=True,
                    again_seconds=_AGAIN_SECONDS,
                    seconds=self._seconds,
                    clock=self._clock,
                )
                for period, window in PERIODS.items()
                if (measures := limits_of(limits, period))
            }
            purse = self._purses[tenant] = _Purse(shares, self._average, self._clock())
        return purse

    def _sweep(self) -> None:
        """Put away the purses of tenants that have not been here for a while."""
        now = self._clock()
        if now < self._swept_at + _SWEEP_SECONDS:
            return
        self._swept_at = now
        for tenant, purse in list(self._purses.items()):
            if not purse.running and now > purse.used_at + _IDLE_SECONDS:
                self._put_away(self._purses.pop(tenant))

    def _put_away(self, purse: _Purse) -> None:
        for share in purse.shares.values():
            task = asyncio.create_task(_give_back(share))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


async def _give_back(share: Share) -> None:
    try:
        await share.close(give_back=True)
    except (Problem, TimeoutError) as error:
        _log.warning("what was left of a budget could not be given back: %s", error)
