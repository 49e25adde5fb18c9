"""Agents: instructions, model, tools and limits, assembled once at start; which one answers."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, Struct

from seawall.errors import UnknownAgent
from seawall.models import Model, Prompt, ToolSpec
from seawall.tools.port import Tool

if TYPE_CHECKING:
    from seawall.agents.output import OutputCheck

__all__ = [
    "HAND_OFF",
    "Agent",
    "AgentLimits",
    "Compaction",
    "Route",
    "Routing",
    "build_agent",
    "choose_agent",
]

_Count = Annotated[int, Meta(ge=1, le=1_000_000)]
_Seconds = Annotated[float, Meta(gt=0, le=86_400)]

HAND_OFF = "hand_off"
"""Name of the built-in tool by which an agent hands over to another."""


class AgentLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of one turn of an agent.

    Attributes:
        steps: Model calls.
        tool_calls: Tool calls in one step.
        completion_tokens: Tokens written in the whole turn.
        tool_seconds: Duration of one tool call.
        model_seconds: Duration of one model call.
        call_tokens: Tokens written in one model call; None for the limit of the turn only.
    """

    steps: _Count = 12
    tool_calls: _Count = 8
    completion_tokens: _Count = 4_096
    tool_seconds: _Seconds = 10.0
    model_seconds: _Seconds = 60.0
    call_tokens: _Count | None = None


class Compaction(Struct, frozen=True, eq=False):
    """How an agent's conversations are summarised.

    Attributes:
        model: That writes the summaries.
        tokens: Of a summary, at most.
        seconds: Duration of one summary, at most.
    """

    model: Model
    tokens: int
    seconds: float


class Agent(Struct, frozen=True, eq=False):
    """An agent, shared by all turns and never changed.

    Attributes:
        name: Its name.
        model: The model it calls.
        prompt: Instructions and tools.
        closing_prompt: The prompt without tools, for the last step.
        tools: Its tools by name.
        handoffs: Agents that it may hand over to.
        limits: Limits of one turn.
        temperature: Of the model; None for the provider's default.
        output: Check of its answer; None for plain text.
        reasoning: Whether clients get the model's reasoning.
        may_be_empty: Whether an answer may be empty, because a client named stop texts.
        description: What it is for, for those that choose an agent.
        compaction: None where what leaves the window is not summarised.
        client_tools: Whether clients may offer tools of their own.
        client_instructions: What becomes of instructions of clients: "ignore", "append" or
            "refuse".
        tool_choice: Of the first model call of a request; as in `ModelRequest`.
        parallel_tool_calls: As in `ModelRequest`.
        memory: Whether it is shown what is remembered of the user.
    """

    name: str
    model: Model
    prompt: Prompt
    closing_prompt: Prompt
    tools: dict[str, Tool]
    handoffs: tuple[str, ...]
    limits: AgentLimits
    temperature: float | None
    output: "OutputCheck | None" = None
    reasoning: bool = False
    may_be_empty: bool = False
    description: str = ""
    compaction: Compaction | None = None
    client_tools: bool = False
    client_instructions: str = "ignore"
    tool_choice: str = "auto"
    parallel_tool_calls: bool = True
    memory: bool = False


def build_agent(
    name: str,
    *,
    instructions: str,
    model: Model,
    tools: tuple[Tool, ...] = (),
    handoffs: tuple[str, ...] = (),
    limits: AgentLimits | None = None,
    temperature: float | None = None,
    output: "OutputCheck | None" = None,
    reasoning: bool = False,
    description: str = "",
    compaction: Compaction | None = None,
    client_tools: bool = False,
    client_instructions: str = "ignore",
    memory: bool = False,
) -> Agent:
    """Build an agent and its prompt; the arguments are the attributes of `Agent`.

    Raises:
        ValueError: Two tools have the same name, or one has that of the hand-off.
    """
    by_name: dict[str, Tool] = {}
    for each in tools:
        if each.name in by_name or each.name == HAND_OFF:
            raise ValueError(f"agent {name}: tool {each.name} is defined twice")
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
        description=description,
        compaction=compaction,
        client_tools=client_tools,
        client_instructions=client_instructions,
        memory=memory,
    )


def _hand_off_spec(agents: tuple[str, ...]) -> ToolSpec:
    return ToolSpec(
        HAND_OFF,
        "Give the conversation to another agent that is responsible for the user's request.",
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


class Routing(Struct, frozen=True):
    """The rules of routing.

    Attributes:
        by_intent: Agents by intent.
        default: The agent that answers if no rule decides.
        sticky: Whether the session's agent keeps it. "always": until it hands over;
            "until-confident": until then, or until an intent of another agent is detected; "never".
    """

    by_intent: Mapping[str, str]
    default: str
    sticky: Literal["always", "until-confident", "never"] = "until-confident"


class Route(Struct, frozen=True):
    """The decision.

    Attributes:
        agent: The agent's name.
        reason: As in the event `agent.selected`.
    """

    agent: str
    reason: str


def choose_agent(
    routing: Routing,
    agents: Mapping[str, object],
    *,
    requested: str | None,
    intent: str | None,
    current: str | None,
) -> Route:
    """Choose the requested agent, else the session's, else the intent's, else the default.

    Args:
        routing: The rules.
        agents: The configured agents by name.
        requested: The agent that the request names.
        intent: The detected intent.
        current: The session's agent; ignored if it is not configured any more.

    Raises:
        UnknownAgent: the requested agent is not configured.
    """
    if requested is not None:
        if requested not in agents:
            raise UnknownAgent(f"There is no agent {requested!r}.", field="agent")
        return Route(requested, "requested")
    owner = routing.by_intent.get(intent) if intent is not None else None
    if current is not None and current in agents:
        undecided = owner is None or owner == current
        if routing.sticky == "always" or (routing.sticky == "until-confident" and undecided):
            return Route(current, "sticky")
    if owner is not None:
        return Route(owner, "intent")
    return Route(routing.default, "default")
