"""Concurrency of a Lambda account."""

import math

from seawall.plan.decision.numbers import amount
from seawall.plan.decision.places.port import Variation
from seawall.plan.decision.windows import Month
from seawall.plan.inputs.question import Question, with_options

__all__ = ["limit_note", "limit_of", "limit_variation", "most_provisioned", "reserved_of"]

_UNRESERVED = 100


def limit_of(question: Question, month: Month) -> int:
    """Concurrency of the account: as given, or rounded up to thousands above the peak."""
    if question.options.account_limit is not None:
        return question.options.account_limit
    return max(1_000, math.ceil(1.1 * month.peak / 1_000.0) * 1_000)


def most_provisioned(limit: int) -> int:
    """The part of an account's concurrency that can be reserved or provisioned: all but 100.

    Source: https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html
    """
    return max(1, limit - _UNRESERVED)


def reserved_of(limit: int, peak: float, provisioned: int) -> int | None:
    """The concurrency to reserve for a spike; 100 must remain for other functions. None: none.

    It is at least `provisioned`: AWS refuses less.
    """
    wanted = max(math.ceil(1.1 * peak), provisioned)
    return wanted if 100 < wanted <= most_provisioned(limit) else None


def limit_note(question: Question, month: Month) -> list[str]:
    """A note if the account's limit is below the peak."""
    limit = question.options.account_limit
    if limit is None or month.peak <= limit:
        return []
    needs = f"The spike needs about {month.peak:,.0f} at once; beyond the account's limit of"
    return [f"{needs} {limit:,} Lambda refuses requests. The quota can be raised."]


def limit_variation(question: Question) -> Variation:
    """A variation of the account's limit."""
    limit = question.options.account_limit
    return Variation(
        input="options.account_limit",
        title="Lambda account's limit",
        base="raised as needed" if limit is None else amount(limit),
        low=("1,000", with_options(question, account_limit=1_000)),
        high=("raised as needed", with_options(question, account_limit=None)),
    )
