"""Explanation of a platform's result in numbers: from the arrivals to what breaks first."""

import math
import os
from collections.abc import Sequence
from statistics import fmean

from msgspec import Struct

from seawall.plan.decision.answer import PlatformName
from seawall.plan.decision.limits_hit import begin_of, limits_hit
from seawall.plan.decision.numbers import amount, money, price, seconds, share, within
from seawall.plan.decision.places.port import Candidate, Evaluation
from seawall.plan.decision.places.registry import title_of
from seawall.plan.decision.runs import SHARES, Outcome, Report, SimulationRunner, platform_in
from seawall.plan.decision.search import CandidateSearch, misses_of
from seawall.plan.decision.variations import with_traffic
from seawall.plan.decision.windows import Month, month_of
from seawall.plan.inputs.question import Question
from seawall.plan.simulator.replications import interval
from seawall.plan.simulator.result import Result

__all__ = ["EXPLANATION_SCHEMA", "Explanation", "Step", "explain"]

EXPLANATION_SCHEMA = "seawall.plan.explain/1"
_SEEDS = 5
_INSTANTS = (-1.0, 0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
_MULTIPLES = tuple(round(1.05 * 1.1**step, 2) for step in range(25))  # up to ten times the traffic


class Step(Struct, frozen=True, kw_only=True):
    """A step of the explanation.

    Attributes:
        name: `arrivals`, `in-flight`, `capacity`, `waits`, `percentiles`, `bill`, `margin` or
            `breaks-first`.
        title: For readers.
        words: Sentences and lines for readers.
        values: The figures by name, in seconds, requests, money or shares. None: there is none.
    """

    name: str
    title: str
    words: tuple[str, ...]
    values: dict[str, float | None]


class Explanation(Struct, frozen=True, kw_only=True):
    """The explanation of a platform's result.

    Attributes:
        platform: Its name.
        title: For readers.
        met: Whether it meets the objective.
        configuration: In words.
        steps: In order: each follows from those before it.
        schema: Of the JSON.
    """

    platform: PlatformName
    title: str
    met: bool
    configuration: tuple[str, ...]
    steps: tuple[Step, ...]
    schema: str = EXPLANATION_SCHEMA


def explain(
    question: Question,
    name: PlatformName,
    *,
    progress: Report | None = None,
    workers: int | None = None,
) -> Explanation:
    """Explain the result of a platform.

    Args:
        question: Workload, objective, options and prices.
        name: Of the platform.
        progress: Called after each simulation.
        workers: Threads; by default as many as there are processors.

    Raises:
        ConfigError: The question makes no sense; the field is named.
    """
    month = month_of(question)
    runs = SimulationRunner(workers=workers or os.cpu_count() or 1, progress=progress)
    try:
        runs.watch(month.judged)
        finder = CandidateSearch(question, month, runs)
        sized = finder.confirm(finder.find(name), _SEEDS)
        outcomes = finder.replications(sized.candidate, _SEEDS)
        first = outcomes[0].result
        steps = [
            _arrivals(question, month),
            _in_flight(question, month, first),
            _capacity(month, sized, first),
            _waits(outcomes),
            _percentiles(question, outcomes),
            _bill(question, month, sized),
            _margin(question, sized, outcomes),
            _breaks_first(question, sized, runs, _limits(finder, sized, first)),
        ]
    finally:
        runs.close()
    return Explanation(
        platform=name,
        title=title_of(name),
        met=sized.met and finder.surely(outcomes) == 0.0,
        configuration=sized.candidate.place.words(sized.candidate.configuration),
        steps=tuple(steps),
    )


def _arrivals(question: Question, month: Month) -> Step:
    arrivals, judged = question.workload.arrivals, month.judged
    rate = month.a_day / 86_400.0
    words = [f"{amount(month.a_day)} requests a day are {amount(rate)} a second on average"]
    values: dict[str, float | None] = {"requests_a_day": month.a_day, "rate": rate}
    largest = max(arrivals.spikes, key=lambda each: each.size, default=None)
    if judged.event and largest is not None and largest.size:
        over = f"within {seconds(largest.within)}" if largest.within else "at once"
        words.append(
            f"a spike of {amount(largest.size)} {over}, {amount(question.options.spikes_a_month)} "
            "times a month; the objective is for its requests"
        )
        values |= {"spike_size": float(largest.size), "spike_within": largest.within}
    else:
        words.append("no spike: the objective is for the busiest ordinary time")
    words.append(f"together {amount(month.requests)} requests a month")
    values["requests_a_month"] = month.requests
    return Step(name="arrivals", title="Arrivals", words=tuple(words), values=values)


def _in_flight(question: Question, month: Month, result: Result | None) -> Step:
    service = question.workload.service
    mean, cpu = service.mean_seconds, sum(stage.cpu_ms for stage in service.stages) / 1e3
    rate = month.a_day / 86_400.0
    words = [
        f"a request takes {seconds(mean)} on average, {seconds(cpu)} of it on a processor",
        f"between spikes {amount(rate)} a second * {seconds(mean)} = {amount(rate * mean)} at once",
        f"at the most about {amount(month.peak)} at once",
    ]
    values: dict[str, float | None] = {
        "mean_seconds": mean, "in_flight": rate * mean, "peak_in_flight": float(month.peak),
    }  # fmt: skip
    if result is not None:
        values["simulated_peak"] = float(result.peak["in_service"])
        words.append(f"the simulation served {amount(values['simulated_peak'] or 0.0)} at once")
    return Step(name="in-flight", title="In flight", words=tuple(words), values=values)


def _capacity(month: Month, sized: Evaluation, result: Result | None) -> Step:
    candidate = sized.candidate
    words = list(candidate.place.words(candidate.configuration))
    values: dict[str, float | None] = {}
    each = getattr(candidate.configuration, "in_flight", 1)
    values["in_flight_each"] = float(each)
    if result is not None:
        start = -begin_of(month.judged, result) if month.judged.event else 0.0
        for at in _INSTANTS if month.judged.event else ():
            index = int((at - start) // result.bin_seconds)
            if not 0 <= index < len(result.seconds["ready"]):
                continue
            ready = float(result.seconds["ready"][index])
            busy = float(result.seconds["in_service"][index])
            values[f"ready_at_{at:g}"] = ready
            words.append(
                f"{at:g} s: {amount(ready)} ready with {amount(ready * each)} slots, "
                f"{amount(busy)} in service"
            )
    return Step(name="capacity", title="Capacity over time", words=tuple(words), values=values)


def _mean(outcomes: Sequence[Outcome], name: str) -> float:
    return fmean(float(getattr(each, name)) for each in outcomes)


def _waits(outcomes: Sequence[Outcome]) -> Step:
    requests = max(_mean(outcomes, "requests"), 1.0)
    first = outcomes[0].result
    queued = float(first.peak["queued"]) if first is not None else 0.0
    values: dict[str, float | None] = {
        "cold_starts": _mean(outcomes, "cold_starts"),
        "queued": queued,
        "throttled": _mean(outcomes, "throttled"),
        "refused": _mean(outcomes, "refused") / requests,
        "timed_out": _mean(outcomes, "timed_out") / requests,
        "failed": _mean(outcomes, "failed") / requests,
    }
    words = (
        f"{amount(values['cold_starts'] or 0.0)} environments or pods start",
        f"{amount(queued)} requests queue at the most",
        f"{amount(values['throttled'] or 0.0)} attempts are refused (429, 503) and tried again",
        f"refused for good: {share(values['refused'])}",
        f"timed out: {share(values['timed_out'])}",
        f"failed: {share(values['failed'])}",
    )
    return Step(name="waits", title="Waits and refusals", words=words, values=values)


def _percentiles(question: Question, outcomes: Sequence[Outcome]) -> Step:
    words, values = [], {}
    alone = question.workload.service.first_token_p99
    for key, title in (("first_token", "first token"), ("latency", "whole answer")):
        parts = []
        for name in SHARES:
            known = [
                getattr(each, key).at[name] for each in outcomes
                if not math.isnan(getattr(each, key).at[name])
            ]  # fmt: skip
            estimate = interval(known) if known else None
            values[f"{key}_{name}"] = estimate.mean if estimate else None
            half = estimate.half if estimate and math.isfinite(estimate.half) else None
            text = within(values[f"{key}_{name}"], half, "seconds")
            parts.append(f"{name.replace('_', '.')} {text}")
        words.append(f"{title}: {', '.join(parts)}")
    values["first_token_p99_alone"] = alone
    first = values["first_token_p99"]
    if first is not None:
        words.append(
            f"without any load the first token p99 is {seconds(alone)}: the platform adds "
            f"{seconds(max(first - alone, 0.0))}"
        )
    return Step(name="percentiles", title="Percentiles", words=tuple(words), values=values)


def _bill(question: Question, month: Month, sized: Evaluation) -> Step:
    currency = question.prices.currency
    items = sorted(sized.items, key=lambda item: -item.monthly)
    words = [
        f"{item.title}: {amount(item.quantity)} {item.unit} * {price(item.price)} = "
        f"{money(item.monthly, currency)}"
        for item in items
    ]
    words.append(
        f"together {money(sized.cost, currency)} a month, for {amount(month.requests)} requests"
    )
    values: dict[str, float | None] = {item.title: item.monthly for item in items}
    return Step(
        name="bill", title="Bill", words=tuple(words), values=values | {"total": sized.cost}
    )


def _margin(question: Question, sized: Evaluation, outcomes: Sequence[Outcome]) -> Step:
    objective, currency = question.objective, question.prices.currency
    words: list[str] = []
    values: dict[str, float | None] = {}

    def add(name: str, value: float, most: float | None, text: str, limit: str) -> None:
        if most is None or math.isinf(most) or math.isnan(value):
            return
        values[name] = value
        values[f"{name}_most"] = most
        if value <= most:
            side = f"{share(1.0 - value / most if most else 0.0)} of it left"
        else:
            side = f"missed, {amount(value / most)} times it" if most else "missed"
        words.append(f"{name.replace('_', ' ')} {text}, at most {limit}: {side}")

    first = fmean(each.first_token.at["p99"] for each in outcomes)
    last = fmean(each.latency.at["p99"] for each in outcomes)
    errors = fmean(each.error_share for each in outcomes)
    add("first_token_p99", first, objective.first_token_p99, seconds(first),
        seconds(objective.first_token_p99))  # fmt: skip
    add("latency_p99", last, objective.latency_p99, seconds(last), seconds(objective.latency_p99))
    add("error_share", errors, objective.error_share, share(errors), share(objective.error_share))
    if objective.monthly_cost is not None:
        add("monthly_cost", sized.cost, objective.monthly_cost, money(sized.cost, currency),
            money(objective.monthly_cost, currency))  # fmt: skip
    return Step(name="margin", title="Margin to the objective", words=tuple(words), values=values)


def _limits(finder: CandidateSearch, sized: Evaluation, result: Result | None) -> tuple[str, ...]:
    """The limits that were met, in order, in words."""
    if result is None:
        return ()
    platform = platform_in(sized.candidate, finder.month.judged)
    found = limits_hit(result, finder.month.judged, platform, finder.question.each)
    return tuple(each.words for each in found)


def _breaks_first(
    question: Question, sized: Evaluation, runs: SimulationRunner, limits: tuple[str, ...]
) -> Step:
    """The limits met now, and the least multiple of the traffic that is not served.

    The multiple is one of a grid; the configuration stays as it is.
    """
    if not sized.met:
        over = misses_of(question.objective, sized.outcome.figures)
        words = tuple(f"already missed: {each}" for each in over) or ("already missed",)
        return Step(
            name="breaks-first",
            title="What breaks first",
            words=(*limits, *words),
            values={"multiple": 1.0},
        )
    low, high = -1, len(_MULTIPLES)
    while high - low > 1:
        middle = (low + high) // 2
        if _missed(question, sized.candidate, _MULTIPLES[middle], runs):
            high = middle
        else:
            low = middle
    if high == len(_MULTIPLES):
        words = (f"nothing, up to {amount(_MULTIPLES[-1])} times this traffic",)
        values: dict[str, float | None] = {"multiple": None}
    else:
        multiple = _MULTIPLES[high]
        misses = "; ".join(_missed(question, sized.candidate, multiple, runs))
        words = (f"at {amount(multiple)} times this traffic, with this configuration: {misses}",)
        values = {"multiple": multiple}
    return Step(
        name="breaks-first", title="What breaks first", words=(*limits, *words), values=values
    )


def _missed(
    question: Question, candidate: Candidate, multiple: float, runs: SimulationRunner
) -> tuple[str, ...]:
    month = month_of(with_traffic(question, multiple))
    return misses_of(question.objective, runs.judged(candidate, month.judged).figures)
