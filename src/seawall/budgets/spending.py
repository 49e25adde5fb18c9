"""What one turn spends: admitted before its first model call, charged after every one."""

from typing import Protocol

from seawall.turn import Cost, ModelSpend, Usage

__all__ = ["BudgetGate", "ModelSpend", "Reservation", "Spending"]


class Reservation(Protocol):
    """What a budget has set aside for a turn that runs."""

    def charge(self, amounts: dict[str, int]) -> None:
        """So much was spent."""
        ...

    def end(self) -> None:
        """The turn is over: what is still set aside goes back. What it left may still charge."""
        ...


class BudgetGate(Protocol):
    """Decides whether a tenant may spend."""

    async def admit(self, tenant: str) -> Reservation | None:
        """Set aside what a turn costs on average; None where nothing limits the tenant.

        Raises:
            BudgetExhausted: nothing is left.
            StoreUnavailable: nobody can tell.
        """
        ...


class Spending:
    """Implements `Meter` for one turn. currency: of the costs; empty where there are no prices."""

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
        self, budgets: BudgetGate | None = None, *, currency: str = "", metered: bool = False
    ) -> None:
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
        """Whether a budget decides before anything may be spent."""
        return self._budgets is not None

    async def reserve(self, tenant: str) -> None:
        """Ask whether the turn may spend.

        Raises:
            BudgetExhausted: its tenant has nothing left.
            StoreUnavailable: nobody can tell.
        """
        if self._budgets is not None and self._reservation is None:
            self._reservation = await self._budgets.admit(tenant)

    def spent(self, model: str, usage: Usage, cost: int, *, estimated: bool) -> None:
        """See `Meter.spent`."""
        on_model = self.by_model.setdefault(model, ModelSpend())
        on_model.usage += usage
        on_model.cost += cost
        self.cost += cost
        self.estimated = self.estimated or estimated
        if self._reservation is not None:
            tokens = usage.prompt_tokens + usage.completion_tokens
            self._reservation.charge({"tokens": tokens, "money": cost})

    def reported_cost(self) -> Cost | None:
        """The cost so far, as it is told to the customer; None where there are no prices."""
        if not self.currency:
            return None
        return Cost(self.cost / 1e9, self.currency, self.estimated)

    def close(self) -> None:
        """The turn is over, however it ended; an answer that others wait for may still charge."""
        if self._reservation is not None and not self._closed:
            self._closed = True
            self._reservation.end()
