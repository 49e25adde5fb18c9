"""Routing: which agent answers. A pure decision."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from seawall.errors import UnknownAgent

__all__ = ["Route", "Routing", "choose_agent"]


class Routing(Struct, frozen=True):
    """The rules of routing.

    Attributes:
        by_intent: Agents by intent.
        default: The agent that answers if no rule decides.
        sticky: Whether the session's agent keeps it. "always": until it hands over;
            "until-confident": until then, or until an intent of another agent is detected; "never".
    """

    by_intent: Mapping[str, str]
    default: str
    sticky: Literal["always", "until-confident", "never"] = "until-confident"


class Route(Struct, frozen=True):
    """The decision.

    Attributes:
        agent: The agent's name.
        reason: As in the event `agent.selected`.
    """

    agent: str
    reason: str


def choose_agent(
    routing: Routing,
    agents: Mapping[str, object],
    *,
    requested: str | None,
    intent: str | None,
    current: str | None,
) -> Route:
    """Choose the requested agent, else the session's, else the intent's, else the default.

    Args:
        routing: The rules.
        agents: The configured agents by name.
        requested: The agent that the request names.
        intent: The detected intent.
        current: The session's agent; ignored if it is not configured any more.

    Raises:
        UnknownAgent: the requested agent is not configured.
    """
    if requested is not None:
        if requested not in agents:
            raise UnknownAgent(f"There is no agent {requested!r}.", field="agent")
        return Route(requested, "requested")
    owner = routing.by_intent.get(intent) if intent is not None else None
    if current is not None and current in agents:
        undecided = owner is None or owner == current
        if routing.sticky == "always" or (routing.sticky == "until-confident" and undecided):
            return Route(current, "sticky")
    if owner is not None:
        return Route(owner, "intent")
    return Route(routing.default, "default")
