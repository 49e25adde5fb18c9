"""Metering of model calls: prices, provider quotas and tenant budgets."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol

from seawall.budgets.settings import BILLION, BudgetSettings, PriceSettings, QuotaSettings, cost_of
from seawall.budgets.spending import Spending
from seawall.errors import UpstreamFailed
from seawall.models.port import (
    CHARACTERS_PER_TOKEN,
    Finish,
    Meter,
    Model,
    ModelEvent,
    ModelRequest,
    Progress,
    Text,
    ToolCalls,
    estimate_prompt_tokens,
)
from seawall.models.settings import ModelSettings
from seawall.turn import Usage

if TYPE_CHECKING:
    from seawall.budgets.budgets import Budgets
    from seawall.budgets.quota import Quota
    from seawall.storage.counters import Counters

__all__ = ["MeteredModel", "Metering", "open_metering"]


class MeteredModel:
    """Charges every attempt of a model to the turn's meter.

    Wrapped directly around the adapter, inside retries and hedges. An attempt is charged whether
    it succeeded, failed or was cut off, because providers bill for it. Where the provider does
    not report the usage, it is estimated.
    """

    def __init__(self, name: str, model: Model, *, price: PriceSettings | None) -> None:
        """Wrap a model.

        Args:
            name: Name in the configuration.
            model: The adapter.
            price: None to count tokens only.
        """
        self._name = name
        self._model = model
        self._price = price

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`."""
        attempt = _Attempt()
        try:
            async with aclosing(self._model.stream(request, deadline=deadline)) as events:
                async for event in events:
                    attempt.take(event)
                    yield event
        except UpstreamFailed:
            attempt.refused = not attempt.written
            raise
        finally:
            if request.meter is not None and not attempt.refused:
                self._charge(request, request.meter, attempt)

    async def warm(self) -> None:
        """See `Model.warm`."""
        await self._model.warm()

    async def close(self) -> None:
        """See `Model.close`."""
        await self._model.close()

    def _charge(self, request: ModelRequest, meter: Meter, attempt: "_Attempt") -> None:
        usage, estimated = attempt.usage, not attempt.reported
        if estimated:
            written = -(-attempt.written // CHARACTERS_PER_TOKEN)
            usage = Usage(estimate_prompt_tokens(request), written, 1)
        cost = cost_of(usage, self._price) if self._price is not None else 0
        meter.charge(self._name, usage, cost, estimated=estimated)


class _Attempt:
    """One attempt so far: characters written, usage, and whether it failed before any output."""

    __slots__ = ("refused", "usage", "written")

    def __init__(self) -> None:
        self.written = 0
        self.usage = Usage()
        self.refused = False

    @property
    def reported(self) -> bool:
        """Whether the provider reported the usage."""
        return bool(self.usage.prompt_tokens or self.usage.completion_tokens)

    def take(self, event: ModelEvent) -> None:
        """Count an event."""
        if type(event) is Text:
            self.written += len(event.text)
        elif type(event) is Progress:
            self.written += len(event.reasoning)
        elif type(event) is ToolCalls:
            called = event.calls + event.unfinished
            self.written += sum(len(call.name) + len(call.arguments) for call in called)
        elif type(event) is Finish:
            self.usage = event.usage


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

    def metered(self, name: str, model: Model) -> Model:
        """Return the model with its price; as it is, where nothing is metered."""
        if not self._metered:
            return model
        settings = self._models.get(name)
        return MeteredModel(name, model, price=settings.price if settings is not None else None)

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
    used = {each.quota for each in models.values() if each.quota}
    if not used and not limits.has_limits:
        return Metering(models, {}, None)
    # Imported where configured: a cold start pays for every module.
    from seawall.budgets.budgets import Budgets  # noqa: PLC0415
    from seawall.budgets.quota import Quota  # noqa: PLC0415

    counters = await open_counters()
    prices = [each.price for each in models.values() if each.price is not None]
    highest = max((max(each.prompt, each.completion) for each in prices), default=0.0)
    return Metering(
        models,
        {name: Quota(name, settings.quotas[name], counters) for name in sorted(used)},
        Budgets(limits, counters, highest_token_price=highest * BILLION / 1e6)
        if limits.has_limits
        else None,
    )
