"""The check for CI: whether a deployed configuration still meets the objective."""

import math
from statistics import fmean

from msgspec import Struct, structs

from seawall.plan.decision.advice import SEEDS, advise
from seawall.plan.decision.answer import PlatformName
from seawall.plan.decision.places.registry import place_of
from seawall.plan.decision.runs import KeyFigures, Report, SimulationRunner
from seawall.plan.decision.search import CandidateSearch, cost_misses, misses_of
from seawall.plan.decision.windows import month_of
from seawall.plan.inputs.question import Question
from seawall.plan.inputs.question_file import Deployed, QuestionFile

__all__ = ["CheckResult", "check"]


class CheckResult(Struct, frozen=True, kw_only=True):
    """The result of a check.

    Attributes:
        holds: Whether the objective and the expectations of the table `check` are met.
        misses: Where not, in words.
        platform: That was checked: the deployed one, or the choice.
        words: Its configuration for readers.
        monthly_cost: Cost that differs between the platforms.
        first_token_p99: Seconds. None: no request was served.
        error_share: Of requests that were not served.
    """

    holds: bool
    misses: tuple[str, ...]
    platform: PlatformName
    words: tuple[str, ...]
    monthly_cost: float
    first_token_p99: float | None
    error_share: float


def check(written: QuestionFile, *, progress: Report | None = None) -> CheckResult:
    """Check the deployed configuration, else the best one; and the choice, if the file names one.

    Args:
        written: The question with what is deployed and expected.
        progress: Called after each simulation.

    Raises:
        ConfigError: The question makes no sense; the field is named.
    """
    question, deployed = written.question, written.deployed
    if deployed is None:
        return _of_best(question, written.choice, progress)
    found = _of_deployed(question, deployed, progress)
    if written.choice is None:
        return found
    best = _of_best(question, written.choice, progress)
    other = tuple(each for each in best.misses if each.startswith("the choice"))
    return structs.replace(found, holds=found.holds and not other, misses=(*found.misses, *other))


def _of_best(
    question: Question, choice: PlatformName | None, progress: Report | None
) -> CheckResult:
    answer = advise(question, progress=progress)
    best = answer.platforms[answer.choice]
    misses = list(best.misses)
    if choice not in (None, answer.choice):
        misses.append(f"the choice is {answer.choice}, not {choice}: {answer.summary}")
    return CheckResult(
        holds=not misses,
        misses=tuple(misses),
        platform=answer.choice,
        words=best.words,
        monthly_cost=best.monthly_cost,
        first_token_p99=best.first_token.p99.value,
        error_share=best.error_share.value or 0.0,
    )


def _of_deployed(question: Question, deployed: Deployed, progress: Report | None) -> CheckResult:
    month = month_of(question)
    place = place_of(deployed.platform)
    reasons = place.reasons_against(question, month)
    if reasons:
        return CheckResult(
            holds=False,
            misses=reasons,
            platform=place.name,
            words=(),
            monthly_cost=0.0,
            first_token_p99=None,
            error_share=1.0,
        )
    runs = SimulationRunner(progress=progress)
    try:
        finder = CandidateSearch(question, month, runs)
        sized = finder.evaluate(place.deployed(question, month, deployed))
        outcomes = finder.replications(sized.candidate, SEEDS)
    finally:
        runs.close()
    figures = KeyFigures(
        fmean(each.first_token.at["p99"] for each in outcomes),
        fmean(each.latency.at["p99"] for each in outcomes),
        fmean(each.error_share for each in outcomes),
    )
    misses = misses_of(question.objective, figures) + cost_misses(question.objective, sized.cost)
    return CheckResult(
        holds=not misses,
        misses=misses,
        platform=sized.candidate.name,
        words=place.words(sized.candidate.configuration),
        monthly_cost=sized.cost,
        first_token_p99=None if math.isnan(figures.first_token_p99) else figures.first_token_p99,
        error_share=figures.error_share,
    )
