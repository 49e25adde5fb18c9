"""How far a tenant's budgets are used up, as the shared counters have it."""

from msgspec import Struct

from seawall.budgets.budgets import PERIODS, counter_name, limits_by_measure
from seawall.budgets.prices import BILLION
from seawall.budgets.settings import BudgetSettings
from seawall.storage.counters import Counters

__all__ = ["BudgetState", "read_budgets"]


class BudgetState(Struct, frozen=True):
    """One budget in its present window; money in the currency, not in billionths.

    used: spent, and set aside by servers that run; more than the limit where it was overdrawn.
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
    """The budgets of a tenant; none where nothing limits it.

    Raises:
        StoreUnavailable: the counters cannot be asked.
    """
    found: list[BudgetState] = []
    for period, window_of in PERIODS.items():
        limits = limits_by_measure(settings.of(tenant), period)
        if not limits:
            continue
        window = window_of(now)
        used = await counters.read(counter_name(tenant, period), window.name)
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
