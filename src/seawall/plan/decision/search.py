"""The cheapest configuration of a platform that meets the objective; else the one nearest to it."""

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
from seawall.plan.decision.concurrency import limit_of, most_provisioned, worth_provisioning
from seawall.plan.decision.managed_sizes import least_environments
from seawall.plan.decision.runs import Outcome, SimulationRunner
from seawall.plan.decision.windows import Month
from seawall.plan.inputs.objective import excess, misses
from seawall.plan.inputs.platforms import Eks, Lambda, Managed
from seawall.plan.inputs.question import Question
from seawall.plan.simulator.replications import interval

__all__ = ["CandidateSearch", "Evaluation", "excess_of", "misses_of"]

_CORES = (0.4, 0.85)  # of a pod: what lets four or two of them fit on two vCPUs
_MOST_PODS = 2_000


class Evaluation(Struct, frozen=True, kw_only=True):
    """A configuration with what became of the crowd and what a month costs.

    outcome: of the first replication.
    """

    candidate: Candidate
    outcome: Outcome
    items: tuple[CostItem, ...]
    cost: float
    excess: float

    @property
    def met(self) -> bool:
        """The objective holds."""
        return self.excess == 0.0


def excess_of(question: Question, outcome: Outcome) -> float:
    """How far the outcome is from what is asked; 0: it holds."""
    return excess(
        question.objective,
        first_token=outcome.first_token.at["p99"],
        latency=outcome.latency.at["p99"],
        errors=outcome.error_share,
    )


def misses_of(question: Question, outcome: Outcome) -> tuple[str, ...]:
    """The same in words."""
    return misses(
        question.objective,
        first_token=outcome.first_token.at["p99"],
        latency=outcome.latency.at["p99"],
        errors=outcome.error_share,
    )


def least(meets: Callable[[int], bool], low: int, guess: int, most: int, within: float) -> int:
    """The least number that meets, by a share `within`; `most` if none does.

    From a guess outwards, then between: with a good guess two or three questions are enough.
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
    """Searches for one question. within: how near a size is to the least that would do.

    enough: a configuration near to what is known, which meets the objective and costs more than
    this, is not made smaller: it will not be the choice.
    """

    def __init__(
        self, question: Question, month: Month, runs: SimulationRunner, *, within: float = 0.03
    ) -> None:
        self.question, self.month, self._runs = question, month, runs
        self._within = within
        self.enough = math.inf

    def find(self, name: PlatformName, near: Candidate | None = None) -> Evaluation:
        """For one platform; near: what was found for a similar question."""
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
        """What becomes of the crowd with each of so many seeds."""
        runs, judged = self._runs, self.month.judged
        return [runs.judged(candidate, judged, seed=seed) for seed in range(1, seeds + 1)]

    def _refuses(self, candidate: Candidate) -> bool:
        outcome = self._runs.judged(candidate, self.month.judged)
        most = self.question.objective.error_share
        return outcome.requests > 0 and outcome.refused / outcome.requests > most

    def ordinary(self, candidate: Candidate) -> list[Outcome]:
        """Of the pieces of ordinary time, the busiest first."""
        month = self.month
        pieces = [month.judged, *month.ordinary]
        return [self._runs.judged(candidate, each) for each in pieces if not each.event]

    def confirm(self, found: Evaluation, seeds: int) -> Evaluation:
        """A little more of it, where it only just met the objective with the first seed.

        It has to hold at the upper end of the intervals over the replications. A function without
        provisioned concurrency has nothing to add.
        """
        for _ in range(4):
            outcomes = self.replications(found.candidate, seeds)
            if not found.met or self._surely(outcomes):
                break
            larger = self._larger(found.candidate)
            if larger is None:
                break
            found = self.sized(larger)
        return found

    def _surely(self, outcomes: list[Outcome]) -> bool:
        def upper(values: list[float]) -> float:
            estimate = interval(values)
            return estimate.high if math.isfinite(estimate.half) else estimate.mean

        over = excess(
            self.question.objective,
            first_token=upper([each.first_token.at["p99"] for each in outcomes]),
            latency=upper([each.latency.at["p99"] for each in outcomes]),
            errors=upper([each.error_share for each in outcomes]),
        )
        return over == 0.0

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

    def _excess(self, candidate: Candidate, seed: int = 1) -> float:
        outcome = self._runs.judged(candidate, self.month.judged, seed=seed)
        return excess_of(self.question, outcome)

    def sized(self, candidate: Candidate) -> Evaluation:
        """With its outcome and its bill."""
        month = self.month
        outcome = self._runs.judged(candidate, month.judged)
        pieces = []
        for window in (month.judged, *month.events, *month.ordinary):
            run = self._runs.judged(candidate, window)
            pieces.append((window.seconds / run.horizon, run.usage, run.attempts))
        items = tuple(bill(self.question, month, candidate, used_in(pieces)))
        cost = sum(item.monthly for item in items)
        over = excess_of(self.question, outcome)
        most = self.question.objective.monthly_cost
        if most is not None and cost > most:
            over += math.log(cost / most)
        return Evaluation(candidate=candidate, outcome=outcome, items=items, cost=cost, excess=over)

    def _guess(self, near: Candidate | None, otherwise: float) -> int:
        """As much for each request at once as in what is known."""
        if near is None:
            return math.ceil(otherwise)
        # Where it was the least that there can be, it says nothing of what more would need.
        return min(
            math.ceil(near.size * self.month.peak / near.at_once), math.ceil(1.3 * otherwise)
        )

    def _good_enough(
        self, near: Candidate | None, of: Callable[[int], Candidate], guess: int, most: int
    ) -> Evaluation | None:
        if near is None or self._excess(of(min(guess, most))) != 0.0:
            return None
        found = self.sized(of(min(guess, most)))
        return found if found.cost > self.enough else None

    def _function(self, name: PlatformName) -> Evaluation:
        question, month = self.question, self.month
        sizes = memories(question.workload.service)
        best = function(question, month, name, memory_mb=sizes[0])
        lowest = self._excess(best)
        for size in sizes[1:]:
            # Memory makes it quicker; it does not help those who are refused.
            if lowest == 0.0 or self._refuses(best):
                break
            candidate = function(question, month, name, memory_mb=size)
            over = self._excess(candidate)
            if over < lowest * 0.98:  # by enough to be worth its memory
                best, lowest = candidate, over
        return self.sized(best)

    def _memory(self, of: Callable[[int], Candidate], sizes: list[int]) -> int:
        """The least that meets; if none does, the least, unless the greatest comes nearer."""
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
            found = 1  # more do not help
        best = self.sized(candidate(found, memory))
        paying = min(most, worth_provisioning(question, month))
        if best.met and paying > found:
            more = self.sized(candidate(paying, memory))
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
            found = guess  # more do not help
        return self.sized(managed(question, month, found))

    def _eks(self, near: Candidate | None) -> Evaluation:
        question, month = self.question, self.month
        fewest = question.options.least_pods
        far = near is not None and near.size * month.peak / near.at_once > 2.0 * fewest
        if not far:
            small = eks(question, month, cores=_CORES[0], pods=fewest)
            if self._excess(small) == 0.0:
                return self.sized(small)
        cores = _CORES[-1]
        places = slots_per_pod(question.workload.service, cores)
        guess = max(fewest, self._guess(near, month.peak / places))
        most = min(_MOST_PODS, 16 * math.ceil(month.peak / places) + 16)
        found = least(
            lambda pods: self._excess(eks(question, month, cores=cores, pods=pods)) == 0.0,
            fewest, guess, most, self._within,
        )  # fmt: skip
        if found == most:  # nothing helps: no more than have room for all
            found = max(fewest, min(found, guess))
        return self.sized(eks(question, month, cores=cores, pods=found))
