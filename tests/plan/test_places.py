"""Places: one interface, a registry, and selection by name or cloud."""

import pytest

from seawall.errors import ConfigError
from seawall.plan import PLATFORMS, Options, Question, advise, from_flags
from seawall.plan.decision.places.registry import PLACES, selected

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
