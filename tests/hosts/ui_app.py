"""A server for the clients of user interfaces: its model does what the message says."""

import asyncio
import os

from seawall import Cited, Orchestrator, Source
from seawall.config import parse_settings
from seawall.models.scripted import ScriptedModel
from seawall.tools.policy import Approval
from tests.hosts.effect_tools import answer, done, grant, refund

CONFIGURATION = """
[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "none"
[agents.only]
instructions = "Help."
tools = ["refund", "grant", "done", "wait", "cite"]
client_tools = true
"""


async def wait(seconds: float) -> str:
    """Take some time, and change nothing."""
    await asyncio.sleep(seconds)
    return "waited"


def cite() -> Cited:
    """Return a text with its sources."""
    page = Source("Returns", "Costs", "https://shop.example/returns#costs", "returns.md")
    return Cited("free", (page, Source("Hours", path="hours.pdf", media_type="application/pdf")))


app = Orchestrator(parse_settings(CONFIGURATION, environment=os.environ))
app.model("default", ScriptedModel(answer))
app.tool(refund, mutating=True, approve="amount > 10", redact=("card",))
app.tool(grant, mutating=True, approve=Approval(role="manager"))
app.tool(done)
app.tool(wait)
app.tool(cite)
