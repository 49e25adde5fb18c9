"""Routing is a pure choice."""

from typing import Literal

import pytest

from seawall.agents import Route, Routing, choose_agent
from seawall.errors import UnknownAgent

AGENTS = {"desk": 1, "orders": 2, "returns": 3}
BY_INTENT = {"cancel": "orders", "return": "returns"}


@pytest.mark.parametrize(
    ("sticky", "requested", "intent", "current", "expected"),
    [
        ("until-confident", None, None, None, Route("desk", "default")),
        ("until-confident", None, "cancel", None, Route("orders", "intent")),
        ("until-confident", None, "weather", None, Route("desk", "default")),
        ("until-confident", None, None, "orders", Route("orders", "sticky")),
        ("until-confident", None, "cancel", "orders", Route("orders", "sticky")),
        ("until-confident", None, "return", "orders", Route("returns", "intent")),
        ("until-confident", None, "weather", "orders", Route("orders", "sticky")),
        ("always", None, "return", "orders", Route("orders", "sticky")),
        ("always", None, "return", None, Route("returns", "intent")),
        ("never", None, None, "orders", Route("desk", "default")),
        ("never", None, "return", "orders", Route("returns", "intent")),
        ("until-confident", None, None, "dismissed", Route("desk", "default")),
        ("until-confident", "returns", "cancel", "orders", Route("returns", "requested")),
    ],
)
def test_choice(
    sticky: Literal["always", "until-confident", "never"],
    requested: str | None,
    intent: str | None,
    current: str | None,
    expected: Route,
) -> None:
    routing = Routing(BY_INTENT, "desk", sticky)
    chosen = choose_agent(routing, AGENTS, requested=requested, intent=intent, current=current)
    assert chosen == expected


def test_an_unknown_agent_is_an_error_that_names_the_field() -> None:
    with pytest.raises(UnknownAgent) as error:
        choose_agent(Routing({}, "desk"), AGENTS, requested="unknown", intent=None, current=None)
    assert error.value.field == "agent"
