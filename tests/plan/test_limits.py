"""Limits of platforms: what cannot run there is no candidate, with the reason in the answer."""

import math

import pytest
from msgspec import structs

from seawall.errors import ConfigError
from seawall.plan import (
    Answer,
    Lambda,
    Managed,
    Options,
    PerRequest,
    Question,
    advise,
    from_flags,
    simulate,
)
from seawall.plan.decision.answer import EksConfiguration, LambdaConfiguration, ManagedConfiguration
from seawall.plan.decision.check import check
from seawall.plan.decision.places.lambda_function import memories
from seawall.plan.decision.places.lambda_managed import environment_of, fitting, share_of
from seawall.plan.decision.places.limits import slowest
from seawall.plan.inputs.question_file import Deployed, QuestionFile
from seawall.plan.output.terminal import format_check

FIVE = ("lambda", "lambda-provisioned", "lambda-snapstart", "lambda-managed", "eks")


def question(
    *, options: Options | None = None, each: PerRequest | None = None, daily: str = "1000",
    duration: str = "2s", start: str = "1s", **service: float,
) -> Question:  # fmt: skip
    workload = from_flags(daily=daily, duration=duration, start=start)
    changed = structs.replace(workload.service, **service)
    return Question(
        workload=structs.replace(workload, service=changed),
        options=options or Options(platforms=FIVE),
        each=each or PerRequest(),
    )


def reasons(answer: Answer) -> dict[str, str]:
    return {each.name: "; ".join(each.reasons) for each in answer.excluded}


LAMBDAS = {"lambda", "lambda-provisioned", "lambda-snapstart", "lambda-managed"}


def test_a_process_of_15_gb_does_not_fit_into_a_function() -> None:
    answer = advise(question(memory_mb=15_000.0))
    found = reasons(answer)
    assert set(found) == LAMBDAS
    assert "10,240 MB at most" in found["lambda"]
    assert answer.choice == "eks"
    assert isinstance(answer.platforms["eks"].configuration, EksConfiguration)
    assert answer.platforms["eks"].configuration.memory_mb >= 15_000
    # Five times as much fits nowhere: a case of the sensitivity, not an error.
    row = next(each for each in answer.sensitivity if each.input == "service.memory_mb")
    assert (row.low.choice, row.high.choice) == ("lambda", "eks")
    assert "lambda" not in row.high.costs


def test_where_nothing_fits_the_error_says_why() -> None:
    with pytest.raises(
        ConfigError, match=r"no platform can run .*EKS: a pod of .* fits on no mach"
    ):
        advise(question(memory_mb=300_000.0), vary=False)


def test_a_function_has_10240_mb_at_most() -> None:
    for need, largest in ((100.0, 1_769), (5_000.0, 7_616), (9_000.0, 10_240)):
        sizes = memories(question(memory_mb=need).workload.service)
        assert sizes[-1] == largest
    assert memories(question(memory_mb=10_180.0).workload.service) == []


@pytest.mark.parametrize("memory_mb", [3_000.0, 8_000.0, 11_000.0])
def test_environments_of_managed_instances_fit_on_their_machine(memory_mb: float) -> None:
    """A process of 8 GB was put on a machine of 8 GB, of which it takes ten."""
    asked = question(memory_mb=memory_mb)
    environment = environment_of(asked)
    memory_gb = environment.vcpus * environment.memory_gb_each
    assert memory_gb * 1_024 >= 1.25 * memory_mb
    for name in fitting(asked, environment):
        machine = asked.prices.of(f"ec2.{name}")
        assert share_of(machine, environment.vcpus, memory_gb) <= 1.0
    answer = advise(asked, vary=False)
    configuration = answer.platforms["lambda-managed"].configuration
    assert isinstance(configuration, ManagedConfiguration)
    machine = asked.prices.of(f"ec2.{configuration.instance}")
    assert machine.memory_gb >= configuration.memory_gb
    assert machine.vcpus >= configuration.vcpus


def test_environments_of_managed_instances_are_bounded() -> None:
    with pytest.raises(ConfigError, match=r"managed\.vcpus: 17 is not from 1 to 16"):
        Managed(vcpus=17.0)
    with pytest.raises(ConfigError, match="more than 32,768 MB"):
        Managed(vcpus=8.0, memory_gb_each=8.0)
    found = reasons(advise(question(memory_mb=27_000.0), vary=False))
    assert "32,768 MB at most" in found["lambda-managed"]


@pytest.mark.parametrize(
    ("entry", "duration", "words"),
    [
        ("http-api", "31s", "HTTP API cuts them off after 30 s"),
        ("function-url", "16min", "function URL cuts them off after 15 min"),
        ("rest-api", "16min", "REST API cuts them off after 15 min"),
    ],
)
def test_requests_longer_than_the_entry_allows(entry: str, duration: str, words: str) -> None:
    options = Options(entry=entry, platforms=FIVE)  # type: ignore[arg-type]
    answer = advise(question(daily="100", duration=duration, options=options), vary=False)
    assert set(reasons(answer)) == LAMBDAS
    assert words in reasons(answer)["lambda"]
    assert answer.choice == "eks"


def test_the_slowest_requests_may_fail_as_far_as_the_objective_allows() -> None:
    service = question(duration="20s..40s").workload.service
    assert slowest(service, 0.01) == pytest.approx(39.8, abs=0.05)
    assert slowest(service, 0.5) == pytest.approx(30.0, abs=0.05)


@pytest.mark.parametrize(
    ("entry", "megabytes", "fits"),
    [
        ("alb", 0.9, True),
        ("alb", 1.1, False),
        ("http-api", 5.0, True),
        ("http-api", 7.0, False),
        ("function-url", 150.0, True),
        ("function-url", 201.0, False),
    ],
)
def test_answers_larger_than_the_entry_allows(entry: str, megabytes: float, fits: bool) -> None:
    options = Options(entry=entry, platforms=("lambda", "eks"))  # type: ignore[arg-type]
    each = PerRequest(kb_to_callers=megabytes * 1_024.0)
    found = reasons(advise(question(daily="100", options=options, each=each), vary=False))
    assert ("lambda" not in found) == fits
    assert fits or "answers have" in found["lambda"]


def test_prepared_environments_have_a_quarter_of_an_hour_to_initialise() -> None:
    found = reasons(advise(question(daily="100", start="16min"), vary=False))
    assert set(found) == LAMBDAS
    assert "allows 15 min" in found["lambda-provisioned"]
    assert "longer than a request may" in found["lambda"]


def test_a_deployment_that_cannot_run_misses_the_check() -> None:
    large = question(memory_mb=15_000.0)
    deployed = Deployed(platform="lambda", memory_mb=10_240)
    found = check(QuestionFile(question=large, deployed=deployed))
    assert not found.holds
    assert "10,240 MB at most" in found.misses[0]
    title, *rest = format_check(found).splitlines()
    assert title == "FAILED: Lambda cannot run the service"
    assert rest == [f"  - {found.misses[0]}"]  # no figures of what was not simulated
    web = check(QuestionFile(question=question(), deployed=Deployed(platform="lambda-web")))
    assert not web.holds
    small = Deployed(platform="lambda", memory_mb=128)
    with pytest.raises(ConfigError, match=r"deployed\.memory_mb: 128; the process takes 164 MB"):
        check(QuestionFile(question=question(), deployed=small))
    for fields, name in (({"functions": 0}, "functions"), ({"provisioned": 5}, "provisioned")):
        with pytest.raises(ConfigError, match=rf"deployed\.{name}"):
            check(QuestionFile(question=question(), deployed=Deployed(platform="lambda", **fields)))


def test_several_deployed_functions_are_checked() -> None:
    workload = from_flags(spikes=("3000@20s",), duration="4s..7s", start="1s")
    asked = Question(workload=workload)
    held = [
        check(
            QuestionFile(
                question=asked,
                deployed=Deployed(platform="lambda", memory_mb=512, functions=functions),
            )
        ).holds
        for functions in (1, 4)
    ]
    assert held == [False, True]


@pytest.mark.parametrize("platform", [Lambda(streams=False), Managed(streams=False)])
def test_behind_an_entry_that_buffers_the_first_token_is_the_last(
    platform: Lambda | Managed,
) -> None:
    workload = from_flags(spikes=("200@5s",), duration="3s..6s", horizon="60s")
    result = simulate(workload, platform, keep=True)
    assert result.samples is not None
    served = result.samples.outcome == 0
    assert (result.samples.first_token == result.samples.latency)[served].all()
    assert result.first_token.quantile(0.99) == result.latency.quantile(0.99)
    whole = result.samples.latency[served].sum() / len(served)
    assert result.seconds["first_token_mean"][5] == pytest.approx(whole)
    streamed = simulate(workload, structs.replace(platform, streams=True))
    assert streamed.first_token.mean < result.first_token.mean - 1.0
    assert streamed.latency.mean == pytest.approx(result.latency.mean)
    assert math.isnan(simulate(workload, platform).seconds["first_token_mean"][5])


def test_the_objective_is_judged_with_buffered_answers() -> None:
    """Requests of 8 s stream within 5 s, and do not come within 5 s as a whole."""
    asked = question(duration="8s")
    buffered = advise(
        structs.replace(asked, options=Options(entry="http-api", platforms=FIVE)), vary=False
    )
    assert advise(asked, vary=False).choice == "lambda"
    assert buffered.choice == "eks"
    found = buffered.platforms["lambda"]
    assert found.misses[0].startswith("first token p99")
    assert (found.first_token.p50.value or 0.0) > 7.9
    configuration = found.configuration
    assert isinstance(configuration, LambdaConfiguration)
    assert (configuration.streams, configuration.timeout_seconds) == (False, 30)
