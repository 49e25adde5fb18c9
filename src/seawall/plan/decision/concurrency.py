"""Concurrency of a Lambda account: what it has, what of it is reserved, what pays provisioned."""

import math
from statistics import NormalDist

from seawall.plan.decision.windows import Month
from seawall.plan.inputs.question import Question

__all__ = ["limit_of", "most_provisioned", "reserved_of", "worth_provisioning"]

_UNRESERVED = 100


def limit_of(question: Question, month: Month) -> int:
    """Concurrency of the account: as given, or the least thousand that leaves room for the peak."""
    if question.options.account_limit is not None:
        return question.options.account_limit
    return max(1_000, math.ceil(1.1 * month.peak / 1_000.0) * 1_000)


def most_provisioned(limit: int) -> int:
    """Of an account's concurrency, what can be reserved or provisioned: all but 100.

    Source: https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html
    """
    return max(1, limit - _UNRESERVED)


def worth_provisioning(question: Question, month: Month) -> int:
    """Environments that cost less provisioned than on demand: they are busy for most of the time.

    One pays where the share of time for which so many are busy is more than the standing price
    through what a second costs less: 0.6 at AWS's prices. Busy are, in each piece of ordinary
    time, a Poisson number, as of a service where nobody waits (M/G/∞), here a normal one.
    """
    if question.options.announced and month.judged.event:
        return 0  # nothing is provisioned between spikes
    prices, arch = question.prices, question.options.architecture
    saved = prices.of(f"lambda.gb_seconds.{arch}").price
    saved -= prices.of(f"lambda.provisioned_duration.{arch}").price
    needed = prices.of(f"lambda.provisioned_gb_seconds.{arch}").price / max(saved, 1e-12)
    pieces = [each for each in (month.judged, *month.ordinary) if not each.event]
    mean, whole = question.workload.service.mean_seconds, sum(each.seconds for each in pieces)
    busy = [
        (each.workload.expected_requests / each.horizon * mean, each.seconds) for each in pieces
    ]

    def share(count: int) -> float:
        return sum(
            seconds * (1.0 - NormalDist(level, math.sqrt(level) or 1e-9).cdf(count - 0.5))
            for level, seconds in busy
        ) / max(whole, 1e-9)

    low, high = 0, math.ceil(month.usual) + 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if share(middle) >= needed else (low, middle - 1)
    return low


def reserved_of(limit: int, peak: float, provisioned: int) -> int | None:
    """What a crowd needs, kept from the account's other functions; they must keep 100.

    Not less than is provisioned of it: that would be refused.
    """
    wanted = max(math.ceil(1.1 * peak), provisioned)
    return wanted if 100 < wanted <= most_provisioned(limit) else None
