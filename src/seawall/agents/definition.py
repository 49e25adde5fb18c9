"""What an agent is: instructions, a model, tools, bounds. Built once at start."""

from typing import Annotated

from msgspec import Meta, Struct

from seawall.agents.output import OutputCheck
from seawall.models.port import Model, Prompt, ToolSpec
from seawall.tools.toolset import Tool

__all__ = ["HAND_OFF", "Agent", "AgentLimits", "build_agent"]

_Count = Annotated[int, Meta(ge=1, le=1_000_000)]
_Seconds = Annotated[float, Meta(gt=0, le=86_400)]

HAND_OFF = "hand_off"
"""The name of the built-in tool by which an agent gives the conversation to another."""


class AgentLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of one turn of an agent.

    steps: model calls. tool_calls: tool calls in one step. completion_tokens: written by the
    model in the whole turn. tool_seconds: one tool call. model_seconds: one model call.
    call_tokens: written in one model call; None for no other bound than the turn's.
    """

    steps: _Count = 12
    tool_calls: _Count = 8
    completion_tokens: _Count = 4_096
    tool_seconds: _Seconds = 10.0
    model_seconds: _Seconds = 60.0
    call_tokens: _Count | None = None


class Agent(Struct, frozen=True, eq=False):
    """An agent, ready to run. Shared by all turns and changed by none.

    closing_prompt: the prompt without tools, for the last step. reasoning: clients are shown what
    the model thinks, where it shows that. may_be_empty: an answer may end before its first word,
    because a client named a text to stop at.
    """

    name: str
    model: Model
    prompt: Prompt
    closing_prompt: Prompt
    tools: dict[str, Tool]
    handoffs: tuple[str, ...]
    limits: AgentLimits
    temperature: float | None
    output: OutputCheck | None = None
    reasoning: bool = False
    may_be_empty: bool = False


def build_agent(
    name: str,
    *,
    instructions: str,
    model: Model,
    tools: tuple[Tool, ...] = (),
    handoffs: tuple[str, ...] = (),
    limits: AgentLimits | None = None,
    temperature: float | None = None,
    output: OutputCheck | None = None,
    reasoning: bool = False,
) -> Agent:
    """An agent whose prompt is assembled once.

    Raises:
        ValueError: two tools have the same name, or one has that of the hand-off.
    """
    by_name: dict[str, Tool] = {}
    for each in tools:
        if each.name in by_name or each.name == HAND_OFF:
            raise ValueError(f"agent {name}: tool {each.name} is there twice")
        by_name[each.name] = each
    specs = [each.spec for each in tools]
    if handoffs:
        specs.append(_hand_off_spec(handoffs))
    prompt = Prompt(instructions, tuple(specs), output.format if output else None)
    return Agent(
        name=name,
        model=model,
        prompt=prompt,
        closing_prompt=Prompt(instructions, (), prompt.output) if specs else prompt,
        tools=by_name,
        handoffs=handoffs,
        limits=limits or AgentLimits(),
        temperature=temperature,
        output=output,
        reasoning=reasoning,
    )


def _hand_off_spec(agents: tuple[str, ...]) -> ToolSpec:
    return ToolSpec(
        HAND_OFF,
        "Give the conversation to another agent that is responsible for the customer's request.",
        {
            "type": "object",
            "properties": {
                "agent": {
                    "type": "string",
                    "enum": list(agents),
                    "description": "The agent that takes over.",
                }
            },
            "required": ["agent"],
            "additionalProperties": False,
        },
    )
