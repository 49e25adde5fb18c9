"""Seawall: an AI orchestrator that behaves predictably when everyone arrives at once.

The names below are the public face; importing the package imports none of them until asked.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seawall.agents.context import ToolContext, ToolError
    from seawall.agents.tools import Toolset, tool
    from seawall.orchestrator import Orchestrator
    from seawall.turn import Principal, TurnRequest

__all__ = [
    "Orchestrator",
    "Principal",
    "ToolContext",
    "ToolError",
    "Toolset",
    "TurnRequest",
    "tool",
]

_homes = {
    "Orchestrator": "seawall.orchestrator",
    "Principal": "seawall.turn",
    "ToolContext": "seawall.agents.context",
    "ToolError": "seawall.agents.context",
    "Toolset": "seawall.agents.tools",
    "TurnRequest": "seawall.turn",
    "tool": "seawall.agents.tools",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: a cold start pays for what it needs."""
    if name not in _homes:
        raise AttributeError(f"module 'seawall' has no attribute {name!r}")
    return getattr(import_module(_homes[name]), name)
