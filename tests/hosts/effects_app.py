"""A server whose model does what the message says, and whose tools change something."""

import os

from seawall import Orchestrator
from seawall.config import parse_settings
from seawall.models.scripted import ScriptedModel
from seawall.tools.policy import Approval
from tests.hosts.effect_tools import answer, done, expiring, grant, lose, promote, refund, slow

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

app = Orchestrator(parse_settings(CONFIGURATION, environment=os.environ))
app.model("default", ScriptedModel(answer))
app.tool(refund, mutating=True, approve="amount > 10", redact=("card",))
app.tool(grant, mutating=True, approve=Approval(role="manager"))
app.tool(promote, mutating=True, approve=Approval(role="manager", own=True))
app.tool(expiring, mutating=True, approve=Approval(expires_seconds=1.0))
app.tool(lose, mutating=True)
app.tool(slow, mutating=True)
app.tool(done)
