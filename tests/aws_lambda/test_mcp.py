"""Agents as tools of other agents, on Lambda: every invocation may reach another environment."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from tests.aws_lambda.running import Site, running
from tests.hosts.conftest import events

APP = "tests.hosts.mcp_app:app"
KEY = "sw_ann"
VERSION = "2026-07-28"
CAPABILITIES: dict[str, Any] = {"elicitation": {"form": {}}}


async def _call(site: Site, message: str, **params: Any) -> Any:
    """The result of a call, and what was streamed before."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": VERSION,
        "io.modelcontextprotocol/clientCapabilities": CAPABILITIES,
        "progressToken": 1,
    }
    params |= {"name": "orders", "arguments": {"message": message}, "_meta": meta}
    answer = await site.client.post(
        "/mcp",
        json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params},
        headers={
            "authorization": f"Bearer {KEY}",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": VERSION,
            "mcp-method": "tools/call",
            "mcp-name": "orders",
        },
    )
    assert answer.status_code == 200, answer.text
    *reports, last = events(answer.text)
    assert all(each["method"] == "notifications/progress" for each in reports)
    return last["result"]


async def test_a_call_that_its_user_decides_goes_on_in_another_environment(tmp_path: Path) -> None:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    variables = {
        "SEAWALL_SESSIONS__PATH": str(tmp_path / "sessions.db"),
        "SEAWALL_IDENTITY__API_KEYS": f'[{{sha256 = "{digest}", tenant = "a", subject = "ann"}}]',
        "DESK_SECRET": "whsec_" + base64.b64encode(b"x" * 32).decode(),
    }
    script = json.dumps([[["refund", {"order": "o1", "amount": 50}]], "all done"])
    async with running(APP, environment=variables) as site:
        asked = await _call(site, script)
        assert asked["resultType"] == "input_required"
    (call,) = asked["inputRequests"]
    yes = {call: {"action": "accept", "content": {"decision": "approve"}}}
    async with running(APP, environment=variables) as site:
        done = await _call(site, script, requestState=asked["requestState"], inputResponses=yes)
        assert done["structuredContent"]["status"] == "completed"
        assert done["content"][0]["text"] == "all done"
