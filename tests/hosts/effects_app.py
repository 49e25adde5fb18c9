"""A server whose model does what the message says, and whose tools change something."""

import asyncio
import json
import os
from collections import Counter

from seawall import Orchestrator, ToolContext, ToolError
from seawall.config import parse_settings
from seawall.errors import UpstreamFailed
from seawall.models import ModelRequest
from seawall.models.scripted import ScriptedModel
from seawall.tools.policy import Approval
from seawall.turn import AssistantMessage, ToolCall, UserMessage

CONFIGURATION = """
[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "none"
[agents.only]
instructions = "Help."
tools = ["refund", "grant", "promote", "expiring", "lose", "slow", "done"]
[effects]
operator_role = "operator"
"""

_failed: set[str] = set()
_done: Counter[str] = Counter()


def _answer(request: ModelRequest) -> str | tuple[ToolCall, ...]:
    """The step of the message's script, which is a JSON list.

    A step is a list of [tool, arguments] or a text. The text "FAIL" fails once, and is then "done".
    """
    *_, last = (at for at, each in enumerate(request.messages) if isinstance(each, UserMessage))
    asked = request.messages[last]
    assert isinstance(asked, UserMessage)
    index = sum(isinstance(each, AssistantMessage) for each in request.messages[last:])
    step = json.loads(asked.text)[index]
    if step == "FAIL":
        if asked.text not in _failed:
            _failed.add(asked.text)
            raise UpstreamFailed("The model failed.")
        return "done"
    if isinstance(step, str):
        return step
    return tuple(
        ToolCall(f"c{index}-{number}", name, json.dumps(arguments))
        for number, (name, arguments) in enumerate(step)
    )


app = Orchestrator(parse_settings(CONFIGURATION, environment=os.environ))
app.model("default", ScriptedModel(_answer))


def refund(order: str, amount: float, card: str = "") -> str:
    """Refund an order; the customer approves more than 10."""
    _done[order] += 1
    return f"refunded {amount:g} to {card}"


def grant(order: str) -> str:
    """Approved by a manager who is not the customer."""
    _done[order] += 1
    return "granted"


def promote(order: str) -> str:
    """Approved by any manager."""
    _done[order] += 1
    return "promoted"


def expiring(order: str) -> str:
    """Approved within a second."""
    _done[order] += 1
    return "done in time"


def lose(order: str) -> str:
    """Its outcome is not known."""
    _done[order] += 1
    raise ConnectionError("connection reset")


async def slow(order: str, seconds: float, context: ToolContext) -> str:
    """Takes some time; then it is done."""
    del context
    if seconds < 0:
        raise ToolError("No.")
    await asyncio.sleep(seconds)
    _done[order] += 1
    return "slowly done"


app.tool(refund, mutating=True, approve="amount > 10", redact=("card",))
app.tool(grant, mutating=True, approve=Approval(role="manager"))
app.tool(promote, mutating=True, approve=Approval(role="manager", own=True))
app.tool(expiring, mutating=True, approve=Approval(expires_seconds=1.0))
app.tool(lose, mutating=True)
app.tool(slow, mutating=True)


@app.tool
def done(order: str) -> int:
    """How often an order was changed."""
    return _done[order]
