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

from seawall.budgets.calendar import day_window, month_window
from seawall.budgets.prices import BILLION
from seawall.budgets.settings import BudgetLimits, BudgetSettings
from seawall.budgets.shared_limit import Share, Window
from seawall.errors import BudgetExhausted, Problem, StoreUnavailable
from seawall.storage.counters import Counters

__all__ = ["PERIODS", "Budgets", "counter_name", "limits_by_measure"]

_log = logging.getLogger("seawall.budgets")

PERIODS: dict[str, Callable[[float], Window]] = {"day": day_window, "month": month_window}
"""The window that a time is in, by the name of the period."""

_FIRST_TOKENS = 1_000
_WEIGHT = 0.05
_RECHECK_SECONDS = 5.0
_RESERVED_RETRY_SECONDS = 5.0  # about what a turn takes
_SWEEP_SECONDS = 60.0
_IDLE_SECONDS = 300.0


def counter_name(tenant: str, period: str) -> str:
    """The name of the counter of a tenant's spending."""
    return f"budget/{period}/{tenant}"


def limits_by_measure(limits: BudgetLimits, period: str) -> dict[str, int]:
    """By measure: tokens, and money in billionths."""
    tokens = limits.tokens_per_day if period == "day" else limits.tokens_per_month
    money = limits.money_per_day if period == "day" else limits.money_per_month
    found: dict[str, int] = {}
    if tokens is not None:
        found["tokens"] = tokens
    if money is not None:
        found["money"] = round(money * BILLION)
    return found


class _TenantAccount:
    """One tenant's shares in this pod, and what its turns cost on average."""

    def __init__(self, shares: dict[str, Share], average: dict[str, float], now: float) -> None:
        self.shares = shares
        self.average = dict(average)
        self.reserved = {period: dict.fromkeys(share.parts, 0) for period, share in shares.items()}
        self.active_turns = 0
        self.used_at = now

    def needs(self, share: Share) -> dict[str, int]:
        """What a turn may cost, as far as this share limits it; at least 1, or nothing is tried."""
        return {measure: max(1, int(self.average[measure])) for measure in share.parts}


class _Reservation:
    """Implements `Reservation`: what was set aside in each share, of which window."""

    def __init__(self, budgets: "Budgets", account: _TenantAccount) -> None:
        self._budgets = budgets
        self._account = account
        self._charged = {"tokens": 0, "money": 0}
        self._reserved: dict[str, tuple[Window, dict[str, int]]] = {}
        for period, share in account.shares.items():
            needs = account.needs(share)
            # No more than there is: what is promised must not be overdrawn by the promise.
            reserved = {
                name: max(0, min(each, share.parts[name].free)) for name, each in needs.items()
            }
            share.spend(reserved)
            self._reserved[period] = share.window, reserved
            self._note(period, reserved, 1)
        account.active_turns += 1

    def _note(self, period: str, amounts: dict[str, int], sign: int) -> None:
        """Keep count of what is set aside by all turns together."""
        for measure, amount in amounts.items():
            self._account.reserved[period][measure] += sign * amount

    def charge(self, amounts: dict[str, int]) -> None:
        """See `Reservation.charge`. A cost counts in the window in which it was caused."""
        for measure, amount in amounts.items():
            self._charged[measure] += amount
        for period, share in self._account.shares.items():
            share.advance_window()
            window, reserved = self._reserved[period]
            for measure in share.parts:
                amount = amounts[measure]
                covered = min(reserved[measure], amount) if window == share.window else 0
                reserved[measure] -= covered
                self._account.reserved[period][measure] -= covered
                share.spend({measure: amount - covered})
            share.settle_debts()

    def end(self) -> None:
        """See `Reservation.end`."""
        for period, share in self._account.shares.items():
            share.advance_window()
            window, reserved = self._reserved[period]
            if window == share.window:
                share.spend({measure: -amount for measure, amount in reserved.items()})
            self._note(period, reserved, -1)
            self._reserved[period] = window, dict.fromkeys(reserved, 0)
        self._account.active_turns -= 1
        self._budgets.learn(self._account, self._charged)


class Budgets:
    """The budgets of one process; implements `BudgetGate`.

    dearest: what a token of the dearest model costs, in billionths: a first guess at a turn.
    clock: Unix time in seconds.
    """

    def __init__(
        self,
        settings: BudgetSettings,
        counters: Counters,
        *,
        highest_token_price: float = 0.0,
        seconds: float = 2.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._counters = counters
        self._seconds = seconds
        self._clock = clock
        self._accounts: dict[str, _TenantAccount] = {}
        self._average: dict[str, float] = {
            "tokens": float(_FIRST_TOKENS),
            "money": _FIRST_TOKENS * highest_token_price,
        }
        self._swept_at = clock()
        self._closing: set[asyncio.Task[None]] = set()

    async def admit(self, tenant: str) -> _Reservation | None:
        """See `BudgetGate.admit`."""
        account = self._account(tenant)
        if not account.shares:
            return None
        account.used_at = self._clock()
        account.active_turns += 1  # not to be put away while it asks
        try:
            for share in account.shares.values():
                share.advance_window()
                needs = account.needs(share)
                least = dict.fromkeys(needs, 1)
                if not share.fits(needs) and share.may_have_more(least):
                    await share.ask(needs)
            self._check(account)
            return _Reservation(self, account)
        finally:
            account.active_turns -= 1

    def learn(self, account: _TenantAccount, charged: dict[str, int]) -> None:
        """A turn is over and has cost so much. Those that cost nothing say nothing."""
        if not charged["tokens"]:
            return
        for average in (account.average, self._average):
            for measure, amount in charged.items():
                average[measure] += _WEIGHT * (amount - average[measure])

    async def close(self) -> None:
        """Give back what was not spent, or it stays counted until the window ends."""
        accounts, self._accounts = list(self._accounts.values()), {}
        for account in accounts:
            self._close_account(account)
        if self._closing:
            await asyncio.wait(self._closing)

    def _check(self, account: _TenantAccount) -> None:
        """Raise if there is nothing left.

        Raises:
            BudgetExhausted: there is not; the message names the budget that renews last.
            StoreUnavailable: there is not as far as this pod knows, and it cannot ask.
        """
        latest: tuple[float, str, str, Share] | None = None
        for period, share in account.shares.items():
            share.advance_window()
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
        if share.parts[measure].spendable + account.reserved[period][measure] > 0:
            raise BudgetExhausted(
                f"What is left of your budget of {measure} for this {period} is set aside for "
                "turns that run.",
                field=field,
                retry_after=_RESERVED_RETRY_SECONDS,
            )
        renews = datetime.fromtimestamp(ends, UTC)
        raise BudgetExhausted(
            f"Your budget of {measure} for this {period} is used up; it renews at "
            f"{renews:%Y-%m-%dT%H:%M:%SZ}.",
            field=field,
            retry_after=float(max(1, math.ceil(ends - self._clock()))),
        )

    def _account(self, tenant: str) -> _TenantAccount:
        account = self._accounts.get(tenant)
        if account is None:
            self._sweep()
            limits = self._settings.of(tenant)
            shares = {
                period: Share(
                    self._counters,
                    counter_name(tenant, period),
                    measures,
                    window,
                    count_overspend=True,
                    recheck_seconds=_RECHECK_SECONDS,
                    seconds=self._seconds,
                    clock=self._clock,
                )
                for period, window in PERIODS.items()
                if (measures := limits_by_measure(limits, period))
            }
            account = self._accounts[tenant] = _TenantAccount(shares, self._average, self._clock())
        return account

    def _sweep(self) -> None:
        """Put away the purses of tenants that have not been here for a while."""
        now = self._clock()
        if now < self._swept_at + _SWEEP_SECONDS:
            return
        self._swept_at = now
        for tenant, account in list(self._accounts.items()):
            if not account.active_turns and now > account.used_at + _IDLE_SECONDS:
                self._close_account(self._accounts.pop(tenant))

    def _close_account(self, account: _TenantAccount) -> None:
        for share in account.shares.values():
            task = asyncio.create_task(_give_back(share))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


async def _give_back(share: Share) -> None:
    try:
        await share.close(give_back=True)
    except (Problem, TimeoutError) as error:
        _log.warning("what was left of a budget could not be given back: %s", error)
