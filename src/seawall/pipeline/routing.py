"""Which agent answers: a pure choice."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from seawall.errors import UnknownAgent

__all__ = ["Route", "Routing", "choose_agent"]


class Routing(Struct, frozen=True):
    """The rules of routing.

    by_intent: intent to agent. default: who answers when nothing else decides.
    sticky: how an agent keeps a conversation it has. "always": until it hands over;
    "until-confident": also until an intent is detected that is another agent's; "never".
    """

    by_intent: Mapping[str, str]
    default: str
    sticky: Literal["always", "until-confident", "never"] = "until-confident"


class Route(Struct, frozen=True):
    """The choice; reason as in the event `agent.selected`."""

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
    """Choose: who is asked for by name, who has the conversation, whose the intent is, default.

    current: the agent that has the session, if it is still configured.

    Raises:
        UnknownAgent: the one asked for is not configured.
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
