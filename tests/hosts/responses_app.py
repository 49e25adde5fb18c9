"""A server for clients of the Responses API: its model does what the message says."""

import asyncio
import os

from seawall import Orchestrator
from seawall.config import parse_settings
from seawall.models import ModelRequest
from seawall.models.scripted import ScriptedModel
from seawall.tools.policy import Approval
from seawall.turn import ToolCall, ToolMessage, UserMessage
from tests.hosts.effect_tools import answer, done, grant, lose, refund

CONFIGURATION = """
[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "none"
[agents.open]
instructions = "Help."
tools = ["refund", "grant", "lose", "done", "wait"]
client_tools = true
client_instructions = "append"
[agents.closed]
instructions = "Help."
client_instructions = "refuse"
[routing]
default_agent = "open"
"""


async def wait(seconds: float) -> str:
    """Take some time, and change nothing."""
    await asyncio.sleep(seconds)
    return "waited"


def reply(request: ModelRequest) -> str | tuple[ToolCall, ...]:
    """The step of a script; for a weather question a call; else what the model has read."""
    texts = [each.text for each in request.messages if isinstance(each, UserMessage)]
    if texts[-1].startswith("["):
        return answer(request)
    names = [each.name for each in request.prompt.tools]
    if "get_weather" in names and not isinstance(request.messages[-1], ToolMessage):
        return (ToolCall("w0", "get_weather", '{"location": "San Francisco, CA"}'),)
    if request.prompt.output is not None:
        return '{"name": "fair", "guests": 3}'
    last = request.messages[-1]
    if isinstance(last, ToolMessage):
        return f"The tool says: {last.content}"
    heard = " | ".join(texts)
    return f"I have read {len(request.messages)}: {heard}"


app = Orchestrator(parse_settings(CONFIGURATION, environment=os.environ))
app.model("default", ScriptedModel(reply))
app.tool(refund, mutating=True, approve="amount > 10", redact=("card",))
app.tool(grant, mutating=True, approve=Approval(role="manager"))
app.tool(lose, mutating=True)
app.tool(done)
app.tool(wait)
