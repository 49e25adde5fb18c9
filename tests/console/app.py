"""A server for the console: its model looks a word up, and says what it found; both are hostile."""

import os

from seawall import Orchestrator
from seawall.config import parse_settings
from seawall.models import ModelRequest
from seawall.models.scripted import ScriptedModel
from seawall.turn import ToolCall, ToolMessage

MARKUP = "<img src=x onerror=\"window.stolen = 'yes'\"><script>window.stolen = 'yes'</script>"

CONFIGURATION = """
[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "none"
[agents.only]
instructions = "Help."
tools = ["look_up"]
"""


def answer(request: ModelRequest) -> str | tuple[ToolCall, ...]:
    """A call of the tool, then what it answered."""
    last = request.messages[-1]
    if isinstance(last, ToolMessage):
        return f"Found: {last.content}"
    return (ToolCall("c1", "look_up", '{"word": "tide"}'),)


def look_up(word: str) -> str:
    """Look a word up."""
    return f"{word} {MARKUP}"


app = Orchestrator(parse_settings(CONFIGURATION, environment=os.environ))
app.model("default", ScriptedModel(answer))
app.tool(look_up)
