"""Seawall: an AI orchestrator that behaves predictably when everyone arrives at once.

The names below are the public face; importing the package imports none of them until asked.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator
    from seawall.tools.context import ToolContext, ToolError
    from seawall.tools.toolset import Toolset, tool
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
    "ToolContext": "seawall.tools.context",
    "ToolError": "seawall.tools.context",
    "Toolset": "seawall.tools.toolset",
    "TurnRequest": "seawall.turn",
    "tool": "seawall.tools.toolset",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: a cold start pays for what it needs."""
    if name not in _homes:
        raise AttributeError(f"module 'seawall' has no attribute {name!r}")
    return getattr(import_module(_homes[name]), name)
