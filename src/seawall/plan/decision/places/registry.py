"""All places, by name, in the order of answers."""

from seawall.errors import ConfigError
from seawall.plan.decision.answer import Excluded
from seawall.plan.decision.places.agentcore import AGENTCORE
from seawall.plan.decision.places.cloud_run import CLOUD_RUN
from seawall.plan.decision.places.container_apps import CONTAINER_APPS
from seawall.plan.decision.places.ecs import ECS_EC2, ECS_FARGATE
from seawall.plan.decision.places.eks import EKS, EKS_AUTO
from seawall.plan.decision.places.lambda_function import CLASSIC, SNAPSTART
from seawall.plan.decision.places.lambda_managed import MANAGED
from seawall.plan.decision.places.lambda_provisioned import PROVISIONED
from seawall.plan.decision.places.lambda_web import WEB
from seawall.plan.decision.places.port import Place
from seawall.plan.decision.windows import Month
from seawall.plan.inputs.platforms import PlatformName
from seawall.plan.inputs.question import Question

__all__ = ["PLACES", "candidates_of", "place_of", "selected", "title_of"]

_ALL: tuple[Place, ...] = (
    CLASSIC,
    PROVISIONED,
    SNAPSTART,
    MANAGED,
    WEB,
    AGENTCORE,
    ECS_FARGATE,
    ECS_EC2,
    EKS,
    EKS_AUTO,
    CLOUD_RUN,
    CONTAINER_APPS,
)

PLACES: dict[PlatformName, Place] = {place.name: place for place in _ALL}


def place_of(name: PlatformName) -> Place:
    """The place of this name."""
    return PLACES[name]


def title_of(name: PlatformName) -> str:
    """The title of a place."""
    return PLACES[name].title


def selected(question: Question) -> tuple[Place, ...]:
    """The places that a question asks about, in the order of answers.

    `options.platforms` has names of places, of clouds (all places of that cloud), or `all`.

    Raises:
        ConfigError: A name is unknown.
    """
    wanted: set[str] = set(question.options.platforms)
    clouds = {place.cloud for place in _ALL}
    unknown = wanted - set(PLACES) - clouds - {"all"}
    if unknown or not wanted:
        known = ", ".join(["all", *sorted(clouds), *PLACES])
        what = f"unknown {min(unknown)!r}" if unknown else "none"
        raise ConfigError(f"options.platforms: {what}; known: {known}")
    return tuple(
        place for place in _ALL if "all" in wanted or place.cloud in wanted or place.name in wanted
    )


def candidates_of(
    question: Question, month: Month
) -> tuple[tuple[Place, ...], tuple[Excluded, ...]]:
    """The places that can run the service, and those that cannot, with the reasons."""
    found, excluded = [], []
    for place in selected(question):
        reasons = place.reasons_against(question, month)
        if reasons:
            excluded.append(Excluded(name=place.name, title=place.title, reasons=reasons))
        else:
            found.append(place)
    return tuple(found), tuple(excluded)
