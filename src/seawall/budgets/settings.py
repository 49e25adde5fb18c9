"""Settings of prices, budgets and quotas; what usage costs at these prices."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Protocol

from msgspec import Meta, Struct, field

from seawall.turn import Usage

__all__ = [
    "BILLION",
    "BudgetLimits",
    "BudgetSettings",
    "PriceSettings",
    "QuotaSettings",
    "budget_faults",
    "cost_of",
]

BILLION = 1_000_000_000
"""Amounts of money are whole billionths of the currency, so that sums are exact."""

_Price = Annotated[float, Meta(ge=0, le=1_000_000)]
_Tokens = Annotated[int, Meta(ge=0, le=10**15)]
_Money = Annotated[float, Meta(ge=0, le=10**9)]


class PriceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of a model per million tokens.

    Attributes:
        prompt: Of prompt tokens.
        completion: Of completion tokens.
        cached_prompt: Of prompt tokens read from the provider's cache; None: as `prompt`.
        cache_write: Of prompt tokens written to the provider's cache; None: as `prompt`.
        currency: A label, the same for all models.
    """

    prompt: _Price
    completion: _Price
    cached_prompt: _Price | None = None
    cache_write: _Price | None = None
    currency: Annotated[str, Meta(pattern=r"^[A-Za-z]{1,8}$")] = "USD"


class QuotaSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of an account at a provider, shared by the models that name it; 0 for no limit.

    Attributes:
        requests_per_minute: Requests of all processes together.
        tokens_per_minute: Prompt and completion tokens of all processes together.
        window_seconds: Length of the windows that are counted, each with its part of a minute's.
        pods: Processes that share the account; used while the shared counter cannot be reached
            and the number is not known from it.
    """

    requests_per_minute: Annotated[int, Meta(ge=0, le=10**12)] = 0
    tokens_per_minute: Annotated[int, Meta(ge=0, le=10**15)] = 0
    window_seconds: Annotated[float, Meta(ge=0.1, le=60.0)] = 60.0
    pods: Annotated[int, Meta(ge=1, le=100_000)] = 1


class BudgetLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one tenant per calendar day or month, UTC; None for no limit."""

    tokens_per_day: _Tokens | None = None
    tokens_per_month: _Tokens | None = None
    money_per_day: _Money | None = None
    money_per_month: _Money | None = None


class BudgetSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Budgets by tenant. A tenant with a table of its own inherits none of the default."""

    default: BudgetLimits = BudgetLimits()
    tenants: dict[str, BudgetLimits] = field(default_factory=dict)

    def limits_for(self, tenant: str) -> BudgetLimits:
        """Return the limits of a tenant."""
        return self.tenants.get(tenant, self.default)

    @property
    def has_limits(self) -> bool:
        """Whether any tenant has a limit."""
        return any(each != BudgetLimits() for each in (self.default, *self.tenants.values()))


class _Priced(Protocol):
    @property
    def price(self) -> PriceSettings | None: ...


def budget_faults(
    budgets: BudgetSettings, models: Mapping[str, _Priced]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the keys that contradict each other, and why."""
    first: str | None = None
    for name, model in models.items():
        if model.price is None:
            continue
        first = first or model.price.currency
        if model.price.currency != first:
            yield (
                ("models", name, "price", "currency"),
                f"must be {first}, as that of the other models: costs are added up",
            )
    limits = (budgets.default, *budgets.tenants.values())
    if any(each.money_per_day is not None or each.money_per_month is not None for each in limits):
        for name, model in models.items():
            if model.price is None:
                yield ("models", name, "price"), "must be set, because a budget limits money"


def cost_of(usage: Usage, price: PriceSettings) -> int:
    """Return the cost of calls, in billionths of the currency, rounded to the nearest."""
    cached, written = usage.cached_prompt_tokens, usage.cache_write_tokens
    read = max(0, usage.prompt_tokens - cached - written)
    cached_price = price.prompt if price.cached_prompt is None else price.cached_prompt
    written_price = price.prompt if price.cache_write is None else price.cache_write
    return round(
        BILLION
        // 1_000_000
        * (
            read * price.prompt
            + cached * cached_price
            + written * written_price
            + usage.completion_tokens * price.completion
        )
    )
