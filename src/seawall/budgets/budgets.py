"""Budgets of tenants, shared by all processes: a turn is admitted while something is left.

Each process has a share of a budget, from which it pays what its turns spend. An admitted turn
reserves what turns of its tenant cost on average; what it really costs is charged call by call. A
turn that has begun is not stopped, so a budget can be overdrawn: per process by what the turns in
flight at the end of its share cost beyond the average, and by one turn that the last remainder
admitted. Overdrafts are counted too.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from seawall.budgets.shared_limit import SharedLimit, Window
from seawall.errors import BudgetExhausted, Problem, StoreUnavailable
from seawall.settings import BILLION, BudgetLimits, BudgetSettings
from seawall.storage.counters import Counters

__all__ = ["BudgetState", "Budgets", "Reservation", "day_window", "month_window", "read_budgets"]

_log = logging.getLogger("seawall.budgets")

_FIRST_TOKENS = 1_000
_WEIGHT = 0.05
_RECHECK_SECONDS = 5.0
_RESERVED_RETRY_SECONDS = 5.0  # about the duration of a turn
_SWEEP_SECONDS = 60.0
_IDLE_SECONDS = 300.0


def day_window(now: float) -> Window:
    """Return the UTC day that contains a Unix time."""
    starts = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return _window(f"{starts:%Y-%m-%d}", starts, starts + timedelta(days=1))


def month_window(now: float) -> Window:
    """Return the UTC month that contains a Unix time."""
    starts = datetime.fromtimestamp(now, UTC).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )
    following = (starts + timedelta(days=31)).replace(day=1)
    return _window(f"{starts:%Y-%m}", starts, following)


def _window(name: str, starts: datetime, ends: datetime) -> Window:
    return Window(name, starts.timestamp(), ends.timestamp())


_PERIODS: dict[str, Callable[[float], Window]] = {"day": day_window, "month": month_window}


def _counter_name(tenant: str, period: str) -> str:
    """Return the name of the counter of a tenant's spending."""
    return f"budget/{period}/{tenant}"


def _limits_by_measure(limits: BudgetLimits, period: str) -> dict[str, int]:
    """Return the limits by measure: tokens, and money in billionths."""
    tokens = limits.tokens_per_day if period == "day" else limits.tokens_per_month
    money = limits.money_per_day if period == "day" else limits.money_per_month
    found: dict[str, int] = {}
    if tokens is not None:
        found["tokens"] = tokens
    if money is not None:
        found["money"] = round(money * BILLION)
    return found


class _Account:
    """One tenant's shares in this process, and the average cost of its turns."""

    def __init__(
        self, shares: dict[str, SharedLimit], average: dict[str, float], now: float
    ) -> None:
        self.shares = shares
        self.average = dict(average)
        self.reserved = {period: dict.fromkeys(share.parts, 0) for period, share in shares.items()}
        self.active_turns = 0
        self.used_at = now

    def needs(self, share: SharedLimit) -> dict[str, int]:
        """Return the expected cost of a turn in the measures of this share; at least 1."""
        return {measure: max(1, int(self.average[measure])) for measure in share.parts}


class Reservation:
    """What is reserved for one active turn, in each share."""

    def __init__(self, budgets: "Budgets", account: _Account) -> None:
        self._budgets = budgets
        self._account = account
        self._charged = {"tokens": 0, "money": 0}
        self._reserved: dict[str, tuple[Window, dict[str, int]]] = {}
        for period, share in account.shares.items():
            needs = account.needs(share)
            # At most what is left: the reservation itself must not overdraw the budget.
            reserved = {
                name: max(0, min(each, share.parts[name].free)) for name, each in needs.items()
            }
            share.spend(reserved)
            self._reserved[period] = share.window, reserved
            self._count(period, reserved, 1)
        account.active_turns += 1

    def _count(self, period: str, amounts: dict[str, int], sign: int) -> None:
        """Count what all turns of the tenant reserve together."""
        for measure, amount in amounts.items():
            self._account.reserved[period][measure] += sign * amount

    def charge(self, amounts: dict[str, int]) -> None:
        """Charge tokens and money, in the window in which they were caused."""
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
            share.flush_overdraft()

    def end(self) -> None:
        """End the turn: what is still reserved becomes free. Later charges still count."""
        for period, share in self._account.shares.items():
            share.advance_window()
            window, reserved = self._reserved[period]
            if window == share.window:
                share.spend({measure: -amount for measure, amount in reserved.items()})
            self._count(period, reserved, -1)
            self._reserved[period] = window, dict.fromkeys(reserved, 0)
        self._account.active_turns -= 1
        self._budgets.learn(self._account, self._charged)


class Budgets:
    """The budgets of all tenants, as one process sees them."""

    def __init__(
        self,
        settings: BudgetSettings,
        counters: Counters,
        *,
        highest_token_price: float = 0.0,
        seconds: float = 2.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Create the budgets; the shared counters are first asked by a turn.

        Args:
            settings: Limits by tenant.
            counters: Shared by all processes.
            highest_token_price: Of all models, in billionths: for the first estimate of a turn.
            seconds: Longest wait for a shared counter.
            clock: Unix time in seconds.
        """
        self._settings = settings
        self._counters = counters
        self._seconds = seconds
        self._clock = clock
        self._accounts: dict[str, _Account] = {}
        self._average: dict[str, float] = {
            "tokens": float(_FIRST_TOKENS),
            "money": _FIRST_TOKENS * highest_token_price,
        }
        self._swept_at = clock()
        self._closing: set[asyncio.Task[None]] = set()

    async def reserve(self, tenant: str) -> Reservation | None:
        """Reserve the average cost of a turn; None where nothing limits the tenant.

        Raises:
            BudgetExhausted: Nothing is left; the message names the budget that renews last.
            StoreUnavailable: Nothing is left in this process, and the counter cannot be reached.
        """
        account = self._account(tenant)
        if not account.shares:
            return None
        account.used_at = self._clock()
        account.active_turns += 1  # keeps the account open while it asks
        try:
            for share in account.shares.values():
                share.advance_window()
                needs = account.needs(share)
                least = dict.fromkeys(needs, 1)
                if not share.fits(needs) and share.may_have_more(least):
                    await share.ask(needs)
            self._check(account)
            return Reservation(self, account)
        finally:
            account.active_turns -= 1

    def learn(self, account: _Account, charged: dict[str, int]) -> None:
        """Update the average by the cost of a turn that has ended; free turns do not count."""
        if not charged["tokens"]:
            return
        for average in (account.average, self._average):
            for measure, amount in charged.items():
                average[measure] += _WEIGHT * (amount - average[measure])

    async def close(self) -> None:
        """Return what was not spent; else it stays counted until the window ends."""
        accounts, self._accounts = list(self._accounts.values()), {}
        for account in accounts:
            self._close_account(account)
        if self._closing:
            await asyncio.wait(self._closing)

    def _check(self, account: _Account) -> None:
        """Raise as `reserve` does if nothing is left."""
        latest: tuple[float, str, str, SharedLimit] | None = None
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
        if share.degraded:
            raise StoreUnavailable(
                "Your remaining budget cannot be determined now; nothing was spent.",
                retry_after=1.0,
            )
        if share.parts[measure].spendable + account.reserved[period][measure] > 0:
            raise BudgetExhausted(
                f"Your remaining budget of {measure} for this {period} is reserved for "
                "active turns.",
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

    def _account(self, tenant: str) -> _Account:
        account = self._accounts.get(tenant)
        if account is None:
            self._sweep()
            limits = self._settings.limits_for(tenant)
            shares = {
                period: SharedLimit(
                    self._counters,
                    _counter_name(tenant, period),
                    measures,
                    window,
                    count_overspend=True,
                    recheck_seconds=_RECHECK_SECONDS,
                    seconds=self._seconds,
                    clock=self._clock,
                )
                for period, window in _PERIODS.items()
                if (measures := _limits_by_measure(limits, period))
            }
            account = self._accounts[tenant] = _Account(shares, self._average, self._clock())
        return account

    def _sweep(self) -> None:
        """Close the accounts of tenants without recent turns."""
        now = self._clock()
        if now < self._swept_at + _SWEEP_SECONDS:
            return
        self._swept_at = now
        for tenant, account in list(self._accounts.items()):
            if not account.active_turns and now > account.used_at + _IDLE_SECONDS:
                self._close_account(self._accounts.pop(tenant))

    def _close_account(self, account: _Account) -> None:
        for share in account.shares.values():
            task = asyncio.create_task(_return_rest(share))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


async def _return_rest(share: SharedLimit) -> None:
    try:
        await share.close(return_unspent=True)
    except (Problem, TimeoutError) as error:
        _log.warning("an unspent reservation could not be returned to its budget: %s", error)


class BudgetState(Struct, frozen=True):
    """One budget in its present window; money in the currency, not in billionths.

    Attributes:
        used: Spent, and taken by running servers; more than the limit where it was overdrawn.
        renews_at: Unix seconds.
    """

    tenant: str
    budget: str
    limit: float
    used: float
    left: float
    window: str
    renews_at: float


async def read_budgets(
    settings: BudgetSettings, counters: Counters, tenant: str, now: float
) -> list[BudgetState]:
    """Return the state of a tenant's budgets; empty where nothing limits it.

    Args:
        settings: Limits by tenant.
        counters: Shared by all processes.
        tenant: Whose budgets to read.
        now: Unix seconds.

    Raises:
        StoreUnavailable: The counters cannot be read.
    """
    found: list[BudgetState] = []
    for period, window_of in _PERIODS.items():
        limits = _limits_by_measure(settings.limits_for(tenant), period)
        if not limits:
            continue
        window = window_of(now)
        used = await counters.read(_counter_name(tenant, period), window.name)
        for measure, limit in limits.items():
            unit = BILLION if measure == "money" else 1
            spent = used.get(measure, 0)
            found.append(
                BudgetState(
                    tenant=tenant,
                    budget=f"{measure}_per_{period}",
                    limit=limit / unit,
                    used=spent / unit,
                    left=max(0, limit - spent) / unit,
                    window=window.name,
                    renews_at=window.ends,
                )
            )
    return found
