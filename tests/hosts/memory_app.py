"""A server whose agent has a memory, and whose model does what the message says."""

import os

from seawall import Orchestrator
from seawall.config import parse_settings
from seawall.models.scripted import ScriptedModel
from tests.pipeline.remembering import obedient

CONFIGURATION = """
[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "none"
[agents.only]
instructions = "Help."
memory = true
[memory]
facts = 4
characters = 50
"""

app = Orchestrator(parse_settings(CONFIGURATION, environment=os.environ))
app.model("default", ScriptedModel(obedient))
