"""The way from a private network to the model: NAT gateways."""

from seawall.plan.decision.bill import Bill
from seawall.plan.inputs.question import HOURS

__all__ = ["add_network"]


def add_network(lines: Bill) -> None:
    """Add NAT gateways to the model to a bill, one a zone."""
    question = lines.question
    zones = question.options.zones
    lines.add("nat.hours", "NAT gateways", zones * HOURS)
    lines.add("ipv4.hours", "NAT gateways, addresses", zones * HOURS)
    gb = lines.month.requests * question.each.kb_to_model / 1_048_576.0
    lines.add("nat.gb", "NAT gateways, data", gb)
