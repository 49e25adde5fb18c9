"""The answer in two sentences, and what to know besides."""

from collections.abc import Mapping

from seawall.plan.decision.answer import LambdaConfiguration, PlatformAnswer, PlatformName
from seawall.plan.decision.text import TITLES, amount, money, seconds
from seawall.plan.decision.windows import Month
from seawall.plan.inputs.question import Question

__all__ = ["notes_of", "summary_of"]

_QUOTA = 1_000


def summary_of(
    question: Question,
    month: Month,
    platforms: Mapping[str, PlatformAnswer],
    choice: PlatformName,
    runner_up: PlatformName,
) -> str:
    """What to do, and why."""
    mine, other = platforms[choice], platforms[runner_up]
    currency = question.prices.currency
    cost = money(mine.monthly_cost, currency)
    crowd = f"a crowd of {amount(month.judged.size)}" if month.judged.event else "the busiest hour"
    if not mine.met:
        return (
            f"None holds the objective in {crowd}; {mine.title} comes nearest "
            f"({'; '.join(mine.misses)}) for {cost} a month."
        )
    p99 = seconds(mine.first_token.p99.value)
    text = f"{mine.title} serves {crowd} with a first token p99 of {p99} for {cost} a month."
    if other.met:
        costs = money(other.monthly_cost, currency)
        return f"{text} {TITLES[runner_up]} would too, for {costs}."
    return f"{text} {TITLES[runner_up]} would not: {'; '.join(other.misses)}."


def notes_of(
    question: Question,
    month: Month,
    platforms: Mapping[str, PlatformAnswer],
    choice: PlatformName,
) -> tuple[str, ...]:
    """What the reader has to see to, or should not take for granted."""
    found = []
    mine = platforms[choice]
    configuration = mine.configuration
    if isinstance(configuration, LambdaConfiguration):
        if configuration.account_concurrency > _QUOTA:
            found.append(
                f"Ask for a Lambda concurrency quota of {configuration.account_concurrency:,}; "
                "an account has 1,000 by default, new ones less."
            )
        if not configuration.streams:
            found.append(
                f"Entry {configuration.entry} does not stream: callers wait for the whole."
            )
        found.append("AWS's own Python runtime does not stream; Seawall's does (docs/lambda.md).")
    found += _out_of_reach(question)
    if month.judged.event:
        calls = mine.peak.get("model_calls", 0.0)
        found.append(
            f"The model has to take {calls:,.0f} calls at once, wherever this runs: "
            "look at your quota."
        )
    between = mine.ordinary
    slow = between.first_token_p99 or 0.0
    objective = question.objective
    if slow > objective.first_token_p99 or between.error_share > objective.error_share:
        found.append(
            f"Between spikes, where the objective is not asked for: first token p99 "
            f"{seconds(slow)}, errors {between.error_share:.1%}."
        )
    limit = question.options.account_limit
    if limit is not None and month.peak > limit:
        found.append(
            f"The spike needs about {month.peak:,.0f} at once; the account's limit of {limit:,} "
            "refuses the rest on Lambda. It is a quota that can be raised."
        )
    classic = platforms["lambda"]
    if choice != "lambda" and not classic.met and month.peak > _QUOTA:
        found.append(
            "Lambda starts 1,000 environments at once and 100 a second after: no memory size "
            "changes that."
        )
    if question.options.announced and month.judged.event:
        minutes = question.options.lead_minutes
        found.append(f"Capacity is scheduled {minutes:g} minutes around each announced spike.")
    unsure = sorted({item.name for item in mine.items if item.uncertain and item.monthly >= 1.0})
    if unsure:
        found.append(f"Prices to look up before you rely on them: {', '.join(unsure)}.")
    found.append(
        "Lambda MicroVMs are not compared: they run one tenant's code for hours each, not a crowd."
    )
    return tuple(found)


def _out_of_reach(question: Question) -> list[str]:
    """An objective that the model alone misses is not the platform's to hold."""
    service, most = question.workload.service, question.objective.first_token_p99
    first = service.first_token_p99
    if first <= most:
        return []
    words = f"No platform can hold a first token p99 of {seconds(most)}: with nobody else there"
    return [f"{words} the service takes {seconds(first)}, most of it the model."]
