"""A server for programs that speak OpenAI's APIs: its model does what the message says."""

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
vision = true
documents = true
[agents.shop]
instructions = "Help."
tools = ["stock"]
client_tools = true
client_instructions = "append"
[agents.strict]
instructions = "Help."
client_instructions = "refuse"
[routing]
default_agent = "shop"
"""

PERSON = {"name": "Ada", "age": 36}


def answer(request: ModelRequest) -> str | tuple[ToolCall, ...]:  # noqa: PLR0911 - one a case
    """What the last message of the user asks for.

    "weather in X": calls the client's tool `get_weather`, and says what it returned. "stock of X":
    the same with the agent's tool. "person": an object. "history": the user's messages so far.
    """
    said = [each.text for each in request.messages if isinstance(each, UserMessage)]
    last = request.messages[-1]
    asked = said[-1]
    if isinstance(last, UserMessage) and last.attachments:
        return f"I see {', '.join(each.media_type for each in last.attachments)}."
    if isinstance(last, ToolMessage):
        *_, at = (at for at, each in enumerate(request.messages) if isinstance(each, UserMessage))
        results = [each.content for each in request.messages[at:] if isinstance(each, ToolMessage)]
        return f"I was answered: {', '.join(results)}"
    offered = {each.name for each in request.prompt.tools}
    if asked.startswith("weather in ") and "get_weather" in offered:
        cities = asked.removeprefix("weather in ").split(" and ")
        return tuple(
            ToolCall(f"call_{at}", "get_weather", json.dumps({"city": city}))
            for at, city in enumerate(cities)
        )
    if asked.startswith("stock of "):
        article = json.dumps({"article": asked.removeprefix("stock of ")})
        return (ToolCall("call_0", "stock", article),)
    if request.prompt.output is not None:
        return json.dumps(PERSON)
    named = next(iter(offered - {"stock", "get_weather"}), None)
    if named is not None and asked.startswith("person"):
        return (ToolCall("call_0", named, json.dumps(PERSON)),)
    if asked == "history":
        return " | ".join(said)
    if asked == "instructions":
        return request.prompt.instructions
    return f"You said: {asked}"


def stock(article: str) -> str:
    """How many there are of an article."""
    return f"7 of {article}"


app = Orchestrator(parse_settings(CONFIGURATION, environment=os.environ))
app.model("default", ScriptedModel(answer))
app.tool(stock)
