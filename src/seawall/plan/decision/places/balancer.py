"""An application load balancer, and the entry points of functions."""

from seawall.plan.decision.bill import Bill, Used
from seawall.plan.inputs.question import HOURS, MONTH

__all__ = ["add_balancer", "add_entry"]


def add_balancer(lines: Bill, *, gb_each: float = 1.0) -> None:
    """Add a balancer to a bill: an LCU is 25 new and 3,000 open connections, 1 GB an hour.

    The greatest of them is charged, here on average over the month (AWS: by hour). Traffic between
    zones is free. Source: https://aws.amazon.com/elasticloadbalancing/pricing/

    Args:
        lines: The bill.
        gb_each: GB an hour of a unit: 0.4 where functions are its targets.
    """
    question, month = lines.question, lines.month
    rate = month.requests / MONTH
    gb_an_hour = rate * 3_600.0 * question.each.kb_to_callers / 1_048_576.0
    units = max(rate / 25.0, month.busy / 3_000.0, gb_an_hour / gb_each)
    lines.add("alb.hours", "load balancer", HOURS)
    lines.add("alb.lcu_hours", "load balancer, capacity units", units * HOURS)
    zones = question.options.zones
    lines.add("ipv4.hours", "load balancer, addresses", zones * HOURS)


def add_entry(lines: Bill, entry: str, used: Used) -> None:
    """Add the entry point of a function to a bill; a function URL costs nothing."""
    if entry == "http-api":
        lines.add("api_gateway.http", "API Gateway, HTTP", used.attempts / 1e6)
    elif entry == "rest-api":
        lines.add("api_gateway.rest", "API Gateway, REST", used.attempts / 1e6)
    elif entry == "alb":
        add_balancer(lines, gb_each=0.4)
