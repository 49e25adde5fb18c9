"""What can be configured about prices and budgets, and what of it must agree."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Protocol

from msgspec import Meta, Struct, field

__all__ = ["BudgetLimits", "BudgetSettings", "PriceSettings", "budget_faults"]

_Price = Annotated[float, Meta(ge=0, le=1_000_000)]
_Tokens = Annotated[int, Meta(ge=0, le=10**15)]
_Money = Annotated[float, Meta(ge=0, le=10**9)]


class PriceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model costs, by the million tokens.

    cached_prompt, cache_write: of those tokens of the prompt that the provider had in its cache,
    or put there; None: as the others of the prompt. currency: a label, the same for all models.
    """

    prompt: _Price
    completion: _Price
    cached_prompt: _Price | None = None
    cache_write: _Price | None = None
    currency: Annotated[str, Meta(pattern=r"^[A-Za-z]{1,8}$")] = "USD"


class BudgetLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one tenant may spend in a calendar day or month, UTC; None for no limit."""

    tokens_per_day: _Tokens | None = None
    tokens_per_month: _Tokens | None = None
    money_per_day: _Money | None = None
    money_per_month: _Money | None = None


class BudgetSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Budgets. A tenant that has a table of its own has what is in there, and not the default."""

    default: BudgetLimits = BudgetLimits()
    tenants: dict[str, BudgetLimits] = field(default_factory=dict)

    def of(self, tenant: str) -> BudgetLimits:
        """The limits of a tenant."""
        return self.tenants.get(tenant, self.default)

    @property
    def has_limits(self) -> bool:
        """Whether anybody has a limit."""
        return any(each != BudgetLimits() for each in (self.default, *self.tenants.values()))


class _Priced(Protocol):
    @property
    def price(self) -> PriceSettings | None: ...


def budget_faults(
    budgets: BudgetSettings, models: Mapping[str, _Priced]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """What does not agree: the keys that are wrong, and why."""
    first: str | None = None
    for name, model in models.items():
        if model.price is None:
            continue
        first = first or model.price.currency
        if model.price.currency != first:
            yield (
                ("models", name, "price", "currency"),
                f"must be {first}, as that of the models before: costs are added up",
            )
    limits = (budgets.default, *budgets.tenants.values())
    if any(each.money_per_day is not None or each.money_per_month is not None for each in limits):
        for name, model in models.items():
            if model.price is None:
                yield ("models", name, "price"), "must be set, since a budget limits money"
