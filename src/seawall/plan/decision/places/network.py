"""The way from a private network to the model, in a bill."""

from seawall.plan.decision.bill import Bill
from seawall.plan.decision.egress import egress_lines
from seawall.plan.decision.places.port import Family

__all__ = ["add_network"]


def add_network(lines: Bill, family: Family = "containers") -> None:
    """Add NAT gateways, or interface endpoints, to a bill."""
    for name, title, quantity in egress_lines(lines.question, lines.month, family):
        lines.add(name, title, quantity)
