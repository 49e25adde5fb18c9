"""Lambda functions with provisioned concurrency."""

import math
from statistics import NormalDist

from msgspec import Struct

from seawall.errors import ConfigError
from seawall.plan.decision.answer import (
    Configuration,
    LambdaConfiguration,
    PlatformAnswer,
    PlatformName,
)
from seawall.plan.decision.bill import Bill, Used
from seawall.plan.decision.places.account import limit_of, limit_variation, most_provisioned
from seawall.plan.decision.places.lambda_function import (
    add_function,
    check_deployed,
    function,
    function_notes,
    function_reasons,
    function_words,
    init_variation,
    memories,
    settled_function,
)
from seawall.plan.decision.places.limits import start_reasons
from seawall.plan.decision.places.port import (
    Candidate,
    Cloud,
    Evaluation,
    Family,
    Search,
    Variation,
)
from seawall.plan.decision.sizing import least
from seawall.plan.decision.windows import Month, Window
from seawall.plan.inputs.platforms import Lambda, Platform
from seawall.plan.inputs.question import Question
from seawall.plan.inputs.question_file import Deployed

__all__ = ["PROVISIONED", "worth_provisioning"]


def worth_provisioning(question: Question, month: Month) -> int:
    """The number of environments that cost less provisioned than on demand, as they are often busy.

    An environment pays if the share of time in which so many are busy exceeds the price of standing
    by divided by what a busy second saves: 0.6 at AWS's prices. In each window of ordinary time the
    number of busy ones is Poisson, as in a service without queueing (M/G/∞); here, normal.
    """
    if question.options.announced and month.judged.event:
        return 0  # nothing is provisioned between spikes
    prices, arch = question.prices, question.options.architecture
    saved = prices.of(f"lambda.gb_seconds.{arch}").price
    saved -= prices.of(f"lambda.provisioned_duration.{arch}").price
    needed = prices.of(f"lambda.provisioned_gb_seconds.{arch}").price / max(saved, 1e-12)
    pieces = [each for each in (month.judged, *month.ordinary) if not each.event]
    mean, whole = question.workload.service.mean_seconds, sum(each.seconds for each in pieces)
    busy = [
        (each.workload.expected_requests / each.horizon * mean, each.seconds) for each in pieces
    ]

    def share(count: int) -> float:
        return sum(
            seconds * (1.0 - NormalDist(level, math.sqrt(level) or 1e-9).cdf(count - 0.5))
            for level, seconds in busy
        ) / max(whole, 1e-9)

    low, high = 0, math.ceil(month.usual) + 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if share(middle) >= needed else (low, middle - 1)
    return low


class ProvisionedFunction(Struct, frozen=True, kw_only=True):
    """A function with environments that were initialised in advance."""

    name: PlatformName = "lambda-provisioned"
    title: str = "Lambda, provisioned concurrency"
    short: str = "Lambda, provisioned"
    family: Family = "functions"
    cloud: Cloud = "aws"

    def reasons_against(self, question: Question, month: Month) -> tuple[str, ...]:
        """See `Place`."""
        found = function_reasons(question)
        return (*found, *start_reasons(question, "provisioned concurrency"))

    def find(self, search: Search, near: Candidate | None) -> Evaluation:
        """The least that is provisioned and meets, or more where that costs less."""
        question, month = search.question, search.month
        most = most_provisioned(limit_of(question, month))
        most = min(most, math.ceil(1.15 * month.peak) + 2)

        def candidate(size: int, memory: int) -> Candidate:
            return function(question, month, self, memory_mb=memory, provisioned=size)

        guess = search.guess(near, 0.8 * month.peak)
        memory = self._memory(search, most)
        known_good = search.good_enough(near, lambda size: candidate(size, memory), guess, most)
        if known_good is not None:
            return known_good
        found = least(
            lambda size: search.excess(candidate(size, memory)) == 0.0,
            1, guess, most, search.within,
        )  # fmt: skip
        if found == most and search.excess(candidate(1, memory)) <= 1.01 * search.excess(
            candidate(most, memory)
        ):
            found = 1  # more does not help
        best = search.evaluate(candidate(found, memory))
        paying = min(most, worth_provisioning(question, month))
        # A budget may be missed by the least that is provisioned, and met with what pays.
        if paying > found and search.excess(best.candidate) == 0.0:
            more = search.evaluate(candidate(paying, memory))
            return more if more.excess <= best.excess and more.cost < best.cost else best
        return best

    def _memory(self, search: Search, most: int) -> int:
        """The smallest memory that meets; if none does, the smallest, or the largest if nearer."""
        question, month = search.question, search.month
        sizes = memories(question.workload.service)
        over: list[float] = []
        for size in sizes:
            large = function(question, month, self, memory_mb=size, provisioned=most)
            over.append(search.excess(large))
            if over[-1] == 0.0:
                return size
        return sizes[-1] if over[-1] < 0.98 * over[0] else sizes[0]

    def larger(self, question: Question, month: Month, candidate: Candidate) -> Candidate | None:
        """See `Place`."""
        size = math.ceil(1.05 * candidate.size)
        if size > most_provisioned(limit_of(question, month)):
            return None
        assert isinstance(candidate.peak, Lambda)
        memory = candidate.peak.memory_mb
        return function(question, month, self, memory_mb=memory, provisioned=size)

    def settled(self, candidate: Candidate, window: Window) -> Platform:
        """See `Place`."""
        return settled_function(candidate)

    def bill(self, lines: Bill, candidate: Candidate, used: Used) -> None:
        """See `Place`."""
        configuration = candidate.configuration
        assert isinstance(configuration, LambdaConfiguration)
        arch, gb = configuration.architecture, configuration.memory_mb / 1_024.0
        standing = used.provisioned_seconds + candidate.size * lines.lead_seconds()
        lines.add(f"lambda.provisioned_gb_seconds.{arch}", "provisioned, standing", gb * standing)
        busy = gb * used.provisioned_billed_seconds
        lines.add(f"lambda.provisioned_duration.{arch}", "provisioned, compute", busy)
        add_function(lines, configuration, used)

    def words(self, configuration: Configuration) -> tuple[str, ...]:
        """See `Place`."""
        assert isinstance(configuration, LambdaConfiguration)
        return function_words(configuration)

    def notes(
        self, question: Question, month: Month, answer: PlatformAnswer, *, chosen: bool
    ) -> list[str]:
        """See `Place`."""
        if not chosen:
            return []
        assert isinstance(answer.configuration, LambdaConfiguration)
        return function_notes(answer.configuration)

    def variations(self, question: Question) -> list[Variation]:
        """See `Place`."""
        return [limit_variation(question), init_variation(question)]

    def deployed(self, question: Question, month: Month, deployed: Deployed) -> Candidate:
        """See `Place`."""
        if not deployed.provisioned:
            raise ConfigError("deployed.provisioned: missing")
        check_deployed(question, deployed.memory_mb)
        return function(
            question, month, self, memory_mb=deployed.memory_mb, provisioned=deployed.provisioned
        )


PROVISIONED = ProvisionedFunction()
