"""The reference article's rule of thumb, and where the simulation differs from it.

Source: «Lambda vs. EKS for AI Orchestration at Scale», section «My Rule of Thumb»: Lambda for short
requests (under 2-3 seconds), light initialisation, moderate concurrency, unpredictable traffic for
which paying by use matters; EKS for stateful services, expensive initialisation, spikes of
thousands, requests of several seconds. Numbers that the article does not give are ours and are
stated in the reasons.
"""

from collections.abc import Mapping
from typing import Literal

from seawall.plan.decision.answer import (
    Criterion,
    Disagreement,
    LambdaConfiguration,
    PlatformAnswer,
    PlatformName,
    RuleOfThumb,
)
from seawall.plan.decision.numbers import amount, by_times, money, seconds, share
from seawall.plan.decision.windows import Month
from seawall.plan.inputs.distributions import mean_of
from seawall.plan.inputs.question import Question

__all__ = ["rule_of_thumb"]

_LONG = 3.0
_EXPENSIVE = 0.5
_CROWD = 1_000.0
_BURSTY = 10.0

Side = Literal["lambda", "eks"]


def _criteria(question: Question, month: Month) -> list[Criterion]:
    service = question.workload.service
    mean, start = service.mean_seconds, mean_of(service.start)
    calls = sum(stage.store_calls for stage in service.stages)
    bursts = month.peak / max(month.busy, 1.0)

    def side(eks: bool) -> Side:
        return "eks" if eks else "lambda"

    return [
        Criterion(
            name="duration", value=seconds(mean), says=side(mean > _LONG),
            because="an environment is occupied for as long as the model takes"
            if mean > _LONG else "under two or three seconds from end to end",
        ),
        Criterion(
            name="initialisation", value=seconds(start), says=side(start >= _EXPENSIVE),
            because="every new environment pays for it again (expensive: from half a second)"
            if start >= _EXPENSIVE else "light (under half a second)",
        ),
        Criterion(
            name="concurrency", value=f"{amount(month.peak)} at once",
            says=side(month.peak >= _CROWD),
            because="a thousand environments and more, where pods share"
            if month.peak >= _CROWD else "moderate (under a thousand)",
        ),
        Criterion(
            name="burstiness", value=f"{amount(bursts)} times the ordinary",
            says=side(bursts >= _BURSTY and month.peak >= _CROWD),
            because="spikes of thousands arrive suddenly"
            if bursts >= _BURSTY and month.peak >= _CROWD
            else "no spike of thousands: paying by use matters",
        ),
        Criterion(
            name="statefulness",
            value=f"{calls} calls of the store, {service.connections} connections a process",
            says=side(calls > 0 and service.connections >= 3),
            because="sessions and connection pools that a process keeps"
            if calls > 0 and service.connections >= 3 else "little that a process has to keep",
        ),
    ]  # fmt: skip


def rule_of_thumb(
    question: Question,
    month: Month,
    platforms: Mapping[str, PlatformAnswer],
    choice: PlatformName,
) -> RuleOfThumb:
    """The rule's answer by the majority of its five criteria, and how the simulation differs."""
    criteria = _criteria(question, month)
    votes = sum(each.says == "eks" for each in criteria)
    says: Side = "eks" if votes > len(criteria) / 2 else "lambda"
    chosen: Side = "eks" if platforms[choice].family == "containers" else "lambda"
    found = []
    if says != chosen:
        found.append(_of_choice(says, choice, platforms, votes))
    for each in criteria:
        found += _of_criterion(each, question, platforms)
    return RuleOfThumb(
        choice=says,
        criteria=tuple(criteria),
        agrees=says == chosen,
        disagreements=tuple(found),
    )


def _of_choice(
    says: Side, choice: PlatformName, platforms: Mapping[str, PlatformAnswer], votes: int
) -> Disagreement:
    mine = platforms[choice]
    family = "containers" if says == "eks" else "functions"
    theirs = [each for each in platforms.values() if each.family == family]
    other = min(theirs, key=lambda each: (not each.met, each.monthly_cost), default=None)
    if other is None:
        why = "no such platform was compared, or can run the service"
    elif other.met:
        ratio = other.monthly_cost / max(mine.monthly_cost, 1e-9)
        why = (
            f"both meet the objective, and {other.title} costs "
            f"{money(other.monthly_cost)} a month to {money(mine.monthly_cost)}, "
            f"{by_times(ratio)} times"
        )
    elif mine.met:
        why = f"{other.title} does not meet the objective: {'; '.join(other.misses)}"
    else:
        why = f"neither meets the objective; {mine.title} is nearer"
    return Disagreement(
        about="choice",
        rule=f"{says.upper() if says == 'eks' else 'Lambda'}, by {max(votes, 5 - votes)} of five",
        simulation=mine.title,
        why=why,
    )


def _of_criterion(
    criterion: Criterion, question: Question, platforms: Mapping[str, PlatformAnswer]
) -> list[Disagreement]:
    """Where the simulation contradicts a criterion."""
    classic, pods = platforms.get("lambda"), platforms.get("eks")
    managed = platforms.get("lambda-managed")
    if classic is None or pods is None:
        return []
    if criterion.name == "initialisation" and criterion.says == "eks":
        slow, quick = classic.first_token.p99.value, pods.first_token.p99.value
        refused = classic.error_share.value or 0.0
        if refused > question.objective.error_share:
            return [
                Disagreement(
                    about="initialisation",
                    rule="cold starts make the spike slow",
                    simulation=f"{share(refused)} of the spike is not served on Lambda",
                    why="new environments are limited to 1,000 at once and 100 a second, so "
                    "the spike is throttled (429) before initialisation matters",
                )
            ]
        if slow is not None and quick is not None and classic.met:
            where = "Lambda"
            if isinstance(classic.configuration, LambdaConfiguration):
                count = classic.configuration.functions
                where = f"{count} identical functions" if count > 1 else where
            return [
                Disagreement(
                    about="initialisation",
                    rule="initialisation is expensive, so EKS",
                    simulation=f"first token p99 of {seconds(slow)} on {where}, "
                    f"{seconds(quick)} on pods",
                    why="the objective of "
                    f"{seconds(question.objective.first_token_p99)} has room for a cold start",
                )
            ]
    if criterion.name == "concurrency" and criterion.says == "eks" and managed and managed.met:
        return [
            Disagreement(
                about="concurrency",
                rule="one environment, one request",
                simulation="Lambda Managed Instances meet the objective for "
                f"{money(managed.monthly_cost)}",
                why="since 2025-11 an environment there serves many requests at once; capacity "
                "for a spike has to stand by, as with pods",
            )
        ]
    if (
        criterion.name == "duration"
        and criterion.says == "eks"
        and classic.met
        and classic.monthly_cost < pods.monthly_cost
    ):
        return [
            Disagreement(
                about="duration",
                rule="requests of several seconds, so EKS",
                simulation=f"Lambda costs {money(classic.monthly_cost)} a month, "
                f"EKS {money(pods.monthly_cost)}",
                why="there are too few requests to pay for a cluster that stands by",
            )
        ]
    return []
