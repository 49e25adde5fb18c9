"""Spending of one turn: reserved before its first model call, charged after every call."""

from typing import TYPE_CHECKING

from seawall.turn import Cost, ModelSpend, Usage

if TYPE_CHECKING:
    from seawall.budgets.budgets import Budgets, Reservation

__all__ = ["ModelSpend", "Spending"]


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

    def close(self) -> None:
        """End the turn, however it ended; an answer that other turns wait for may still charge."""
        if self._reservation is not None and not self._closed:
            self._closed = True
            self._reservation.end()
