"""What would have to change if no platform meets the objective: one limit at a time, by simulation.

Each limit is loosened along a grid of round values; the least value with which a platform meets the
objective is searched for by bisection, and confirmed over all replications.
"""

import math
from collections.abc import Callable
from functools import partial

from msgspec import Struct, structs

from seawall.plan.decision.answer import PlatformName, Remedy
from seawall.plan.decision.comparison import All, ranked
from seawall.plan.decision.numbers import amount, money, seconds, share
from seawall.plan.decision.places.port import Evaluation
from seawall.plan.decision.places.registry import title_of
from seawall.plan.decision.runs import SimulationRunner
from seawall.plan.decision.search import CandidateSearch
from seawall.plan.decision.windows import Month, month_of
from seawall.plan.inputs.arrivals import Spike
from seawall.plan.inputs.distributions import quantile_of
from seawall.plan.inputs.question import Question, with_model, with_quota

__all__ = ["remedies_of"]

_REACH = "objective.first_token_p99"
_STEP = 1.12  # between values of the grid
_WITHIN = 0.1  # precision of sizes
_MOST_ERRORS = 0.1  # that are proposed, or twice the limit: more is no service
_LONGEST_SPREAD = 900.0  # seconds over which a spike is spread at most


class _Limit(Struct, frozen=True):
    """A limit that can be loosened: the question with a value, and the values to try, rising."""

    name: str
    title: str
    now: str
    with_value: Callable[[float], Question]
    grid: tuple[float, ...]
    words: Callable[[float], str]


def remedies_of(
    question: Question, month: Month, found: All, runs: SimulationRunner, seeds: int
) -> tuple[Remedy, ...]:
    """The changes that each make a platform meet the objective, the cheapest first.

    Args:
        question: To which nothing is an answer.
        month: Of its workload.
        found: The platforms, none of which meets the objective.
        runs: The simulations.
        seeds: Replications that confirm a value.
    """
    limits = _limits(question, month, found)
    if _is_out_of_reach(question):
        limits = [each for each in limits if each.name == _REACH]
    results = runs.each(lambda limit: _remedy(limit, found, runs, seeds), limits)
    known = [each for each in results if each is not None]
    return tuple(sorted(known, key=lambda each: each.monthly_cost))


def _is_out_of_reach(question: Question) -> bool:
    """Whether the service alone is surely later than the first token may be: nothing else helps."""
    workload = question.workload
    most = 1.1 * question.objective.first_token_p99
    # A quota may have endpoints that are quicker.
    return not workload.model.limited and workload.service.first_token_p99 > most


def _remedy(limit: _Limit, found: All, runs: SimulationRunner, seeds: int) -> Remedy | None:
    low, high = -1, len(limit.grid) - 1
    if high < 0 or not _is_met(limit.with_value(limit.grid[high]), found, runs):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if _is_met(limit.with_value(limit.grid[middle]), found, runs):
            high = middle
        else:
            low = middle
    for at in range(high, len(limit.grid)):
        value = limit.grid[at]
        best = _best(limit.with_value(value), found, runs, seeds)
        if best is None:
            continue
        name, sized = best
        cost = money(sized.cost, limit.with_value(value).prices.currency)
        return Remedy(
            name=limit.name,
            title=limit.title,
            now=limit.now,
            to=limit.words(value),
            value=value,
            platform=name,
            monthly_cost=sized.cost,
            words=f"{limit.title} {limit.words(value)} instead of {limit.now}: "
            f"{title_of(name)} then meets the objective, for {cost} a month",
        )
    return None


def _is_met(question: Question, near: All, runs: SimulationRunner) -> bool:
    """Whether any platform meets the objective, in one replication."""
    finder = CandidateSearch(question, month_of(question), runs, within=_WITHIN)
    return finder.excess_of_model <= 0.0 and any(
        finder.find(name, near[name].candidate).met for name in ranked(near)
    )


def _best(
    question: Question, near: All, runs: SimulationRunner, seeds: int
) -> tuple[PlatformName, Evaluation] | None:
    """The cheapest platform that meets the objective, confirmed by so many replications."""
    finder = CandidateSearch(question, month_of(question), runs, within=_WITHIN)
    best: tuple[PlatformName, Evaluation] | None = None
    if finder.excess_of_model > 0.0:
        return None
    for name in ranked(near):
        sized = finder.find(name, near[name].candidate)
        if sized.met:
            sized = finder.confirm(sized, seeds)
            if finder.surely(finder.replications(sized.candidate, seeds)) > 0.0:
                continue
        if sized.met and (best is None or sized.cost < best[1].cost):
            best = (name, sized)
            finder.enough = min(finder.enough, sized.cost)
    return best


def _limits(question: Question, month: Month, found: All) -> list[_Limit]:
    objective, options = question.objective, question.options

    def of_objective(name: str) -> Callable[[float], Question]:
        return lambda value: structs.replace(
            question, objective=structs.replace(objective, **{name: value})
        )

    limits = [
        _Limit(
            _REACH, "a first token p99 within",
            seconds(objective.first_token_p99), of_objective("first_token_p99"),
            _grid(objective.first_token_p99, _longest(objective.first_token_p99, [
                each.outcome.figures.first_token_p99 for each in found.values()
            ])), seconds,
        ),
        _Limit(
            "objective.error_share", "errors of at most", share(objective.error_share),
            of_objective("error_share"), _grid(
                max(objective.error_share, 1e-4),
                min(1.0, max(_MOST_ERRORS, 2.0 * objective.error_share)),
            ), share,
        ),
    ]  # fmt: skip
    if objective.latency_p99 is not None and math.isfinite(objective.latency_p99):
        limits.append(
            _Limit(
                "objective.latency_p99", "an answer p99 within", seconds(objective.latency_p99),
                of_objective("latency_p99"),
                _grid(objective.latency_p99, _longest(objective.latency_p99, [
                    each.outcome.figures.latency_p99 for each in found.values()
                ])), seconds,
            )
        )  # fmt: skip
    if objective.monthly_cost is not None:
        costs = sorted({float(math.ceil(each.cost)) for each in found.values()})
        limits.append(
            _Limit(
                "objective.monthly_cost", "a budget of",
                money(objective.monthly_cost, question.prices.currency),
                of_objective("monthly_cost"),
                tuple(cost for cost in costs if cost > objective.monthly_cost),
                lambda value: money(value, question.prices.currency),
            )
        )  # fmt: skip
    if options.account_limit is not None:
        limits.append(
            _Limit(
                "options.account_limit", "a Lambda concurrency of", amount(options.account_limit),
                lambda value: structs.replace(
                    question, options=structs.replace(options, account_limit=int(value))
                ),
                _grid(options.account_limit, 3.0 * float(month.peak) + 1_000.0, whole=True), amount,
            )
        )  # fmt: skip
    limits += _of_model(question)
    if month.judged.event and month.judged.workload.arrivals.spikes:
        now = month.judged.workload.arrivals.spikes[0].within
        limits.append(
            _Limit(
                "arrivals.spikes", "the spike spread over",
                seconds(now) if now else "all at once", lambda value: _spread(question, value),
                _grid(max(now, 1.0), _LONGEST_SPREAD), seconds,
            )
        )  # fmt: skip
    return limits


def _longest(limit: float, measured: list[float]) -> float:
    """The largest limit of a time to try: beyond that of the quickest platform."""
    least = min((value for value in measured if not math.isnan(value)), default=limit)
    return max(20.0 * limit, 1.5 * least)


def _of_model(question: Question) -> list[_Limit]:
    """The model's quotas, and a lower bound of its output; none if no quota is simulated."""
    model = question.workload.model
    if model.limits is None or not model.limited:
        return []
    found = []
    for name, title in (
        ("tokens_a_minute", "a model quota of tokens a minute of"),
        ("input_tokens_a_minute", "a model quota of input tokens a minute of"),
        ("output_tokens_a_minute", "a model quota of output tokens a minute of"),
        ("requests_a_minute", "a model quota of requests a minute of"),
    ):
        now = getattr(model.limits, name)
        if now is not None:
            found.append(
                _Limit(
                    f"model.{name}", title, amount(now), partial(_with_quota, question, name),
                    _grid(now, 1_000.0 * now), amount,
                )
            )  # fmt: skip
    bound = model.bound(model.limits)
    if model.limits.counting != "produced":
        least = max(1.0, quantile_of(model.output_tokens, 0.99))
        lower = tuple(bound / value for value in _grid(1.0, bound / least))
        found.append(
            _Limit(
                "model.max_tokens", "a bound of output tokens of", amount(bound),
                lambda value: with_model(question, max_tokens=int(value)),
                tuple(dict.fromkeys(float(math.ceil(each)) for each in lower)), amount,
            )
        )  # fmt: skip
    return found


def _with_quota(question: Question, name: str, value: float) -> Question:
    return with_quota(question, **{name: value})


def _spread(question: Question, within: float) -> Question:
    workload = question.workload
    spikes = tuple(
        Spike(each.size, each.at, max(each.within, within)) for each in workload.arrivals.spikes
    )
    arrivals = structs.replace(workload.arrivals, spikes=spikes)
    return structs.replace(question, workload=structs.replace(workload, arrivals=arrivals))


def _grid(low: float, high: float, *, whole: bool = False) -> tuple[float, ...]:
    """Values above `low`, to `high`, with two significant digits and about 12 per cent apart."""
    found: list[float] = []
    value = low
    while value < high:
        value *= _STEP
        digits = 1 - math.floor(math.log10(value))
        unit = 10.0 ** abs(digits)
        if digits < 0:
            rounded = math.ceil(round(value / unit, 6)) * unit
        else:
            rounded = math.ceil(round(value * unit, 6)) / unit
        rounded = min(rounded, high)
        rounded = float(math.ceil(rounded)) if whole else rounded
        if rounded > low and (not found or rounded > found[-1]):
            found.append(rounded)
    return tuple(found)
