"""What would have to change if nothing meets the objective: confirmed by another answer."""

import pytest
from msgspec import structs

from seawall.plan import from_flags
from seawall.plan.decision.advice import advise
from seawall.plan.decision.answer import Answer
from seawall.plan.inputs.model import ModelLimits, ModelUse
from seawall.plan.inputs.question import Objective, Options, Question
from seawall.plan.output.terminal import format_answer

CROWD = from_flags(daily="20000", spikes=["400@20s"], duration="2s..4s", start="1s")
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
    held = advise(with_quota(quota.value))
    assert held.met
    assert held.remedies == ()
    assert not advise(with_quota(0.8 * quota.value)).met
    assert f"{quota.value:,.0f}" in quota.words
    costs = [each.monthly_cost for each in refused.remedies]
    assert costs == sorted(costs)


def test_an_objective_within_reach_and_a_budget() -> None:
    question = Question(
        workload=CROWD, options=TWO, objective=Objective(first_token_p99=0.5, monthly_cost=2.0)
    )
    assert not advise(question).remedies, "neither change alone helps"
    question = Question(workload=CROWD, options=TWO, objective=Objective(first_token_p99=0.5))
    reach = next(
        each for each in advise(question).remedies if each.name == "objective.first_token_p99"
    )
    alone = CROWD.service.first_token_p99
    assert 0.9 * alone < reach.value < 1.5 * alone
    question = Question(workload=CROWD, options=TWO, objective=Objective(monthly_cost=2.0))
    answer = advise(question)
    budget = next(each for each in answer.remedies if each.name == "objective.monthly_cost")
    assert budget.value - 1 < budget.monthly_cost <= budget.value
    assert advise(structs.replace(question, objective=Objective(monthly_cost=budget.value))).met


def test_the_account_quota_that_suffices() -> None:
    """With the containers left out, only more concurrency helps."""
    options = Options(account_limit=100, platforms=("lambda", "lambda-snapstart"))
    question = Question(workload=CROWD, options=options)
    answer = advise(question)
    assert not answer.met
    limit = next(each for each in answer.remedies if each.name == "options.account_limit")
    assert 150 < limit.value <= 600
    raised = structs.replace(options, account_limit=int(limit.value))
    assert advise(structs.replace(question, options=raised)).met
