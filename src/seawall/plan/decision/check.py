"""The check for CI: whether a deployed configuration still meets the objective."""

import math
import os
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from seawall.errors import ConfigError
from seawall.plan.decision.advice import SEEDS, advise
from seawall.plan.decision.answer import Configuration, LimitHit, PlatformName
from seawall.plan.decision.bill import shared_costs
from seawall.plan.decision.limits_hit import limits_hit
from seawall.plan.decision.places.registry import place_of, title_of
from seawall.plan.decision.runs import Report, SimulationRunner, platform_in
from seawall.plan.decision.search import CandidateSearch, cost_misses, mean_figures, misses_of
from seawall.plan.decision.windows import Month, check_amount, month_of
from seawall.plan.inputs.question import Objective, Question
from seawall.plan.inputs.question_file import Deployed, QuestionFile

__all__ = ["CHECK_SCHEMA", "CheckResult", "check", "read_baseline"]

CHECK_SCHEMA = "seawall.plan.check/1"


class CheckResult(Struct, frozen=True, kw_only=True):
    """The result of a check.

    Attributes:
        holds: Whether all is as it should be: the objective is met, and the choice is the expected
            one. The exit status and the title follow from it.
        title: The result in one line.
        met: Whether the objective is met.
        misses: Where the objective or the expectation is not met, in words.
        platform: That was checked: the deployed one, or the choice.
        words: Its configuration for readers.
        monthly_cost: Cost that differs between the platforms.
        whole_cost: With the model, the session store and traffic to clients.
        model_title: Name of the model, for readers.
        first_token_p99: Seconds. None: no request was served.
        latency_p99: Seconds. None: no request was served.
        error_share: Of requests that were not served.
        first_limit: Which limit the requests met first, in words; empty: none.
        objective: That was asked for.
        region: Of the prices.
        currency: Of all money.
        prices_date: Of the price file.
        schema: Of the JSON.
    """

    holds: bool
    title: str
    met: bool
    misses: tuple[str, ...]
    platform: PlatformName
    words: tuple[str, ...]
    monthly_cost: float
    whole_cost: float
    model_title: str
    first_token_p99: float | None
    latency_p99: float | None
    error_share: float
    first_limit: str
    objective: Objective
    region: str
    currency: str
    prices_date: str
    schema: str = CHECK_SCHEMA


def read_baseline(path: Path) -> CheckResult:
    """Read the result of an earlier check, as `--check FILE --json` prints it.

    Raises:
        ConfigError: The file cannot be read, or is something else; it is named.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=CheckResult)
    except OSError as error:
        raise ConfigError(f"--baseline {path}: cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise ConfigError(
            f"--baseline {path}: not the output of seawall plan --check FILE --json: {error}"
        ) from None
    if found.schema != CHECK_SCHEMA:
        raise ConfigError(f"--baseline {path}: schema {found.schema!r}, not {CHECK_SCHEMA!r}")
    return found


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
    answer = advise(question, progress=progress, vary=False)
    return _expecting(found, written.choice, answer.choice, answer.summary)


def _expecting(
    found: CheckResult, expected: PlatformName | None, choice: PlatformName, summary: str
) -> CheckResult:
    """The result with an expectation of the choice."""
    if expected is None or expected == choice:
        return found
    and_ = "but" if found.met else "and"
    title = f"{found.title}, {and_} the choice is {title_of(choice)}, not {title_of(expected)}"
    miss = f"the choice is {choice}, not {expected}: {summary}"
    return structs.replace(found, holds=False, title=title, misses=(*found.misses, miss))


def _of_best(
    question: Question, choice: PlatformName | None, progress: Report | None
) -> CheckResult:
    answer = advise(question, progress=progress, vary=False)
    best = answer.platforms[answer.choice]
    found = _result(
        question, month_of(question), best.name, best.configuration, best.misses,
        cost=best.monthly_cost, first=best.first_token.p99.value, last=best.latency.p99.value,
        errors=best.error_share.value or 0.0, limit=best.first_limit,
    )  # fmt: skip
    return _expecting(found, choice, answer.choice, answer.summary)


def _of_deployed(question: Question, deployed: Deployed, progress: Report | None) -> CheckResult:
    check_amount(question)
    month = month_of(question)
    place = place_of(deployed.platform)
    reasons = place.reasons_against(question, month)
    if reasons:
        return _result(
            question, month, place.name, None, reasons,
            cost=0.0, first=None, last=None, errors=1.0, limit=None,
        )  # fmt: skip
    runs = SimulationRunner(workers=os.cpu_count() or 1, progress=progress)
    try:
        runs.watch(month.judged)
        finder = CandidateSearch(question, month, runs)
        sized = finder.evaluate(place.deployed(question, month, deployed))
        outcomes = finder.replications(sized.candidate, SEEDS)
    finally:
        runs.close()
    result = outcomes[0].result
    limits = (
        ()
        if result is None
        else limits_hit(
            result, month.judged, platform_in(sized.candidate, month.judged), question.each
        )
    )
    figures = mean_figures(outcomes)
    misses = misses_of(question.objective, figures) + cost_misses(
        question.objective, sized.cost, question.prices.currency
    )
    return _result(
        question, month, sized.candidate.name, sized.candidate.configuration, misses,
        cost=sized.cost, first=figures.first_token_p99, last=figures.latency_p99,
        errors=figures.error_share, limit=limits[0] if limits else None,
    )  # fmt: skip


def _result(
    question: Question,
    month: Month,
    name: PlatformName,
    configuration: Configuration | None,
    misses: tuple[str, ...],
    *,
    cost: float,
    first: float | None,
    last: float | None,
    errors: float,
    limit: LimitHit | None,
) -> CheckResult:
    def known(value: float | None) -> float | None:
        return None if value is None or math.isnan(value) else value

    prices = question.prices
    verdict = "misses the objective" if misses else "meets the objective"
    if configuration is None:
        verdict = "cannot run the service"
    return CheckResult(
        holds=not misses,
        title=f"{title_of(name)} {verdict}",
        met=not misses,
        misses=misses,
        platform=name,
        words=() if configuration is None else place_of(name).words(configuration),
        monthly_cost=cost,
        whole_cost=cost + shared_costs(question, month).monthly,
        model_title=question.model.title,
        first_token_p99=known(first),
        latency_p99=known(last),
        error_share=errors,
        first_limit="" if limit is None else limit.words,
        objective=question.objective,
        region=prices.region,
        currency=prices.currency,
        prices_date=prices.date,
    )
