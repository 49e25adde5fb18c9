"""What would have to change if nothing meets the objective: confirmed by another answer."""

import pytest
from msgspec import structs

from seawall.plan import from_flags
from seawall.plan.decision.advice import advise
from seawall.plan.decision.answer import Answer, LambdaConfiguration
from seawall.plan.inputs.model import ModelLimits, ModelUse
from seawall.plan.inputs.question import Objective, Options, Question
from seawall.plan.output.terminal import format_answer

CROWD = from_flags(daily="20000", spikes=["400@20s"], duration="2s..4s", start="1s")
ALONE = Options(platforms=("lambda-provisioned",))
TWO = Options(platforms=("lambda-snapstart", "eks"))


def with_quota(tokens: float) -> Question:
    """A turn reserves 1,500 tokens in and a bound of 1,000 out."""
    model = ModelUse(limits=ModelLimits(tokens_a_minute=tokens), max_tokens=1_000)
    return Question(workload=structs.replace(CROWD, model=model), options=TWO)


@pytest.fixture(scope="module")
def refused() -> Answer:
    """400 at once reserve 1 M tokens; 200,000 a minute admit 80."""
    return advise(with_quota(200_000))


def test_the_answer_begins_with_what_is_missed(refused: Answer) -> None:
    assert not refused.met
    assert refused.summary.startswith("Nothing meets the objective in a spike of 400.")
    for each in refused.platforms.values():
        assert not each.met
        assert each.misses
    lines = format_answer(refused).splitlines()
    heading = lines[lines.index("") + 1]
    assert heading.startswith("NOTHING MEETS THE OBJECTIVE. Nearest, ")
    assert not any(line.startswith("> ") for line in lines)
    assert "margin" not in {line[:18].strip() for line in lines}
    assert len(lines) <= 30


def test_the_confidence_is_in_that_nothing_meets_it(refused: Answer) -> None:
    found = refused.confidence
    assert found.words.startswith("nothing meets it in 5 of 5 replications and ")
    kept = sum(
        not any(case.met.values()) for row in refused.sensitivity for case in (row.low, row.high)
    )
    assert (found.same, found.inputs_same) == (5, kept)


def test_the_quota_that_suffices_does_and_a_fifth_less_does_not(refused: Answer) -> None:
    """400 turns of 2,500 tokens need a million at once, less what refills while some still wait."""
    quota = next(each for each in refused.remedies if each.name == "model.tokens_a_minute")
    assert 600_000 < quota.value < 1_300_000
    held = advise(with_quota(quota.value), vary=False)
    assert held.met
    assert held.remedies == ()
    assert not advise(with_quota(0.8 * quota.value), vary=False).met
    assert f"{quota.value:,.0f}" in quota.words
    costs = [each.monthly_cost for each in refused.remedies]
    assert costs == sorted(costs)


def test_an_objective_within_reach_and_a_budget() -> None:
    question = Question(
        workload=CROWD, options=TWO, objective=Objective(first_token_p99=0.5, monthly_cost=2.0)
    )
    assert not advise(question, vary=False).remedies, "neither change alone helps"
    question = Question(workload=CROWD, options=TWO, objective=Objective(first_token_p99=0.5))
    (reach,) = advise(question, vary=False).remedies
    assert reach.name == "objective.first_token_p99"
    alone = CROWD.service.first_token_p99
    assert 0.9 * alone < reach.value < 1.5 * alone
    question = Question(workload=CROWD, options=TWO, objective=Objective(monthly_cost=2.0))
    answer = advise(question, vary=False)
    budget = next(each for each in answer.remedies if each.name == "objective.monthly_cost")
    assert budget.value - 1 < budget.monthly_cost <= budget.value
    enough = structs.replace(question, objective=Objective(monthly_cost=budget.value))
    assert advise(enough, vary=False).met


def test_the_account_quota_that_suffices() -> None:
    """With the containers left out, only more concurrency helps."""
    options = Options(account_limit=100, platforms=("lambda",))
    question = Question(workload=CROWD, options=options)
    answer = advise(question, vary=False)
    assert not answer.met
    limit = next(each for each in answer.remedies if each.name == "options.account_limit")
    assert 150 < limit.value <= 600
    raised = structs.replace(options, account_limit=int(limit.value))
    assert advise(structs.replace(question, options=raised), vary=False).met


def test_what_pays_may_meet_a_budget_that_the_least_misses() -> None:
    """One provisioned environment meets the objective; six of them cost less."""
    workload = from_flags(daily="100000")
    question = Question(workload=workload, options=ALONE)
    without = advise(question, vary=False).platforms["lambda-provisioned"]
    assert isinstance(without.configuration, LambdaConfiguration)
    assert without.configuration.provisioned > 1
    budget = Objective(monthly_cost=1.01 * without.monthly_cost)
    within = advise(structs.replace(question, objective=budget), vary=False)
    assert within.met
    assert within.platforms["lambda-provisioned"].configuration == without.configuration


def test_a_limit_far_below_what_is_possible_has_a_remedy_and_no_absurd_one() -> None:
    """A millisecond for an answer of seconds: the remedy says the seconds, however far."""
    impossible = Question(
        workload=from_flags(daily="2000", duration="2s..4s", start="1s"),
        options=Options(platforms=("lambda-snapstart",)),
        objective=Objective(first_token_p99=60.0, latency_p99=0.001),
    )
    answer = advise(impossible, vary=False)
    assert not answer.met
    remedies = {each.name: each for each in answer.remedies}
    assert 3.0 < remedies["objective.latency_p99"].value < 12.0


def test_nobody_is_advised_to_accept_that_nothing_is_served() -> None:
    """A quota below one call: errors of 100 % are no remedy."""
    answer = advise(with_quota(100.0), vary=False)
    assert not answer.met
    assert "objective.error_share" not in {each.name for each in answer.remedies}


def test_where_the_quota_refuses_everywhere_the_cheapest_is_nearest() -> None:
    """Errors of 90 % or 92 %: no capacity makes a difference, so money does."""
    model = ModelUse(limits=ModelLimits(tokens_a_minute=60_000), max_tokens=1_000)
    answer = advise(
        Question(
            workload=structs.replace(CROWD, model=model),
            options=Options(platforms=("lambda", "eks")),
        ),
        vary=False,
    )
    errors = [each.error_share.value or 0.0 for each in answer.platforms.values()]
    assert min(errors) > 0.8
    assert answer.choice == "lambda"
    assert answer.platforms["lambda"].monthly_cost < answer.platforms["eks"].monthly_cost
