"""The bill of a month: quantities used in its windows, times their prices."""

from collections.abc import Sequence

from msgspec import Struct

from seawall.plan.decision.answer import CostItem, SharedCosts
from seawall.plan.decision.windows import Month
from seawall.plan.inputs.prices import Prices, cost_of
from seawall.plan.inputs.question import Question
from seawall.plan.simulator.result import Usage

__all__ = ["Bill", "Used", "shared_costs", "used_in"]


class Used(Struct, frozen=True, kw_only=True):
    """Quantities used in a month; see `Usage`. attempts: answered or refused."""

    invocations: float = 0.0
    attempts: float = 0.0
    billed_seconds: float = 0.0
    billed_start_seconds: float = 0.0
    provisioned_seconds: float = 0.0
    provisioned_billed_seconds: float = 0.0
    restores: float = 0.0
    pod_seconds: float = 0.0
    node_seconds: float = 0.0
    cpu_seconds: float = 0.0


def used_in(pieces: Sequence[tuple[float, Usage, int]]) -> Used:
    """The quantities of a month, from windows: (times in a month, usage, attempts)."""
    totals = dict.fromkeys(Used.__struct_fields__, 0.0)
    for times, usage, attempts in pieces:
        totals["attempts"] += times * attempts
        for name in totals:
            if name != "attempts":
                totals[name] += times * getattr(usage, name)
    return Used(**totals)


class Bill:
    """Collects the lines of a bill.

    Args:
        question: With the prices.
        month: That is billed.
    """

    def __init__(self, question: Question, month: Month) -> None:
        self.question, self.month = question, month
        self.prices = question.prices
        self.items: list[CostItem] = []

    def add(
        self,
        name: str,
        title: str,
        quantity: float,
        *,
        price: float | None = None,
        unit: str = "",
        prices: Prices | None = None,
    ) -> None:
        """Add a line, unless its quantity is 0.

        Args:
            name: Of the price.
            title: For readers.
            quantity: In a month.
            price: Of one unit, in place of the file's.
            unit: Of the quantity, in place of the file's.
            prices: Of another cloud.
        """
        if quantity <= 0:
            return
        source = prices or self.prices
        found = source.of(name)
        each = cost_of(found, quantity) / quantity if price is None else price
        self.items.append(
            CostItem(
                name=name,
                title=title,
                monthly=quantity * each,
                quantity=quantity,
                unit=unit or found.unit,
                price=each,
                source=f"{found.source} ({source.date})",
                uncertain=found.uncertain,
            )
        )

    def log(
        self,
        used: Used,
        platform_kb: float = 0.0,
        *,
        prices: Prices | None = None,
        name: str = "logs.gb",
    ) -> None:
        """Add the logs.

        Args:
            used: In a month.
            platform_kb: What the platform itself logs for each invocation.
            prices: Of another cloud.
            name: Of the price; `logs.gb` if there is none of that name.
        """
        logged = used.invocations * (self.question.each.log_kb + platform_kb)
        known = (prices or self.prices).items
        self.add(name if name in known else "logs.gb", "logs", logged / 1_048_576.0, prices=prices)

    def lead_seconds(self) -> float:
        """Seconds a month of scheduled capacity outside of the simulated window."""
        question, month = self.question, self.month
        if not (question.options.announced and month.judged.event):
            return 0.0
        times = month.judged.seconds / month.judged.horizon
        lead = 2 * 60.0 * question.options.lead_minutes
        return times * max(0.0, lead - month.judged.horizon)


def _model(lines: Bill) -> None:
    """Tokens of the model at its list prices."""
    question, price = lines.question, lines.question.model
    tokens = (
        ("input", question.each.input_tokens, price.input),
        ("output", question.each.output_tokens, price.output),
    )
    for kind, each, of_million in tokens:
        quantity = lines.month.requests * each / 1e6
        if quantity > 0:
            lines.items.append(
                CostItem(
                    name=f"model.{kind}_tokens",
                    title=f"{price.title}, {kind}",
                    monthly=quantity * of_million,
                    quantity=quantity,
                    unit="million",
                    price=of_million,
                    source=f"{price.source} ({price.checked})",
                    uncertain=price.uncertain,
                )
            )


def shared_costs(question: Question, month: Month) -> SharedCosts:
    """Costs that are the same on every platform, if all requests are served."""
    lines, each, requests = Bill(question, month), question.each, month.requests
    _model(lines)
    lines.add("dynamodb.read_units", "DynamoDB, reads", requests * each.read_units / 1e6)
    lines.add("dynamodb.write_units", "DynamoDB, writes", requests * each.write_units / 1e6)
    lines.add("egress.gb", "traffic to clients", requests * each.kb_to_callers / 1_048_576.0)
    return SharedCosts(monthly=sum(item.monthly for item in lines.items), items=tuple(lines.items))
