"""A server for the widget: its model does what a message says, one word after another."""

import asyncio
import os
from collections.abc import AsyncGenerator

from seawall import Orchestrator
from seawall.config import parse_settings
from seawall.models import ModelEvent, ModelRequest, Text
from seawall.models.scripted import ScriptedModel
from seawall.tools.handover import HAND_OVER
from seawall.tools.policy import Approval
from seawall.turn import ToolCall, ToolMessage, UserMessage
from tests.hosts import effect_tools

CONFIGURATION = """
[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "none"
[routing]
default_agent = "only"
[agents.only]
description = "Answers."
instructions = "Help."
tools = ["refund", "grant", "expiring", "lose", "slow", "done"]
handover = true
[agents.other]
description = "Another one."
instructions = "Help."
[handover]
url = "http://127.0.0.1:9/desk"
secret_env = "DESK_SECRET"
role = "manager"
notice = "Please wait."
[effects]
operator_role = "operator"
"""
_WORDS = ("An", "ünusual", "answer", "with", "🦀🦀", "and", "**bold**", "words,\n\n-", "an", "item")


def answer(request: ModelRequest) -> str | tuple[ToolCall, ...]:
    """The answer to a message: a JSON script of `effect_tools`, "words N", "person", or itself."""
    last = request.messages[-1]
    asked = next(x for x in reversed(request.messages) if isinstance(x, UserMessage)).text
    if asked.startswith("["):
        return effect_tools.answer(request)
    if asked == "person":
        if isinstance(last, ToolMessage):
            return f"Read: {last.content}"
        return (ToolCall("c1", HAND_OVER, '{"reason": "asked for it"}'),)
    if asked.startswith("words "):
        return " ".join(_WORDS[at % len(_WORDS)] for at in range(int(asked.split()[1])))
    return asked


class SlowModel(ScriptedModel):
    """Takes a moment for each word of a long answer."""

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        count = 0
        async for event in super().stream(request, deadline=deadline):
            count += type(event) is Text
            if count > 1:
                await asyncio.sleep(0.02)
            yield event


app = Orchestrator(parse_settings(CONFIGURATION, environment=os.environ))
app.model("default", SlowModel(answer))
app.tool(effect_tools.refund, mutating=True, approve="amount > 10", redact=("card",))
app.tool(effect_tools.grant, mutating=True, approve=Approval(role="manager"))
app.tool(effect_tools.expiring, mutating=True, approve=Approval(expires_seconds=1.0))
app.tool(effect_tools.lose, mutating=True)
app.tool(effect_tools.slow, mutating=True)
app.tool(effect_tools.done)
