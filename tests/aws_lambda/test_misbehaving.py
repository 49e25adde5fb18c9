"""Handlers and tools that hang or raise anything: the environment serves the next invocation."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.aws_lambda.running import running


@pytest.mark.parametrize("handler", ["misbehaving", "misbehaving_later"])
async def test_a_handler(handler: str) -> None:
    async with running(f"tests.aws_lambda.apps.{handler}", timeout_seconds=2) as site:
        process = await site.invoke({})
        for raised in ("SystemExit", "BaseException"):
            assert (await site.failure({"raise": raised}))["errorType"] == raised
        assert (await site.failure({"hang": True}))["errorType"] == "Seawall.DeadlineExceeded"
        assert await site.invoke({}) == process


async def test_tools(tmp_path: Path) -> None:
    def turn(*calls: tuple[str, dict[str, Any]]) -> dict[str, Any]:
        steps = [[[name, json.dumps(arguments)] for name, arguments in calls], "done"]
        return {
            "text": json.dumps({"attempts": [steps]}),
            "principal": {"tenant": "shop", "subject": "ada"},
        }

    environment = {
        "SEAWALL_LAMBDA_DIRECT": "true",
        "SEAWALL_SESSIONS__PATH": str(tmp_path / "sessions.db"),
    }
    async with running(
        "tests.hosts.tool_app:app", timeout_seconds=10, environment=environment
    ) as site:
        for call in (
            ("hang", {}),
            ("ignore", {}),
            ("raises", {"name": "SystemExit"}),
            ("raises_later", {"name": "KeyboardInterrupt"}),
        ):
            result = await site.invoke(turn(call, ("healthy", {})))
            assert [each["failed"] for each in result["tool_calls"]] == [True, False]
            assert result["text"] == "done"
        assert site.function.stats().started == 1
