"""The search for the cheapest configuration that meets the objective; else the nearest to it."""

import math
from collections.abc import Callable

from msgspec import Struct

from seawall.plan.decision.answer import CostItem, PlatformName
from seawall.plan.decision.bill import bill, used_in
from seawall.plan.decision.candidates import (
    Candidate,
    eks,
    function,
    managed,
    memories,
    slots_per_pod,
)
from seawall.plan.decision.lambda_sizes import (
    least_environments,
    limit_of,
    most_provisioned,
    worth_provisioning,
)
from seawall.plan.decision.runs import KeyFigures, Outcome, SimulationRunner
from seawall.plan.decision.windows import Month
from seawall.plan.inputs.platforms import Eks, Lambda, Managed
from seawall.plan.inputs.question import Objective, Question
from seawall.plan.simulator.replications import interval

__all__ = [
    "CandidateSearch",
    "Evaluation",
    "cost_misses",
    "excess_of",
    "least",
    "misses_of",
]

_CORES = (0.4, 0.85)  # of a pod: four or two of them fit on two vCPUs
_MOST_PODS = 2_000


class Evaluation(Struct, frozen=True, kw_only=True):
    """A candidate with its outcome and its cost.

    Attributes:
        candidate: The configuration.
        outcome: Of the first replication.
        items: The bill.
        cost: A month.
        excess: How far it is from the objective; 0: met.
    """

    candidate: Candidate
    outcome: Outcome
    items: tuple[CostItem, ...]
    cost: float
    excess: float

    @property
    def met(self) -> bool:
        """Whether the objective is met."""
        return self.excess == 0.0


def _limits(objective: Objective, figures: KeyFigures) -> list[tuple[str, float, float, str]]:
    """Name, value, maximum and format of each limit."""
    limits = [
        ("errors", figures.error_share, objective.error_share, "{:.1%}"),
        ("first token p99", figures.first_token_p99, objective.first_token_p99, "{:.1f} s"),
    ]
    if objective.latency_p99 is not None:
        limits.append(("latency p99", figures.latency_p99, objective.latency_p99, "{:.1f} s"))
    return limits


def misses_of(objective: Objective, figures: KeyFigures) -> tuple[str, ...]:
    """Where figures miss the objective, in words. NaN (no request was served) misses nothing."""
    return tuple(
        f"{name} {form.format(value)} (at most {form.replace('.1f', 'g').format(most)})"
        for name, value, most, form in _limits(objective, figures)
        if value > most
    )


def excess_of(objective: Objective, figures: KeyFigures) -> float:
    """How far figures are from the objective; 0: met. Errors weigh most: worse than waiting."""
    over = max(0.0, figures.error_share - objective.error_share) * 100.0
    for _, value, most, _ in _limits(objective, figures)[1:]:
        if value > most:
            over += math.log(value / most)
    return over


def cost_misses(objective: Objective, cost: float) -> tuple[str, ...]:
    """Whether a monthly cost misses the objective, in words."""
    most = objective.monthly_cost
    if most is None or cost <= most:
        return ()
    return (f"costs {cost:,.0f} a month (at most {most:,.0f})",)


def least(meets: Callable[[int], bool], low: int, guess: int, most: int, within: float) -> int:
    """The least number that meets, within a share of it; `most` if none does.

    Searches outwards from a guess, then by bisection: with a good guess two or three calls suffice.

    Args:
        meets: Whether a number meets; monotonic.
        low: Lower bound.
        guess: Start of the search.
        most: Upper bound.
        within: Relative precision.
    """
    guess = min(max(guess, low), most)
    step = 1.0 + max(2.0 * within, 0.1)
    if meets(guess):
        high, under = guess, low - 1
        while high > low:
            lower = max(low, min(high - 1, int(high / step)))
            if not meets(lower):
                under = lower
                break
            high, step = lower, step * step
    else:
        under, high = guess, guess
        while True:
            if high >= most:
                return most
            higher = min(most, max(high + 1, math.ceil(high * step)))
            if meets(higher):
                high = higher
                break
            under = high = higher
            step = min(step * step, 4.0)
    while high - under > max(1, int(within * high)):
        middle = (high + under) // 2
        if meets(middle):
            high = middle
        else:
            under = middle
    return high


class CandidateSearch:
    """The search for one question.

    Args:
        question: To be answered.
        month: Its windows.
        runs: The simulations.
        within: Relative precision of sizes.

    Attributes:
        enough: Configurations that meet the objective and cost more than this are not minimised:
            they will not be the choice.
    """

    def __init__(
        self, question: Question, month: Month, runs: SimulationRunner, *, within: float = 0.03
    ) -> None:
        self.question, self.month, self._runs = question, month, runs
        self._within = within
        self.enough = math.inf

    def find(self, name: PlatformName, near: Candidate | None = None) -> Evaluation:
        """The best candidate of a platform. near: that of a similar question."""
        match name:
            case "lambda" | "lambda-snapstart":
                return self._function(name)
            case "lambda-provisioned":
                return self._provisioned(near)
            case "lambda-managed":
                return self._managed(near)
            case "eks":
                return self._eks(near)

    def replications(self, candidate: Candidate, seeds: int) -> list[Outcome]:
        """The outcomes of a candidate with the seeds 1 to `seeds`."""
        runs, judged = self._runs, self.month.judged
        return [runs.judged(candidate, judged, seed=seed) for seed in range(1, seeds + 1)]

    def _refuses(self, candidate: Candidate) -> bool:
        outcome = self._runs.judged(candidate, self.month.judged)
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
        for _ in range(4):
            outcomes = self.replications(found.candidate, seeds)
            if not found.met or self._meets_surely(outcomes):
                break
            larger = self._larger(found.candidate)
            if larger is None:
                break
            found = self.evaluate(larger)
        return found

    def _meets_surely(self, outcomes: list[Outcome]) -> bool:
        def upper(values: list[float]) -> float:
            estimate = interval(values)
            return estimate.high if math.isfinite(estimate.half) else estimate.mean

        figures = KeyFigures(
            upper([each.first_token.at["p99"] for each in outcomes]),
            upper([each.latency.at["p99"] for each in outcomes]),
            upper([each.error_share for each in outcomes]),
        )
        return excess_of(self.question.objective, figures) == 0.0

    def _larger(self, candidate: Candidate) -> Candidate | None:
        question, month, size = self.question, self.month, math.ceil(1.05 * candidate.size)
        match candidate.peak:
            case Lambda(provisioned=0):
                return None
            case Lambda() as platform:
                if size > most_provisioned(limit_of(question, month)):
                    return None
                return function(
                    question, month, candidate.name,
                    memory_mb=platform.memory_mb, provisioned=size,
                )  # fmt: skip
            case Managed():
                return managed(question, month, size)
            case Eks() as platform:
                return eks(question, month, cores=platform.cores, pods=size)
            case _:
                return None

    def _excess(self, candidate: Candidate) -> float:
        outcome = self._runs.judged(candidate, self.month.judged)
        return excess_of(self.question.objective, outcome.figures)

    def evaluate(self, candidate: Candidate) -> Evaluation:
        """Evaluate a candidate: its outcome and its bill."""
        month = self.month
        outcome = self._runs.judged(candidate, month.judged)
        pieces = []
        for window in (month.judged, *month.events, *month.ordinary):
            run = self._runs.judged(candidate, window)
            pieces.append((window.seconds / run.horizon, run.usage, run.attempts))
        items = tuple(bill(self.question, month, candidate, used_in(pieces)))
        cost = sum(item.monthly for item in items)
        over = excess_of(self.question.objective, outcome.figures)
        most = self.question.objective.monthly_cost
        if most is not None and cost > most:
            over += math.log(cost / most)
        return Evaluation(candidate=candidate, outcome=outcome, items=items, cost=cost, excess=over)

    def _guess(self, near: Candidate | None, otherwise: float) -> int:
        """A first size: as much for each request in service as in `near`."""
        if near is None:
            return math.ceil(otherwise)
        # If it was the minimum, it says nothing about larger sizes.
        return min(
            math.ceil(near.size * self.month.peak / near.at_once), math.ceil(1.3 * otherwise)
        )

    def _good_enough(
        self, near: Candidate | None, of: Callable[[int], Candidate], guess: int, most: int
    ) -> Evaluation | None:
        if near is None or self._excess(of(min(guess, most))) != 0.0:
            return None
        found = self.evaluate(of(min(guess, most)))
        return found if found.cost > self.enough else None

    def _function(self, name: PlatformName) -> Evaluation:
        question, month = self.question, self.month
        sizes = memories(question.workload.service)
        best = function(question, month, name, memory_mb=sizes[0])
        lowest = self._excess(best)
        for size in sizes[1:]:
            # Memory makes requests faster; it does not help against refusals.
            if lowest == 0.0 or self._refuses(best):
                break
            candidate = function(question, month, name, memory_mb=size)
            over = self._excess(candidate)
            if over < lowest * 0.98:  # by enough to be worth the memory
                best, lowest = candidate, over
        return self.evaluate(best)

    def _memory(self, of: Callable[[int], Candidate], sizes: list[int]) -> int:
        """The smallest memory that meets; if none does, the smallest, or the largest if nearer."""
        over = [self._excess(of(sizes[0]))]
        for size in sizes[1:]:
            if over[-1] == 0.0:
                break
            over.append(self._excess(of(size)))
        if over[-1] == 0.0:
            return sizes[len(over) - 1]
        return sizes[-1] if over[-1] < 0.98 * over[0] else sizes[0]

    def _provisioned(self, near: Candidate | None) -> Evaluation:
        question, month = self.question, self.month
        most = most_provisioned(limit_of(question, month))
        most = min(most, math.ceil(1.15 * month.peak) + 2)
        sizes = memories(question.workload.service)

        def candidate(size: int, memory: int) -> Candidate:
            return function(
                question, month, "lambda-provisioned", memory_mb=memory, provisioned=size
            )

        guess = self._guess(near, 0.8 * month.peak)
        memory = self._memory(lambda size: candidate(most, size), sizes)
        known_good = self._good_enough(near, lambda size: candidate(size, memory), guess, most)
        if known_good is not None:
            return known_good
        found = least(
            lambda size: self._excess(candidate(size, memory)) == 0.0, 1, guess, most, self._within
        )
        if found == most and self._excess(candidate(1, memory)) <= 1.01 * self._excess(
            candidate(most, memory)
        ):
            found = 1  # more does not help
        best = self.evaluate(candidate(found, memory))
        paying = min(most, worth_provisioning(question, month))
        if best.met and paying > found:
            more = self.evaluate(candidate(paying, memory))
            return more if more.met and more.cost < best.cost else best
        return best

    def _managed(self, near: Candidate | None) -> Evaluation:
        question, month = self.question, self.month
        needed = least_environments(question, month)
        guess = max(3, self._guess(near, needed))
        most = min(_MOST_PODS, 4 * needed + 8)
        known_good = self._good_enough(
            near, lambda size: managed(question, month, size), guess, most
        )
        if known_good is not None:
            return known_good
        found = least(
            lambda size: self._excess(managed(question, month, size)) == 0.0,
            3, guess, most, self._within,
        )  # fmt: skip
        if found == most and self._excess(managed(question, month, most)) != 0.0:
            found = guess  # more does not help
        return self.evaluate(managed(question, month, found))

    def _eks(self, near: Candidate | None) -> Evaluation:
        question, month = self.question, self.month
        fewest = question.options.least_pods
        far = near is not None and near.size * month.peak / near.at_once > 2.0 * fewest
        if not far:
            small = eks(question, month, cores=_CORES[0], pods=fewest)
            if self._excess(small) == 0.0:
                return self.evaluate(small)
        cores = _CORES[-1]
        slots = slots_per_pod(question.workload.service, cores)
        guess = max(fewest, self._guess(near, month.peak / slots))
        most = min(_MOST_PODS, 16 * math.ceil(month.peak / slots) + 16)
        found = least(
            lambda pods: self._excess(eks(question, month, cores=cores, pods=pods)) == 0.0,
            fewest, guess, most, self._within,
        )  # fmt: skip
        if found == most:  # nothing helps: only as many as have slots for all
            found = max(fewest, min(found, guess))
        return self.evaluate(eks(question, month, cores=cores, pods=found))
