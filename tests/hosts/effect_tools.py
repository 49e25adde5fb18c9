"""Tools that change something, and a script for the model that calls them."""

import asyncio
import json
from collections import Counter

from seawall import ToolContext, ToolError
from seawall.errors import UpstreamFailed
from seawall.models import ModelRequest
from seawall.turn import AssistantMessage, ToolCall, UserMessage

_failed: set[str] = set()
_done: Counter[str] = Counter()


def answer(request: ModelRequest) -> str | tuple[ToolCall, ...]:
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


def done(order: str) -> int:
    """How often an order was changed."""
    return _done[order]
