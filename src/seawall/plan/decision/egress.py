"""The way from a private network to the model: NAT gateways, or interface endpoints."""

from collections.abc import Sequence
from typing import Literal

from seawall.plan.decision.answer import CostItem, Egress
from seawall.plan.decision.numbers import money, share
from seawall.plan.decision.windows import Month
from seawall.plan.inputs.question import HOURS, Question

__all__ = ["egress_lines", "egress_of"]

# Services that need an interface endpoint where there is no NAT; DynamoDB and S3 have gateway
# endpoints, which are free.
# Source: https://docs.aws.amazon.com/eks/latest/userguide/private-clusters.html
_SERVICES = {
    "functions": ("bedrock-runtime", "logs"),
    "containers": (
        "bedrock-runtime", "logs", "ecr.api", "ecr.dkr", "ec2", "sts", "elasticloadbalancing",
    ),
}  # fmt: skip
_NAMES = {"nat": "NAT", "endpoints": "interface endpoints"}

Family = Literal["functions", "containers"]
Line = tuple[str, str, float]  # name of the price, title, quantity in a month


def egress_lines(
    question: Question, month: Month, family: Family, how: str | None = None
) -> list[Line]:
    """Lines of the bill.

    Args:
        question: With the option `egress`.
        month: Of its workload.
        family: Of the place: containers need endpoints of more services.
        how: `nat` or `endpoints`, in place of the option.
    """
    services = _SERVICES[family]
    zones = question.options.zones
    gb = month.requests * question.each.kb_to_model / 1_048_576.0
    if (how or question.options.egress) == "endpoints":
        return [
            (
                "vpc_endpoint.hours",
                f"{len(services)} interface endpoints",
                len(services) * zones * HOURS,
            ),
            ("vpc_endpoint.gb", "interface endpoints, data", gb),
        ]
    return [
        ("nat.hours", "NAT gateways", zones * HOURS),
        ("ipv4.hours", "NAT gateways, addresses", zones * HOURS),
        ("nat.gb", "NAT gateways, data", gb),
    ]


def egress_of(
    question: Question, month: Month, items: Sequence[CostItem], family: Family
) -> Egress | None:
    """Both ways with their costs. None: the platform has no private network.

    Args:
        question: With the option `egress`.
        month: Of its workload.
        items: The platform's bill.
        family: Of the place.
    """
    if not any(item.name.startswith(("nat.", "vpc_endpoint.")) for item in items):
        return None
    costs = {
        how: sum(
            question.prices.of(name).price * quantity
            for name, _, quantity in egress_lines(question, month, family, how)
        )
        for how in _NAMES
    }
    used = question.options.egress
    other = "nat" if used == "endpoints" else "endpoints"
    whole, currency = sum(item.monthly for item in items), question.prices.currency
    part = costs[used] / whole if whole else 0.0
    words = (
        f"{_NAMES[used]} {money(costs[used], currency)} of {money(whole, currency)} "
        f"({share(part)}); {_NAMES[other]}{' (for Bedrock)' if other == 'endpoints' else ''} "
        f"{money(costs[other], currency)}"
    )
    return Egress(
        used=used, nat=costs["nat"], endpoints=costs["endpoints"], share=part, words=words
    )
