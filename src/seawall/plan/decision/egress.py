"""The way from a private network to the model: NAT gateways, or interface endpoints."""

from collections.abc import Sequence

from seawall.plan.decision.answer import CostItem, Egress
from seawall.plan.decision.numbers import money, share
from seawall.plan.decision.windows import Month
from seawall.plan.inputs.question import HOURS, Question

__all__ = ["egress_lines", "egress_of", "services_of"]

# Services that need an interface endpoint where there is no NAT; DynamoDB and S3 have gateway
# endpoints, which are free.
# Source: https://docs.aws.amazon.com/eks/latest/userguide/private-clusters.html
_SERVICES = {
    "lambda-managed": ("bedrock-runtime", "logs"),
    "eks": ("bedrock-runtime", "logs", "ecr.api", "ecr.dkr", "ec2", "sts", "elasticloadbalancing"),
}
_NAMES = {"nat": "NAT", "endpoints": "interface endpoints"}

Line = tuple[str, str, float]  # name of the price, title, quantity in a month


def services_of(name: str) -> Sequence[str]:
    """Services of a platform's private network that need an interface endpoint; none: it has none."""
    return _SERVICES.get(name, ())


def egress_lines(
    question: Question, month: Month, services: Sequence[str], how: str | None = None
) -> list[Line]:
    """Lines of the bill.

    Args:
        question: With the option `egress`.
        month: Of its workload.
        services: That have an interface endpoint each.
        how: `nat` or `endpoints`, in place of the option.
    """
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
    question: Question, month: Month, items: Sequence[CostItem], services: Sequence[str]
) -> Egress | None:
    """Both ways with their costs. None: the platform needs neither.

    Args:
        question: With the option `egress`.
        month: Of its workload.
        items: The platform's bill.
        services: Of the platform, that have an interface endpoint each; none: no private network.
    """
    if not services:
        return None
    costs = {
        how: sum(
            question.prices.of(name).price * quantity
            for name, _, quantity in egress_lines(question, month, services, how)
        )
        for how in _NAMES
    }
    used = question.options.egress
    other = "nat" if used == "endpoints" else "endpoints"
    whole, currency = sum(item.monthly for item in items), question.prices.currency
    part = costs[used] / whole if whole else 0.0
    words = (
        f"{_NAMES[used]} {money(costs[used], currency)} of {money(whole, currency)} a month "
        f"({share(part)}); {_NAMES[other]} would be {money(costs[other], currency)}"
    )
    if other == "endpoints":
        words += ", for a model on Bedrock"
    return Egress(
        used=used, nat=costs["nat"], endpoints=costs["endpoints"], share=part, words=words
    )
