"""A server with an agent whose tools are those of an MCP server that asks the user."""

import os
import sys
from pathlib import Path

from seawall import Orchestrator
from seawall.config import parse_settings
from seawall.models.scripted import ScriptedModel
from tests.hosts import effect_tools

SERVER = Path(__file__).parents[1] / "tools" / "mcp" / "old_asking_server.py"
CONFIGURATION = f"""
[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "none"
[tools.shops]
command = [{sys.executable!r}, {str(SERVER)!r}]
trust_annotations = true
elicitation = true
[agents.finder]
description = "Finds shops."
instructions = "Help."
tools = ["shops.*"]
[mcp]
agents = ["finder"]
"""

app = Orchestrator(parse_settings(CONFIGURATION, environment=os.environ))
app.model("default", ScriptedModel(effect_tools.answer))
