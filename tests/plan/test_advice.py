"""Answers: the choices of the article with numbers, and properties of every answer."""

import base64
import math
import pickle

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from seawall.plan import Arrivals, Lambda, Spike, Workload, from_flags
from seawall.plan.decision.advice import advise
from seawall.plan.decision.answer import (
    Answer,
    EksConfiguration,
    LambdaConfiguration,
    ManagedConfiguration,
)
from seawall.plan.decision.places.account import limit_of, most_provisioned
from seawall.plan.decision.places.eks import eks
from seawall.plan.decision.places.lambda_function import function
from seawall.plan.decision.places.lambda_provisioned import PROVISIONED
from seawall.plan.decision.runs import SimulationRunner
from seawall.plan.decision.search import CandidateSearch
from seawall.plan.decision.sizing import least
from seawall.plan.decision.variations import with_traffic
from seawall.plan.decision.windows import month_of
from seawall.plan.inputs.question import Objective, Options, Question
from seawall.plan.simulator.result import SERIES
from tests.once import once
from tests.properties import examples

# The article's two, Lambda in all its kinds; the others have tests of their own.
FIVE = ("lambda", "lambda-provisioned", "lambda-snapstart", "lambda-managed", "eks")


def question_of(**flags: object) -> Question:
    options = flags.pop("options", Options(platforms=FIVE))
    objective = flags.pop("objective", Objective())
    workload = from_flags(**flags)  # type: ignore[arg-type]
    return Question(workload=workload, options=options, objective=objective)  # type: ignore[arg-type]


LITTLE = {"daily": "100", "duration": "2s", "start": "1s"}
HOPELESS = Objective(first_token_p99=0.5)  # for answers of four seconds
CROWD = {"daily": "1200000", "spikes": ("5000@20s",), "duration": "4s..7s", "start": "1s"}


def made_once(name: str, question: Question, *, vary: bool = True) -> Answer:
    """An answer that several tests read, on whichever workers they run."""

    def make() -> str:
        return base64.b64encode(pickle.dumps(advise(question, vary=vary))).decode()

    answer: Answer = pickle.loads(base64.b64decode(once(f"advice-{name}", make)))
    return answer


@pytest.fixture(scope="session")
def crowd() -> Answer:
    return made_once("crowd", question_of(**CROWD))


@pytest.fixture(scope="session")
def single() -> Answer:
    """One function only."""
    options = Options(platforms=FIVE, most_functions=1)
    return made_once("single", question_of(**CROWD, options=options), vary=False)


@pytest.fixture(scope="session")
def hopeless() -> Answer:
    """An objective that the model alone misses."""
    return made_once("hopeless", question_of(**CROWD, objective=HOPELESS), vary=False)


@pytest.fixture(scope="session")
def quiet() -> Answer:
    return made_once("quiet", question_of(**LITTLE))


def test_eks_for_the_spike_of_the_article(crowd: Answer) -> None:
    assert (crowd.choice, crowd.met) == ("eks", True)
    best, classic = crowd.platforms["eks"], crowd.platforms["lambda"]
    assert isinstance(best.configuration, EksConfiguration)
    assert 2 <= best.configuration.pods <= 20  # the article's twenty are more than enough
    assert best.error_share.value == 0.0
    assert 150 < best.monthly_cost < 1_000
    first = best.first_token.p99
    assert first.value is not None and first.half is not None  # noqa: PT018
    assert 2.5 < first.value < 5.0 and first.half < 0.5  # noqa: PT018
    # Classic: each function starts 1,000 environments at once, so there are five.
    assert classic.met
    assert isinstance(classic.configuration, LambdaConfiguration)
    assert classic.configuration.functions in {4, 5}
    assert crowd.runner_up == "lambda"
    assert crowd.margin.by == "cost" and crowd.margin.ratio > 2  # noqa: PT018


def test_one_function_refuses_most_of_the_spike(single: Answer) -> None:
    """1,000 environments at once and 100 a second after; the rest is refused."""
    classic = single.platforms["lambda"]
    assert not classic.met
    assert 0.6 < (classic.refused.value or 0.0) < 0.8
    assert single.runner_up == "lambda-managed"


def test_provisioned_concurrency_for_the_spike_costs_more_than_a_cluster(crowd: Answer) -> None:
    """The article: «approaching that scale … starts resembling permanently running»."""
    found = crowd.platforms["lambda-provisioned"]
    assert isinstance(found.configuration, LambdaConfiguration)
    assert found.met and found.configuration.provisioned > 3_500  # noqa: PT018
    assert found.configuration.account_concurrency >= found.configuration.provisioned
    assert found.monthly_cost > 10 * crowd.platforms["eks"].monthly_cost


def test_lambda_for_little_traffic(quiet: Answer) -> None:
    assert (quiet.choice, quiet.met) == ("lambda", True)
    assert quiet.platforms["lambda"].monthly_cost < 1.0  # «essentially rounding error»
    assert quiet.platforms["eks"].monthly_cost > 100
    assert quiet.rule_of_thumb.choice == "lambda" and quiet.rule_of_thumb.agrees  # noqa: PT018
    # With no spike the second by second is of ordinary time, from its beginning.
    assert quiet.platforms["lambda"].series.start == 0.0
    assert any("EKS" in each.rule for each in quiet.rule_of_thumb.disagreements)
    assert quiet.curve.break_even  # more traffic would change it
    assert quiet.curve.break_even[0].below == "lambda"


def test_rule_of_thumb_and_differences_of_the_simulation(single: Answer) -> None:
    rule = single.rule_of_thumb
    assert [each.name for each in rule.criteria] == [
        "duration", "initialisation", "concurrency", "burstiness", "statefulness",
    ]  # fmt: skip
    assert rule.choice == "eks" and rule.agrees  # noqa: PT018
    about = {each.about: each for each in rule.disagreements}
    assert "throttled" in about["initialisation"].why
    assert "many requests" in about["concurrency"].why


def test_the_configurations_of_the_article() -> None:
    """The article's own configurations, on a platform without AWS's scaling rate as it has it.

    The counts (100 warm, 4,900 cold) are in test_article; cost and objective are here.
    """
    question = question_of(**CROWD)
    month = month_of(question)
    runs = SimulationRunner()
    finder = CandidateSearch(question, month, runs)
    hundred = finder.evaluate(
        function(question, month, PROVISIONED, memory_mb=1_769, provisioned=100)
    )
    twenty = finder.evaluate(eks(question, month, cores=0.85, pods=20))
    runs.close()
    assert not hundred.met and hundred.outcome.error_share > 0.5  # noqa: PT018
    assert twenty.met and twenty.outcome.error_share == 0.0  # noqa: PT018
    assert twenty.cost < hundred.cost


def check_consistent(answer: Answer) -> None:
    assert list(answer.platforms) == list(FIVE)
    assert answer.choice != answer.runner_up
    best = answer.platforms[answer.choice]
    for name, each in answer.platforms.items():
        assert each.name == name and each.words  # noqa: PT018
        assert each.monthly_cost == pytest.approx(sum(item.monthly for item in each.items))
        for item in each.items:
            assert item.monthly == pytest.approx(item.quantity * item.price)
        assert each.met == (not each.misses)
        shares = [each.served, each.refused, each.timed_out, each.failed]
        assert sum(share.value or 0.0 for share in shares) == pytest.approx(1.0)
        assert set(each.series.values) == set(SERIES)
        assert len({len(values) for values in each.series.values.values()}) == 1
        points = each.first_token.distribution
        assert list(points) == sorted(points)
        if each.met:
            assert answer.met
            assert best.monthly_cost <= each.monthly_cost
    curve = answer.curve
    here = curve.multiples.index(1.0)
    assert curve.choices[here] == answer.choice
    for name in FIVE:
        assert curve.costs[name][here] == pytest.approx(answer.platforms[name].monthly_cost)
        assert len(curve.costs[name]) == len(curve.met[name]) == len(curve.multiples)
    changes = sum(a != b for a, b in zip(curve.choices, curve.choices[1:], strict=False))
    assert len(curve.break_even) == changes
    for row in answer.sensitivity:
        assert row.changes_choice == (answer.choice not in (row.low.choice, row.high.choice)) or (
            row.changes_choice == any(c.choice != answer.choice for c in (row.low, row.high))
        )
    assert all(each.source for each in answer.inputs)


def test_answers_are_consistent(crowd: Answer, quiet: Answer) -> None:
    check_consistent(crowd)
    check_consistent(quiet)


def test_an_answer_survives_json(crowd: Answer) -> None:
    text = msgspec.json.encode(crowd)
    assert msgspec.json.decode(text, type=Answer) == crowd
    plain = msgspec.json.decode(text)
    assert plain["schema"] == "seawall.plan/2"
    assert plain["platforms"]["eks"]["configuration"]["kind"] == "eks"


def test_answers_are_deterministic(quiet: Answer) -> None:
    again = advise(question_of(**LITTLE), workers=1)
    same = structs.replace(again, work=quiet.work)
    assert same == quiet


def test_without_variations_the_answer_is_the_same(crowd: Answer, quiet: Answer) -> None:
    for flags, whole in ((CROWD, crowd), (LITTLE, quiet)):
        short = advise(question_of(**flags), vary=False)
        assert short.curve.multiples == (1.0,)
        assert short.sensitivity == ()
        assert short.confidence.same == whole.confidence.same
        assert short.work.simulations < 0.6 * whole.work.simulations
        varied = ("curve", "sensitivity", "confidence", "work")
        assert whole == structs.replace(short, **{name: getattr(whole, name) for name in varied})


def test_a_spike_above_the_account_limit() -> None:
    answer = advise(
        question_of(**CROWD, options=Options(platforms=FIVE, account_limit=1_000)), vary=False
    )
    assert answer.choice == "eks"
    for name in ("lambda", "lambda-provisioned", "lambda-snapstart"):
        found = answer.platforms[name]
        assert not found.met
        assert 0.7 < (found.refused.value or 0.0) < 0.9
    assert any("account's limit of 1,000" in note for note in answer.notes)


def test_an_objective_that_no_platform_meets(hopeless: Answer) -> None:
    answer = hopeless
    assert not answer.met
    assert "Nothing meets the objective" in answer.summary
    assert answer.platforms[answer.choice].misses


def test_announced_spikes_need_no_capacity_between(crowd: Answer) -> None:
    standing = crowd.platforms
    answer = advise(
        question_of(**CROWD, options=Options(platforms=FIVE, announced=True)), vary=False
    )
    for name in ("lambda-provisioned", "lambda-managed", "eks"):
        assert answer.platforms[name].met
        assert answer.platforms[name].monthly_cost < standing[name].monthly_cost
    provisioned = answer.platforms["lambda-provisioned"].configuration
    assert isinstance(provisioned, LambdaConfiguration)
    assert provisioned.provisioned == 0
    assert provisioned.schedule[0].at == -900 and provisioned.schedule[0].count > 3_500  # noqa: PT018
    managed = answer.platforms["lambda-managed"].configuration
    assert isinstance(managed, ManagedConfiguration)
    assert managed.schedule[0].count > managed.minimum


def test_processes_on_managed_instances_cost_memory(crowd: Answer) -> None:
    """A process a request, as AWS's Python runtime has it: fewer fit."""
    ours = crowd.platforms["lambda-managed"]
    theirs = advise(
        question_of(**CROWD, options=Options(platforms=FIVE, managed_runtime="processes")),
        vary=False,
    )
    found = theirs.platforms["lambda-managed"]
    assert isinstance(found.configuration, ManagedConfiguration)
    assert found.configuration.in_flight <= 16
    assert found.monthly_cost > 2 * ours.monthly_cost


def test_a_budget_is_part_of_the_objective() -> None:
    answer = advise(question_of(**CROWD, objective=Objective(monthly_cost=200.0)), vary=False)
    assert not answer.met
    assert any("a month (at most $200)" in miss for miss in answer.platforms["eks"].misses)


def test_memory_does_not_grow_with_the_requests_of_a_day() -> None:
    """A hundred times the traffic is not more requests simulated, beyond what is in service."""
    few, many = (
        advise(question_of(daily=daily, duration="2s", start="1s"), vary=False).work
        for daily in ("100k", "10M")
    )
    assert many.requests < 10 * few.requests


@given(low=st.integers(1, 5), answer=st.integers(1, 3_000), guess=st.integers(1, 4_000))
@examples(66, 1_000)
def test_search_finds_the_least_that_meets(low: int, answer: int, guess: int) -> None:
    asked_of: list[int] = []

    def meets(size: int) -> bool:
        asked_of.append(size)
        return size >= answer

    found = least(meets, low, guess, 4_000, 0.03)
    exact = max(low, answer)
    assert exact <= found <= max(exact + 1, math.ceil(exact * 1.04))
    assert len(asked_of) < 30


def test_search_returns_most_where_nothing_meets() -> None:
    assert least(lambda _: False, 1, 10, 100, 0.03) == 100


@given(multiple=st.sampled_from([0.1, 0.3, 1.0, 3.0, 2.5]))
@settings(max_examples=10, deadline=None)
def test_a_multiple_of_the_traffic(multiple: float) -> None:
    workload = Workload(arrivals=Arrivals(rate=1.0, spikes=(Spike(1_000, 20.0),)))
    question = Question(workload=workload)
    less, more = month_of(question), month_of(with_traffic(question, multiple))
    assert more.requests == pytest.approx(multiple * less.requests, rel=0.001)
    assert more.a_day == pytest.approx(multiple * less.a_day, rel=0.001)


def test_clients_of_slow_requests_wait_longer() -> None:
    """Clients of requests that take a minute do not time out after a minute."""
    asked = question_of(daily="20000", spikes=("200@20s",), duration="60s", start="1s")
    answer = advise(asked, vary=False)
    assert answer.platforms["eks"].met
    assert answer.platforms["eks"].timed_out.value == 0.0
    clients = next(each for each in answer.inputs if each.name == "clients")
    assert "180 s, three times a request" in clients.source


@pytest.mark.parametrize("limit", [None, 6_000, 1_000])
def test_provisioned_concurrency_can_be_deployed(limit: int | None) -> None:
    """Not more than is reserved for the function, and 100 of the account's stay for others.

    https://docs.aws.amazon.com/lambda/latest/dg/provisioned-concurrency.html
    """
    options = Options(account_limit=limit)
    question = question_of(**CROWD, objective=Objective(first_token_p99=0.5), options=options)
    month = month_of(question)
    runs = SimulationRunner()
    found = (
        CandidateSearch(question, month, runs).find("lambda-provisioned").candidate.configuration
    )
    size = min(most_provisioned(limit_of(question, month)), 5_900)
    largest = function(question, month, PROVISIONED, memory_mb=256, provisioned=size).configuration
    runs.close()
    for each in (found, largest):
        assert isinstance(each, LambdaConfiguration)
        assert each.provisioned <= each.account_concurrency - 100
        assert each.reserved_concurrency is None or each.provisioned <= each.reserved_concurrency


def test_an_objective_that_the_model_alone_misses(crowd: Answer, hopeless: Answer) -> None:
    assert not hopeless.met
    note = next(each for each in hopeless.notes if each.startswith("No platform can meet"))
    assert "first token p99 of 500 ms" in note
    managed, easy = (each.platforms["lambda-managed"] for each in (hopeless, crowd))
    assert managed.monthly_cost < 1.5 * easy.monthly_cost  # four times as many did not help


def test_busy_environments_are_cheaper_provisioned() -> None:
    """A level million a day: seventy environments are busy all the time.

    On demand a second costs 1.33334e-5 a GB, provisioned and busy 1.11112e-5: 17 % less.
    """
    question = question_of(daily="1200000", duration="4s..7s", start="1s")
    month = month_of(question)
    runs = SimulationRunner()
    finder = CandidateSearch(question, month, runs)
    found = finder.find("lambda-provisioned")
    configuration = found.candidate.configuration
    assert isinstance(configuration, LambdaConfiguration)
    assert 70 <= configuration.provisioned <= 78  # 76.4 are busy on average
    costs = dict.fromkeys((1, 50, 110), 0.0)
    for size in costs:
        costs[size] = finder.evaluate(
            function(
                question, month, PROVISIONED,
                memory_mb=configuration.memory_mb, provisioned=size,
            )
        ).cost  # fmt: skip
    runs.close()
    assert found.cost < 0.9 * costs[1]
    assert found.cost < min(costs[50], costs[110])


def test_no_break_even_where_no_platform_meets_the_objective() -> None:
    options = Options(platforms=("lambda", "eks"))
    answer = advise(question_of(**LITTLE, objective=HOPELESS, options=options))
    assert not any(any(met) for met in answer.curve.met.values())
    assert answer.curve.break_even == ()


def test_memory_is_chosen_at_each_point_of_the_curve() -> None:
    """A hundred a day need 1,024 MB, since most of them start an environment; a million do not.

    So it is where an initialisation has only the processor of the function's memory.
    """
    few = question_of(daily="100", duration="2s", start="1s")
    service = structs.replace(few.workload.service, init_vcpus=0.0)
    few = structs.replace(few, workload=structs.replace(few.workload, service=service))
    many = with_traffic(few, 10_000.0)
    runs = SimulationRunner()
    near = CandidateSearch(few, month_of(few), runs).find("lambda")
    finder = CandidateSearch(many, month_of(many), runs, within=0.1)
    assert isinstance(near.candidate.peak, Lambda)
    assert near.candidate.peak.memory_mb > 256
    for name in ("lambda", "lambda-provisioned"):
        alone = finder.find(name)
        assert finder.find(name, near.candidate).cost == pytest.approx(alone.cost)
        assert isinstance(alone.candidate.peak, Lambda)
        assert alone.candidate.peak.memory_mb == 256
    runs.close()
