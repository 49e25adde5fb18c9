"""The answer to a question: every platform sized and compared, with confidence and sensitivity."""

import math
import os
import time
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Literal

from msgspec import structs

from seawall.errors import ConfigError
from seawall.plan.decision.answer import (
    Answer,
    Confidence,
    Figure,
    Ordinary,
    Percentiles,
    PlatformAnswer,
    PlatformName,
    Sensitivity,
    Series,
    Traffic,
    Work,
)
from seawall.plan.decision.bill import shared_costs
from seawall.plan.decision.comparison import All, curve_of, margin_of, ranked, sensitivity_of
from seawall.plan.decision.egress import egress_of
from seawall.plan.decision.levers import levers_of, money_of
from seawall.plan.decision.limits_hit import limits_hit
from seawall.plan.decision.model_need import model_figures, model_need
from seawall.plan.decision.notes import inputs_of, notes_of, summary_of
from seawall.plan.decision.places.port import Evaluation
from seawall.plan.decision.places.registry import candidates_of
from seawall.plan.decision.remedies import remedies_of
from seawall.plan.decision.rule_of_thumb import rule_of_thumb
from seawall.plan.decision.runs import (
    SHARES,
    Outcome,
    Report,
    SimulationRunner,
    TimePercentiles,
    platform_in,
)
from seawall.plan.decision.search import (
    CandidateSearch,
    cost_misses,
    excess_of,
    half_width,
    mean_figures,
    misses_of,
    upper_figures,
)
from seawall.plan.decision.variations import multiples, variations
from seawall.plan.decision.windows import Month, Window, check_amount, month_of
from seawall.plan.inputs.distributions import mean_of
from seawall.plan.inputs.question import Question
from seawall.plan.simulator.result import Result

__all__ = ["SEEDS", "advise"]

SEEDS = 5
_SERIES = 900  # bins of the spike in the answer


def advise(
    question: Question,
    *,
    progress: Report | None = None,
    workers: int | None = None,
    vary: bool = True,
) -> Answer:
    """Answer a question.

    Args:
        question: Workload, objective, options and prices.
        progress: Called after each simulation.
        workers: Threads; by default as many as there are processors.
        vary: Whether to size all platforms for other traffic and other inputs, too, which is most
            of the work. If not, the curve has the given traffic only, there are no sensitivities,
            and the confidence is that of the replications.

    Raises:
        ConfigError: The question makes no sense; the field is named.
    """
    began = time.perf_counter()
    check_amount(question)
    month = month_of(question)
    runs = SimulationRunner(workers=workers or os.cpu_count() or 1, progress=progress)
    try:
        runs.watch(month.judged)
        return _answer(question, month, runs, began, vary=vary)
    finally:
        runs.close()


def _answer(
    question: Question, month: Month, runs: SimulationRunner, began: float, *, vary: bool
) -> Answer:
    places, excluded = candidates_of(question, month)
    if not places:
        why = "; ".join(f"{each.title}: {', '.join(each.reasons)}" for each in excluded)
        raise ConfigError(f"no platform can run this service. {why}")
    names = [place.name for place in places]
    steps = multiples(question, month.a_day) if vary else (1.0,)
    varied = variations(question, month.a_day) if vary else []
    runs.total = len(names) + len(steps) + 2 * len(varied)
    finder = CandidateSearch(question, month, runs)
    sized = runs.each(lambda name: finder.confirm(finder.find(name), SEEDS), names)
    found: All = dict(zip(names, sized, strict=True))
    repeated = {name: finder.replications(each.candidate, SEEDS) for name, each in found.items()}
    searched = runs.simulations
    found = {name: _surely(finder, each, repeated[name]) for name, each in found.items()}
    order = ranked(found)
    choice, runner_up = order[0], order[1] if len(order) > 1 else None
    platforms: dict[str, PlatformAnswer] = {
        name: _platform(finder, found[name], repeated[name], searched) for name in names
    }
    curve = curve_of(question, found, runs, steps, month.a_day)
    sensitivity = sensitivity_of(question, found, runs, varied)
    margin = margin_of(found, order)
    remedies = () if found[choice].met else remedies_of(question, month, found, runs, SEEDS)
    shared = shared_costs(question, month)
    whole = money_of(question, platforms[choice], shared)
    rule = rule_of_thumb(question, month, platforms, choice)
    return Answer(
        choice=choice,
        runner_up=runner_up,
        met=found[choice].met,
        summary=summary_of(question, month, platforms, choice, runner_up),
        remedies=remedies,
        margin=margin,
        confidence=_capped(
            question, _confidence(question, found, repeated, sensitivity, margin.ratio)
        ),
        objective=question.objective,
        traffic=_traffic(question, month),
        region=question.prices.region,
        currency=question.prices.currency,
        prices_date=question.prices.date,
        platforms=platforms,
        shared=shared,
        money=whole,
        levers=levers_of(question, month, whole.whole, platforms[choice].egress),
        curve=curve,
        sensitivity=sensitivity,
        rule_of_thumb=rule,
        inputs=inputs_of(question),
        notes=notes_of(question, month, platforms, choice),
        work=Work(
            simulations=runs.simulations,
            requests=runs.requests,
            seconds=time.perf_counter() - began,
        ),
        excluded=excluded,
        model=model_need(month.judged.workload),
    )


def _surely(finder: CandidateSearch, sized: Evaluation, outcomes: Sequence[Outcome]) -> Evaluation:
    """The evaluation with the excess at the upper ends of the replications' intervals."""
    first = excess_of(finder.question.objective, sized.outcome.figures)
    # The rest of the excess is that of the cost.
    return structs.replace(sized, excess=max(0.0, sized.excess - first) + finder.surely(outcomes))


def _figure(values: Sequence[float], unsure: float = 0.0) -> Figure:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return Figure(None)
    half = half_width(known, unsure)
    return Figure(fmean(known), half if half > 0.0 or len(known) > 1 else None)


def _misses(question: Question, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Where the replications miss the objective on average; else at the ends of their intervals."""
    mean = misses_of(question.objective, mean_figures(outcomes))
    if mean:
        return mean
    upper = upper_figures(outcomes, question.workload.forecast_error)
    return tuple(f"up to {each}" for each in misses_of(question.objective, upper))


def _percentiles(
    outcomes: Sequence[Outcome], of: Callable[[Outcome], TimePercentiles], unsure: float
) -> Percentiles:
    times = [of(each) for each in outcomes]
    figures = {name: _figure([each.at[name] for each in times], unsure) for name in SHARES}
    return Percentiles(**figures, distribution=times[0].points)


def _platform(
    finder: CandidateSearch, sized: Evaluation, outcomes: Sequence[Outcome], simulations: int
) -> PlatformAnswer:
    question, month = finder.question, finder.month

    def share(count: Callable[[Outcome], int]) -> Figure:
        return _figure([count(each) / each.requests if each.requests else 0.0 for each in outcomes])

    unsure = question.workload.forecast_error
    place = sized.candidate.place
    result = sized.outcome.result
    misses = () if sized.met else _misses(question, outcomes)
    misses += cost_misses(question.objective, sized.cost, question.prices.currency)
    return PlatformAnswer(
        name=place.name,
        title=place.title,
        short=place.short,
        family=place.family,
        cloud=place.cloud,
        configuration=sized.candidate.configuration,
        words=place.words(sized.candidate.configuration),
        monthly_cost=sized.cost,
        items=sized.items,
        met=sized.met,
        misses=misses,
        requests=_figure([float(each.requests) for each in outcomes]),
        served=share(lambda each: each.served),
        refused=share(lambda each: each.refused),
        timed_out=share(lambda each: each.timed_out),
        failed=share(lambda each: each.failed),
        error_share=_figure([each.error_share for each in outcomes]),
        throttled=_figure([float(each.throttled) for each in outcomes]),
        cold_starts=_figure([float(each.cold_starts) for each in outcomes]),
        first_token=_percentiles(outcomes, lambda each: each.first_token, unsure),
        latency=_percentiles(outcomes, lambda each: each.latency, unsure),
        ordinary=_ordinary(finder.ordinary(sized.candidate)),
        peak=_peak(result),
        series=_series(result, month.judged),
        simulations=simulations,
        egress=egress_of(question, month, sized.items, place.family),
        limits=()
        if result is None
        else limits_hit(
            result, month.judged, platform_in(sized.candidate, month.judged), question.each
        ),
        model=model_figures(outcomes),
    )


def _ordinary(outcomes: Sequence[Outcome]) -> Ordinary:
    """The figures of the busiest window of ordinary time."""
    if not outcomes:
        return Ordinary(
            first_token_p50=None, first_token_p99=None, latency_p99=None,
            error_share=0.0, cold_share=0.0, capacity=0.0,
        )  # fmt: skip
    first = outcomes[0]

    def known(value: float) -> float | None:
        return None if math.isnan(value) else value

    return Ordinary(
        first_token_p50=known(first.first_token.at["p50"]),
        first_token_p99=known(first.first_token.at["p99"]),
        latency_p99=known(first.latency.at["p99"]),
        error_share=first.error_share,
        cold_share=first.cold_starts / first.requests if first.requests else 0.0,
        capacity=first.mean_capacity,
    )


def _peak(result: Result | None) -> dict[str, float]:
    if result is None:
        return {}
    found = {name: float(value) for name, value in result.peak.items()}
    found["new_connections"] = float(result.seconds["new_connections"].max())
    return found


def _series(result: Result | None, window: Window) -> Series:
    if result is None:
        return Series(start=0.0, bin_seconds=1.0, values={})
    bins = min(len(result.seconds["arrived"]), math.ceil(window.horizon / result.bin_seconds))
    bins = min(bins, _SERIES)
    # A run that was not stationary before the spike was repeated with more time before it.
    first = 0
    if window.event:
        first = max(0, round((result.horizon - window.horizon) / result.bin_seconds))
    values = {
        name: tuple(
            None if math.isnan(value) else float(value) for value in array[first : first + bins]
        )
        for name, array in result.seconds.items()
    }
    start = -window.at if window.event else 0.0
    return Series(start=start, bin_seconds=result.bin_seconds, values=values)


def _traffic(question: Question, month: Month) -> Traffic:
    spikes = question.workload.arrivals.spikes
    largest = max(spikes, key=lambda each: each.size, default=None)
    service = question.workload.service
    return Traffic(
        requests_a_day=month.a_day,
        requests_a_month=month.requests,
        spike_size=largest.size if largest else 0,
        spike_within=largest.within if largest else 0.0,
        spikes_a_month=question.options.spikes_a_month if largest else 0.0,
        announced=question.options.announced,
        busy=month.busy,
        mean_seconds=service.mean_seconds,
        start_seconds=mean_of(service.start),
    )


def _confidence(
    question: Question,
    found: All,
    repeated: dict[PlatformName, list[Outcome]],
    sensitivity: Sequence[Sensitivity],
    ratio: float,
) -> Confidence:
    choice = ranked(found)[0]
    if not found[choice].met:
        return _confidence_of_none(question, repeated, sensitivity)
    same = 0
    for seed in range(SEEDS):
        once = {
            name: structs.replace(
                each, excess=excess_of(question.objective, repeated[name][seed].figures)
            )
            for name, each in found.items()
        }
        same += ranked(once)[0] == choice
    cases = [case for row in sensitivity for case in (row.low, row.high)]
    kept = sum(case.choice == choice for case in cases)
    level: Literal["high", "medium", "low"] = "medium"
    if same == SEEDS and kept >= 0.75 * len(cases) and ratio >= 1.25:
        level = "high"
    elif same <= SEEDS / 2 or kept < 0.5 * len(cases):
        level = "low"
    words = (
        f"the same in {same} of {SEEDS} replications and {kept} of {len(cases)} changes of an input"
    )
    return Confidence(
        level=level,
        replications=SEEDS,
        same=same,
        inputs=len(cases),
        inputs_same=kept,
        words=words,
    )


def _capped(question: Question, found: Confidence) -> Confidence:
    """At most medium if the model's quota, usually a crowd's first limit, was not simulated."""
    model = question.workload.model
    if model.limited or not any(stage.model for stage in question.workload.service.stages):
        return found
    words = f"{found.words}; the model's quota is not given and was not simulated"
    level: Literal["medium", "low"] = "low" if found.level == "low" else "medium"
    return structs.replace(found, level=level, words=words)


def _confidence_of_none(
    question: Question,
    repeated: dict[PlatformName, list[Outcome]],
    sensitivity: Sequence[Sensitivity],
) -> Confidence:
    """Confidence that nothing meets the objective."""
    same = sum(
        all(excess_of(question.objective, each[seed].figures) > 0.0 for each in repeated.values())
        for seed in range(SEEDS)
    )
    if question.objective.monthly_cost is not None:
        same = SEEDS  # a budget has no randomness
    cases = [case for row in sensitivity for case in (row.low, row.high)]
    kept = sum(not any(case.met.values()) for case in cases)
    level: Literal["high", "medium", "low"] = "medium"
    if same == SEEDS and kept >= 0.75 * len(cases):
        level = "high"
    elif same <= SEEDS / 2 or kept < 0.5 * len(cases):
        level = "low"
    words = (
        f"nothing meets it in {same} of {SEEDS} replications and {kept} of {len(cases)} changes of "
        "an input"
    )
    return Confidence(
        level=level, replications=SEEDS, same=same, inputs=len(cases), inputs_same=kept,
        words=words,
    )  # fmt: skip
