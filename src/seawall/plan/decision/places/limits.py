"""Limits of platforms that exclude a service, each with its source."""

from msgspec import Struct

from seawall.plan.decision.numbers import amount, seconds
from seawall.plan.inputs.distributions import mean_of, quantile_of
from seawall.plan.inputs.question import Question
from seawall.plan.inputs.service import Service

__all__ = [
    "ENTRIES",
    "LAMBDA_MB",
    "LAMBDA_SECONDS",
    "Entry",
    "duration_reasons",
    "entry_reasons",
    "missing_prices",
    "slowest",
    "start_reasons",
]

# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
LAMBDA_MB = 10_240
LAMBDA_SECONDS = 900.0
# Of provisioned concurrency, SnapStart and managed instances:
# https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
_PREPARED_START_SECONDS = 900.0


class Entry(Struct, frozen=True, kw_only=True):
    """How clients reach a function.

    Attributes:
        title: For readers.
        streams: Whether clients see an answer as it is made.
        seconds: Of a request at most.
        answer_mb: Of an answer at most.
        source: Of these.
    """

    title: str
    streams: bool
    seconds: float
    answer_mb: float
    source: str


ENTRIES = {
    "function-url": Entry(
        title="function URL", streams=True, seconds=LAMBDA_SECONDS, answer_mb=200.0,
        source="https://docs.aws.amazon.com/lambda/latest/dg/configuration-response-streaming.html",
    ),
    # Streams since 2025-11, up to 15 minutes; buffered it would be 29 s and 10 MB.
    "rest-api": Entry(
        title="REST API", streams=True, seconds=900.0, answer_mb=200.0,
        source="https://docs.aws.amazon.com/apigateway/latest/developerguide/"
        "response-transfer-mode.html",
    ),
    # 30 s, not to be raised; Lambda's 6 MB are less than its own 10.
    "http-api": Entry(
        title="HTTP API", streams=False, seconds=30.0, answer_mb=6.0,
        source="https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html",
    ),
    "alb": Entry(
        title="ALB", streams=False, seconds=LAMBDA_SECONDS, answer_mb=1.0,
        source="https://docs.aws.amazon.com/elasticloadbalancing/latest/application/"
        "lambda-functions.html",
    ),
}  # fmt: skip


def slowest(service: Service, error_share: float) -> float:
    """Seconds that a request takes without contention, but for a share that may fail.

    The model's stage, or without one the last, is taken at that quantile, the others at their mean.
    """
    stages = service.stages
    main = next((at for at, each in enumerate(stages) if each.model), len(stages) - 1)
    share = min(0.9999, max(0.5, 1.0 - error_share))
    return sum(
        quantile_of(each.seconds, share) if at == main else mean_of(each.seconds)
        for at, each in enumerate(stages)
    )


def duration_reasons(question: Question, most: float, what: str) -> list[str]:
    """A reason if requests take longer than `most` seconds, at the share that may not fail."""
    found = slowest(question.workload.service, question.objective.error_share)
    if found <= most:
        return []
    return [f"requests take {seconds(found)}; {what} cuts them off after {seconds(most)}"]


def entry_reasons(question: Question) -> list[str]:
    """Reasons against a function behind the entry of the options."""
    entry = ENTRIES[question.options.entry]
    found = duration_reasons(question, min(entry.seconds, LAMBDA_SECONDS), entry.title)
    answer = question.each.kb_to_callers / 1_024.0
    if answer > entry.answer_mb:
        found.append(
            f"answers have {amount(answer)} MB; behind {entry.title} they may have "
            f"{amount(entry.answer_mb)} MB"
        )
    return found


def start_reasons(question: Question, what: str) -> list[str]:
    """A reason if environments that are prepared in advance take too long to initialise."""
    start = mean_of(question.workload.service.start)
    if start <= _PREPARED_START_SECONDS:
        return []
    most = seconds(_PREPARED_START_SECONDS)
    return [f"an initialisation takes {seconds(start)}; {what} allows {most}"]


def missing_prices(question: Question, *names: str) -> list[str]:
    """A reason for each item without a price."""
    prices = question.prices
    return [f"{prices.file} has no price of {name}" for name in names if name not in prices.items]
