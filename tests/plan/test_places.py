"""Places: one interface, a registry, and selection by name or cloud."""

import pytest
from msgspec import structs

from seawall.errors import ConfigError
from seawall.plan import PLATFORMS, Eks, Lambda, Options, Question, advise, from_flags
from seawall.plan.decision.answer import ServiceConfiguration
from seawall.plan.decision.places.registry import PLACES, candidates_of, selected
from seawall.plan.decision.runs import SimulationRunner
from seawall.plan.decision.search import CandidateSearch
from seawall.plan.decision.windows import month_of

QUIET = from_flags(daily="100", duration="2s", start="1s")


def question(*platforms: str) -> Question:
    return Question(workload=QUIET, options=Options(platforms=platforms))


def test_the_registry_has_every_platform_that_files_may_name() -> None:
    assert tuple(PLACES) == PLATFORMS
    for name, place in PLACES.items():
        assert place.name == name
        assert len(place.short) <= 22
    assert len({place.title for place in PLACES.values()}) == len(PLACES)


def test_platforms_are_selected_by_name_cloud_or_all() -> None:
    names = [place.name for place in selected(question("eks", "lambda"))]
    assert names == ["lambda", "eks"]
    aws = selected(question("aws"))
    assert all(place.cloud == "aws" for place in aws)
    assert {place.name for place in selected(question("all"))} == set(PLACES)
    with pytest.raises(ConfigError, match=r"options\.platforms: unknown 'gke'; known: all, aws"):
        selected(question("eks", "gke"))
    with pytest.raises(ConfigError, match=r"options\.platforms: none"):
        selected(question())


def test_an_answer_about_one_platform() -> None:
    answer = advise(question("eks"))
    assert (answer.choice, answer.runner_up) == ("eks", None)
    assert list(answer.platforms) == ["eks"]
    assert answer.margin.ratio == 1.0
    assert answer.curve.break_even == ()


@pytest.mark.parametrize(
    ("memory_mb", "vcpus"), [(200.0, 1.0), (3_900.0, 2.0), (9_000.0, 4.0), (16_000.0, 6.0)]
)
def test_memory_on_cloud_run_needs_processors(memory_mb: float, vcpus: float) -> None:
    """The least processors of its documentation: more than 4, 8, 16 GiB need 2, 4, 6."""
    service = structs.replace(QUIET.service, memory_mb=memory_mb)
    asked = Question(
        workload=structs.replace(QUIET, service=service), options=Options(platforms=("cloud-run",))
    )
    runs = SimulationRunner()
    found = CandidateSearch(asked, month_of(asked), runs).find("cloud-run").candidate
    configuration = found.configuration
    assert isinstance(configuration, ServiceConfiguration)
    assert configuration.memory_mb > memory_mb
    assert configuration.vcpus == vcpus
    assert isinstance(found.peak, Eks)
    assert found.peak.cores == vcpus


def test_sessions_on_agentcore_last_as_long_as_it_says() -> None:
    """Streams may take an hour: requests of 20 minutes are served, of two hours excluded."""
    for duration, fits in (("20m", True), ("2h", False)):
        asked = Question(
            workload=from_flags(daily="50", duration=duration, start="1s"),
            options=Options(platforms=("agentcore",)),
        )
        month = month_of(asked)
        places, excluded = candidates_of(asked, month)
        assert bool(places) is fits
        if fits:
            found = CandidateSearch(asked, month, SimulationRunner()).find("agentcore")
            assert found.met
            assert found.outcome.timed_out == 0
        else:
            assert "cuts them off after 60 min" in excluded[0].reasons[0]
    with pytest.raises(ConfigError, match=r"lambda\.timeout: 1200 is not from 0 to 900 seconds"):
        Lambda(timeout=1_200.0)
