"""Budgets of tenants and quotas of provider accounts: tokens and money per window.

Here: what single turns spend, and the prices, quotas and budgets of a process.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from seawall.settings import BILLION, BudgetSettings, ModelSettings, PriceSettings, QuotaSettings
from seawall.turn import Cost, ModelSpend, Usage

if TYPE_CHECKING:
    from seawall.budgets.budgets import Budgets, Reservation
    from seawall.budgets.quota import Quota
    from seawall.storage.counters import Counters

__all__ = [
    "Metering",
    "ModelSpend",
    "Spending",
    "open_metering",
]


class Spending:
    """Usage and cost of one turn, charged to its tenant's budget; implements `Meter`.

    Attributes:
        by_model: Usage and cost by the name of the model.
        cost: Of all models, in billionths of the currency.
        currency: Empty where there are no prices.
        estimated: The usage of some call was estimated.
        metered: Whether usage is counted at all.
    """

    __slots__ = (
        "_budgets",
        "_closed",
        "_reservation",
        "by_model",
        "cost",
        "currency",
        "estimated",
        "metered",
    )

    def __init__(
        self, budgets: "Budgets | None" = None, *, currency: str = "", metered: bool = False
    ) -> None:
        """Create the spending of a turn.

        Args:
            budgets: Of the tenants; None where none has a limit.
            currency: Of the prices; empty where there are none.
            metered: Whether usage is counted at all.
        """
        self._budgets = budgets
        self.currency = currency
        self._reservation: Reservation | None = None
        self._closed = False
        self.metered = metered
        self.by_model: dict[str, ModelSpend] = {}
        self.cost = 0
        self.estimated = False

    @property
    def has_budget(self) -> bool:
        """Whether a budget must permit the turn before anything is spent."""
        return self._budgets is not None

    async def reserve(self, tenant: str) -> None:
        """Reserve the cost of an average turn in the tenant's budgets; once per turn.

        Raises:
            BudgetExhausted: Nothing is left.
            StoreUnavailable: What is left cannot be determined.
        """
        if self._budgets is not None and self._reservation is None:
            self._reservation = await self._budgets.reserve(tenant)

    def charge(self, model: str, usage: Usage, cost: int, *, estimated: bool) -> None:
        """See `Meter.charge`."""
        on_model = self.by_model.setdefault(model, ModelSpend())
        on_model.usage += usage
        on_model.cost += cost
        self.cost += cost
        self.estimated = self.estimated or estimated
        if self._reservation is not None:
            tokens = usage.prompt_tokens + usage.completion_tokens
            self._reservation.charge({"tokens": tokens, "money": cost})

    def reported_cost(self) -> Cost | None:
        """Return the cost so far as reported to the client; None where there are no prices."""
        if not self.currency:
            return None
        return Cost(self.cost / 1e9, self.currency, self.estimated)

    def include(self, by_model: Mapping[str, ModelSpend]) -> None:
        """Report what was charged elsewhere together with this; it is not charged again."""
        for model, spent in by_model.items():
            on_model = self.by_model.setdefault(model, ModelSpend())
            on_model.usage += spent.usage
            on_model.cost += spent.cost

    def close(self) -> None:
        """End the turn, however it ended; an answer that other turns wait for may still charge."""
        if self._reservation is not None and not self._closed:
            self._closed = True
            self._reservation.end()


class Metering:
    """Prices, quotas and budgets of one process. Where none is configured it does nothing."""

    def __init__(
        self,
        models: Mapping[str, ModelSettings],
        quotas: "Mapping[str, Quota]",
        budgets: "Budgets | None",
    ) -> None:
        """Create it from its parts; see `open_metering`.

        Args:
            models: Settings of all models by name, for their prices.
            quotas: Quotas that a model uses, by name.
            budgets: None where no tenant has a limit.
        """
        self._models = models
        self.quotas = quotas
        self._budgets = budgets
        currencies = [each.price.currency for each in models.values() if each.price is not None]
        self._currency = currencies[0] if currencies else ""
        self._metered = bool(currencies or budgets)

    @property
    def counts(self) -> bool:
        """Whether anything has a price or a limit, so that calls have to be counted."""
        return self._metered

    def price_of(self, model: str) -> PriceSettings | None:
        """Return the price of a model; None where it has none."""
        settings = self._models.get(model)
        return settings.price if settings is not None else None

    def spending(self) -> Spending:
        """Return the spending of a turn that begins."""
        return Spending(self._budgets, currency=self._currency, metered=self._metered)

    async def close(self) -> None:
        """Return unused shares of budgets and quotas. The store must still be open."""
        if self._budgets is not None:
            await self._budgets.close()
        for quota in self.quotas.values():
            await quota.close()


class MeteringConfig(Protocol):
    """The parts of the configuration that metering needs."""

    @property
    def models(self) -> Mapping[str, ModelSettings]: ...
    @property
    def quotas(self) -> Mapping[str, QuotaSettings]: ...
    @property
    def budgets(self) -> BudgetSettings: ...


async def open_metering(
    settings: MeteringConfig, open_counters: "Callable[[], Awaitable[Counters]]"
) -> Metering:
    """Open the metering that the configuration asks for.

    Args:
        settings: Models with their prices, quotas and budgets.
        open_counters: Opens the counters that all processes share; called only where a quota or a
            budget needs them.

    Raises:
        StoreUnavailable: The counters cannot be prepared.
    """
    models, limits = settings.models, settings.budgets
    used = {
        each.quota
        for each in models.values()
        if each.quota and settings.quotas[each.quota].has_limits
    }
    if not used and not limits.has_limits:
        return Metering(models, {}, None)
    # Imported where configured: a cold start pays for every module.
    from seawall.budgets.budgets import Budgets  # noqa: PLC0415
    from seawall.budgets.quota import Quota  # noqa: PLC0415
    from seawall.budgets.reservation import rule_of  # noqa: PLC0415

    counters = await open_counters()
    prices = [each.price for each in models.values() if each.price is not None]
    highest = max((max(each.prompt, each.completion) for each in prices), default=0.0)
    return Metering(
        models,
        {
            name: Quota(name, quota, counters, rule=rule_of(quota, kinds))
            for name in sorted(used)
            for quota in (settings.quotas[name],)
            for kinds in ([each.kind for each in models.values() if each.quota == name],)
        },
        Budgets(limits, counters, highest_token_price=highest * BILLION / 1e6)
        if limits.has_limits
        else None,
    )
