"""What places outside AWS have in common: their prices, and traffic that costs more there."""

import math

from seawall.plan.decision.bill import Bill
from seawall.plan.decision.windows import Month
from seawall.plan.inputs.prices import Prices, load_cloud_prices
from seawall.plan.inputs.question import Question

__all__ = ["active_share", "add_traffic", "cloud_prices", "cloud_reasons"]


def cloud_prices(question: Question, cloud: str) -> Prices | None:
    """The prices of a cloud near the question's region. None: there are none."""
    return load_cloud_prices(cloud, question.prices.region)


def cloud_reasons(question: Question, cloud: str) -> list[str]:
    """A reason if the cloud has no prices near the question's region."""
    if cloud_prices(question, cloud) is not None:
        return []
    return [f"no prices of {cloud} near {question.prices.region}"]


def add_traffic(lines: Bill, prices: Prices) -> None:
    """Add traffic to clients, as far as it costs more than the shared costs assume."""
    more = prices.of("egress.gb").price - lines.prices.of("egress.gb").price
    gb = lines.month.requests * lines.question.each.kb_to_callers / 1_048_576.0
    if more > 0:
        lines.add("egress.gb", "traffic to clients, above AWS's", gb, price=more, prices=prices)


def active_share(month: Month, instances: int) -> float:
    """The share of time in which an instance has a request, with requests at random."""
    return 1.0 - math.exp(-month.busy / max(1, instances))
