"""The built-in tool by which an agent gives the conversation to a person."""

from msgspec import structs

from seawall.tools.policy import Approval, EffectPolicy
from seawall.tools.port import Tool, ToolError
from seawall.tools.toolset import tool

__all__ = ["HAND_OVER", "handover_tool"]

HAND_OVER = "hand_over_to_person"
"""Its name, which no other tool may have."""


async def hand_over_to_person(reason: str) -> str:
    """Give the conversation to a person.

    Args:
        reason: Why, and what the person should know.
    """
    raise ToolError(f"A hand-over is answered by a person, not executed: {reason}")


def handover_tool(description: str, *, role: str, seconds: float) -> Tool:
    """The tool; its calls wait for a person.

    Args:
        description: For the model.
        role: Of the people who may answer.
        seconds: How long they may take.
    """
    made = tool(hand_over_to_person, mutating=True)
    approval = Approval(role=role, expires_seconds=seconds)
    return structs.replace(
        made,
        spec=structs.replace(made.spec, description=description),
        policy=EffectPolicy(approval=approval, waits_for="person"),
    )
