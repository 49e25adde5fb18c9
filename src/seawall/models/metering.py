"""From settings to accounts: which models have quotas and prices, which tenants have budgets."""

from collections.abc import Mapping
from typing import Protocol

from seawall.budgets.budgets import Budgets
from seawall.budgets.prices import BILLION
from seawall.budgets.quota import Quota, QuotaSettings
from seawall.budgets.settings import BudgetSettings
from seawall.budgets.spending import Spending
from seawall.models.metered import MeteredModel
from seawall.models.port import Model
from seawall.models.settings import ModelSettings
from seawall.storage.port import SessionStore
from seawall.storage.settings import SessionSettings

__all__ = ["Metering", "open_metering"]


class Metering:
    """Quotas, prices and budgets. Where none is configured it does nothing and costs nothing.

    quotas: by name, those that a model uses.
    """

    def __init__(
        self,
        models: Mapping[str, ModelSettings],
        quotas: Mapping[str, Quota],
        budgets: Budgets | None,
    ) -> None:
        self._models = models
        self.quotas = quotas
        self._budgets = budgets
        currencies = [each.price.currency for each in models.values() if each.price is not None]
        self._currency = currencies[0] if currencies else ""
        self._metered = bool(currencies or budgets)

    def metered(self, name: str, model: Model) -> Model:
        """The model with its price."""
        if not self._metered:
            return model
        settings = self._models.get(name)
        return MeteredModel(
            name,
            model,
            price=settings.price if settings is not None else None,
        )

    def spending(self) -> Spending:
        """Of a turn that begins."""
        return Spending(self._budgets, currency=self._currency, metered=self._metered)

    async def close(self) -> None:
        """Give back what is left. The store must still be open."""
        if self._budgets is not None:
            await self._budgets.close()
        for quota in self.quotas.values():
            await quota.close()


class Configured(Protocol):
    """What is needed of the settings."""

    @property
    def models(self) -> Mapping[str, ModelSettings]: ...
    @property
    def quotas(self) -> Mapping[str, QuotaSettings]: ...
    @property
    def budgets(self) -> BudgetSettings: ...
    @property
    def sessions(self) -> SessionSettings: ...


async def open_metering(settings: Configured, store: SessionStore) -> Metering:
    """Accounts that are shared through the open store.

    Raises:
        StoreUnavailable: the counters cannot be prepared.
    """
    models, budgets = settings.models, settings.budgets
    wanted = {each.quota for each in models.values() if each.quota}
    if not wanted and not budgets.has_limits:
        return Metering(models, {}, None)
    counters = store.counters()
    await counters.open()
    highest_token_price = max(
        (
            max(each.price.prompt, each.price.completion) * BILLION / 1e6
            for each in models.values()
            if each.price is not None
        ),
        default=0.0,
    )
    return Metering(
        models,
        {name: Quota(name, settings.quotas[name], counters) for name in sorted(wanted)},
        Budgets(budgets, counters, highest_token_price=highest_token_price)
        if budgets.has_limits
        else None,
    )
