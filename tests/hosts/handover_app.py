"""A server whose model hands the conversation over, then says what it has read."""

import os

from seawall import Orchestrator
from seawall.config import parse_settings
from seawall.models import ModelRequest
from seawall.models.scripted import ScriptedModel
from seawall.tools.handover import HAND_OVER
from seawall.turn import ToolCall, ToolMessage

CONFIGURATION = """
[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "none"
[agents.only]
instructions = "Help."
handover = true
[handover]
secret_env = "DESK_SECRET"
role = "manager"
"""


def _answer(request: ModelRequest) -> str | tuple[ToolCall, ...]:
    last = request.messages[-1]
    if isinstance(last, ToolMessage):
        return f"Read: {last.content}"
    return (ToolCall("c1", HAND_OVER, '{"reason": "asked for it"}'),)


app = Orchestrator(parse_settings(CONFIGURATION, environment=os.environ))
app.model("default", ScriptedModel(_answer))
