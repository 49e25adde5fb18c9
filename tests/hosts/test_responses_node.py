"""The Responses API by clients in JavaScript: OpenAI's, and two providers of the AI SDK."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.test_responses import serving
from tests.parts import require, ui_clients
from tests.servers import ServerProcess

PROGRAM = Path(__file__).with_name("responses_node.mjs")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("responses-node")) as server:
        yield server


@pytest.fixture(scope="module")
def seen(server: ServerProcess) -> dict[str, Any]:
    """What the clients saw, by client and scenario."""
    require(ui_clients.missing())
    return ui_clients.run(PROGRAM, server.url, "sw_ann")


def test_openai_s_client(seen: dict[str, Any]) -> None:
    official = seen["official"]
    second = "I have read 3: one | two"
    assert official["answer"]["texts"] == ["I have read 1: one", second, second]
    assert official["stream"]["text"] == "I have read 1: one"
    assert official["stream"]["types"][:3] == [
        "response.created", "response.in_progress", "response.output_item.added",
    ]  # fmt: skip
    assert official["parsed"] == {"name": "fair", "guests": 3}
    assert official["tools"] == {"name": "get_weather", "text": "The tool says: sunny"}
    assert official["background"] == {
        "status": "in_progress",
        "last": "response.completed",
        "text": "It is done.",
    }
    assert official["error"] == {"known": True, "status": 422, "param": "tools[0].type"}


@pytest.mark.parametrize("provider", ["open-responses", "openai"])
def test_a_provider_of_the_ai_sdk(seen: dict[str, Any], provider: str) -> None:
    """One sends all items back, the other refers to them by their ids."""
    found = seen[provider]
    assert found["answer"] == {
        "texts": ["I have read 1: one", "I have read 3: one | two"],
        "usage": 1 + 5,
    }
    assert found["own"]["text"] == "Looked."
    assert ("tool-result" in found["own"]["types"]) == (provider == "openai")
    assert found["tools"] == {
        "text": "The tool says: sunny in San Francisco, CA",
        "steps": 2,
    }


def test_the_ai_sdk_approves(seen: dict[str, Any]) -> None:
    assert seen["openai"]["approval"] == {
        "text": "Refunded.",
        "types": ["tool-call", "tool-result", "text"],
    }
