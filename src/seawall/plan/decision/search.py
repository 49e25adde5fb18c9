"""The search for the cheapest configuration that meets the objective; else the nearest to it."""

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

from msgspec import structs

from seawall.plan.decision.answer import PlatformName
from seawall.plan.decision.bill import used_in
from seawall.plan.decision.numbers import money, seconds, share
from seawall.plan.decision.places.port import Candidate, Evaluation, bill_of
from seawall.plan.decision.places.registry import place_of
from seawall.plan.decision.runs import KeyFigures, Outcome, SimulationRunner, platform_in
from seawall.plan.decision.windows import Month
from seawall.plan.inputs.question import Objective, Question
from seawall.plan.simulator.replications import interval
from seawall.plan.simulator.stability import offered_load

__all__ = [
    "CandidateSearch",
    "cost_misses",
    "excess_of",
    "half_width",
    "mean_figures",
    "misses_of",
    "upper_figures",
]

_LARGER = 8  # times that a candidate is enlarged, by 5 % each, until it surely meets


def _limits(
    objective: Objective, figures: KeyFigures
) -> list[tuple[str, float, float, Callable[[float], str]]]:
    """Name, value, maximum and format of each limit."""
    limits: list[tuple[str, float, float, Callable[[float], str]]] = [
        ("errors", figures.error_share, objective.error_share, share),
        ("first token p99", figures.first_token_p99, objective.first_token_p99, seconds),
    ]
    if objective.latency_p99 is not None:
        limits.append(("latency p99", figures.latency_p99, objective.latency_p99, seconds))
    return limits


def _unstable(figures: KeyFigures) -> tuple[str, ...]:
    """Why queues grow without end, in words; empty: they do not."""
    if figures.load >= 1.0:
        return (f"offered load {share(figures.load)} of what it can do: queues only grow",)
    return ("requests in service only grow",) if figures.growing else ()


def misses_of(objective: Objective, figures: KeyFigures) -> tuple[str, ...]:
    """Where figures miss the objective, in words. NaN (no request was served) misses nothing."""
    return _unstable(figures) + tuple(
        f"{name} {_above(value, most, form)} (at most {form(most)})"
        for name, value, most, form in _limits(objective, figures)
        if value > most
    )


def _above(value: float, most: float, form: Callable[[float], str]) -> str:
    """A value above its limit in words, so that it does not read as the limit itself."""
    return form(value) if form(value) != form(most) else f"above {form(most)}"


def excess_of(objective: Objective, figures: KeyFigures) -> float:
    """How far figures are from the objective; 0: met. Errors weigh most: worse than waiting.

    A window is too short for all the errors of an unstable system: they are those of its overload.
    """
    over = max(0.0, figures.error_share - objective.error_share) * 100.0
    if _unstable(figures):
        over = max(over, 1.0, (1.0 - 1.0 / max(figures.load, 1.0)) * 100.0)
    for _, value, most, _ in _limits(objective, figures)[1:]:
        if value > most:
            over += math.log(value / most)
    return over


def mean_figures(outcomes: Sequence[Outcome]) -> KeyFigures:
    """The figures of replications on average, where they are known."""
    return _joint(outcomes, lambda values: fmean(values) if values else math.nan)


def upper_figures(outcomes: Sequence[Outcome], unsure: float = 0.0) -> KeyFigures:
    """The figures of replications at the upper ends of their 95 % intervals.

    unsure: relative error of forecasts of times, which comes on top; see `half_width`.
    """

    def upper(values: list[float]) -> float:
        return fmean(values) + half_width(values) if values else math.nan

    def upper_of_times(values: list[float]) -> float:
        return fmean(values) + half_width(values, unsure) if values else math.nan

    return _joint(outcomes, upper_of_times, upper)


def half_width(values: Sequence[float], unsure: float = 0.0) -> float:
    """Half the 95 % interval of replications, with the error of forecasts; 0: not known.

    That error has nothing to do with the spread of replications, so that their squares add up.
    """
    half = interval(values).half
    return math.hypot(half if math.isfinite(half) else 0.0, unsure * abs(fmean(values)))


def _joint(
    outcomes: Sequence[Outcome],
    of_times: Callable[[list[float]], float],
    of_shares: Callable[[list[float]], float] = fmean,
) -> KeyFigures:
    def known(values: Iterable[float]) -> list[float]:
        return [each for each in values if not math.isnan(each)]

    return KeyFigures(
        of_times(known(each.first_token.at["p99"] for each in outcomes)),
        of_times(known(each.latency.at["p99"] for each in outcomes)),
        of_shares([each.error_share for each in outcomes]),
        max(each.load for each in outcomes),
        sum(each.growing for each in outcomes) > len(outcomes) / 2,
    )


def cost_misses(objective: Objective, cost: float, currency: str = "USD") -> tuple[str, ...]:
    """Whether a monthly cost misses the objective, in words."""
    most = objective.monthly_cost
    if most is None or cost <= most:
        return ()
    return (f"costs {money(cost, currency)} a month (at most {money(most, currency)})",)


class CandidateSearch:
    """The search for one question.

    Args:
        question: To be answered.
        month: Its windows.
        runs: The simulations.
        within: Relative precision of sizes.

    Attributes:
        question: To be answered.
        month: Its windows.
        within: Relative precision of sizes.
        enough: Configurations that meet the objective and cost more than this are not minimised:
            they will not be the choice.
    """

    def __init__(
        self, question: Question, month: Month, runs: SimulationRunner, *, within: float = 0.03
    ) -> None:
        self.question, self.month, self._runs = question, month, runs
        self.within = within
        self.enough = math.inf
        self._of_model: KeyFigures | None = None

    def find(self, name: PlatformName, near: Candidate | None = None) -> Evaluation:
        """The best candidate of a platform. near: that of a similar question."""
        return place_of(name).find(self, near)

    def replications(self, candidate: Candidate, seeds: int) -> list[Outcome]:
        """The outcomes of a candidate with the seeds 1 to `seeds`."""
        return [self._judged(candidate, seed) for seed in range(1, seeds + 1)]

    def _judged(self, candidate: Candidate, seed: int = 1) -> Outcome:
        """The outcome in the judged window; it is stable if every window is."""
        month = self.month
        outcome = self._runs.judged(candidate, month.judged, seed=seed)
        load = max(
            offered_load(each.workload, platform_in(candidate, each))
            for each in (month.judged, *month.events, *month.ordinary)
        )
        return structs.replace(outcome, load=load) if load > outcome.load else outcome

    def refuses(self, candidate: Candidate) -> bool:
        """Whether it refuses more requests than the objective allows to fail."""
        outcome = self._judged(candidate)
        most = self.question.objective.error_share
        return outcome.requests > 0 and outcome.refused / outcome.requests > most

    def ordinary(self, candidate: Candidate) -> list[Outcome]:
        """The outcomes in the windows of ordinary time, the busiest first."""
        month = self.month
        pieces = [month.judged, *month.ordinary]
        return [self._runs.judged(candidate, each) for each in pieces if not each.event]

    def confirm(self, found: Evaluation, seeds: int) -> Evaluation:
        """Enlarge a candidate until it meets the objective at the upper end of the intervals.

        A function without provisioned concurrency cannot be enlarged.
        """
        for _ in range(_LARGER):
            outcomes = self.replications(found.candidate, seeds)
            if not found.met or self.surely(outcomes) == 0.0:
                break
            larger = found.candidate.place.larger(self.question, self.month, found.candidate)
            if larger is None:
                break
            found = self.evaluate(larger)
        return found

    def surely(self, outcomes: Sequence[Outcome]) -> float:
        """How far replications are from the objective at the upper ends of their intervals."""
        unsure = self.question.workload.forecast_error
        return excess_of(self.question.objective, upper_figures(outcomes, unsure))

    @property
    def excess_of_model(self) -> float:
        """How far from the objective the model's quota keeps any platform; 0: not at all."""
        figures = self._figures_of_model()
        return 0.0 if figures is None else excess_of(self.question.objective, figures)

    def _figures_of_model(self) -> KeyFigures | None:
        """The figures on a platform without limits; None: the model has no quota."""
        if self.question.workload.model.limited and self._of_model is None:
            self._of_model = self._runs.without_platform(self.month.judged).figures
        return self._of_model

    @property
    def attainable(self) -> Objective:
        """The objective as far as the model's quota permits it, within a few per cent."""
        objective, figures = self.question.objective, self._figures_of_model()
        if figures is None:
            return objective

        def at_least(most: float, value: float) -> float:
            return 1.05 * value if value > most else most

        latency = objective.latency_p99
        return structs.replace(
            objective,
            first_token_p99=at_least(objective.first_token_p99, figures.first_token_p99),
            latency_p99=None if latency is None else at_least(latency, figures.latency_p99),
            error_share=min(1.0, at_least(objective.error_share, figures.error_share)),
        )

    def excess(self, candidate: Candidate) -> float:
        """How far a candidate is from what is attainable with the model's quota; 0: it is there."""
        return excess_of(self.attainable, self._judged(candidate).figures)

    def evaluate(self, candidate: Candidate) -> Evaluation:
        """Evaluate a candidate: its outcome and its bill."""
        month = self.month
        outcome = self._judged(candidate)
        pieces = []
        for window in (month.judged, *month.events, *month.ordinary):
            run = self._runs.judged(candidate, window)
            pieces.append((window.seconds / run.horizon, run.usage, run.attempts))
        items = tuple(bill_of(self.question, month, candidate, used_in(pieces)))
        cost = sum(item.monthly for item in items)
        over = excess_of(self.question.objective, outcome.figures)
        most = self.question.objective.monthly_cost
        if most is not None and cost > most:
            over += math.log(cost / most)
        return Evaluation(candidate=candidate, outcome=outcome, items=items, cost=cost, excess=over)

    def guess(self, near: Candidate | None, otherwise: float) -> int:
        """A first size: as much for each request in service as in `near`."""
        if near is None:
            return math.ceil(otherwise)
        # If it was the minimum, it says nothing about larger sizes.
        return min(
            math.ceil(near.size * self.month.peak / near.at_once), math.ceil(1.3 * otherwise)
        )

    def good_enough(
        self, near: Candidate | None, of: Callable[[int], Candidate], guess: int, most: int
    ) -> Evaluation | None:
        """A candidate of the guessed size, if it meets the objective but will not be the choice."""
        if near is None or self.excess(of(min(guess, most))) != 0.0:
            return None
        found = self.evaluate(of(min(guess, most)))
        return found if found.cost > self.enough else None
