"""A server whose model searches documents for the message, and answers with the first passage."""

import json
import os

from seawall import Orchestrator
from seawall.config import parse_settings
from seawall.models import ModelRequest
from seawall.models.scripted import ScriptedModel
from seawall.turn import ToolCall, ToolMessage, UserMessage

CONFIGURATION = """
[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "none"
[knowledge.docs]
folder = "docs"
[agents.help]
instructions = "Help."
tools = ["search_docs"]
"""


def answer(request: ModelRequest) -> str | tuple[ToolCall, ...]:
    """Search for the message; then say what was found."""
    last = request.messages[-1]
    if isinstance(last, UserMessage):
        return (ToolCall("c1", "search_docs", json.dumps({"question": last.text})),)
    assert isinstance(last, ToolMessage)
    passages = json.loads(last.content)["passages"]
    return f"{passages[0]['text']} [{passages[0]['title']}]" if passages else "I do not know."


app = Orchestrator(parse_settings(CONFIGURATION, environment=os.environ))
app.model("default", ScriptedModel(answer))
