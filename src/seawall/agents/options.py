"""Options of one request, checked and applied to the agents. Imported only if a request has some.

With them an agent has a prompt of its own. As adapters encode a prompt once, prompts are kept: the
newest of each agent, by what the client has sent.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from weakref import WeakKeyDictionary

import msgspec
from msgspec import Struct, structs

from seawall.agents import HAND_OFF, Agent
from seawall.agents.output import OutputCheck
from seawall.errors import InvalidField
from seawall.models import Prompt
from seawall.models.schemas import ANY_OBJECT
from seawall.models.wrappers import StopSequenceModel
from seawall.tools.client import ClientSideTool, client_side_tool
from seawall.tools.json_schema import SchemaFault, ValueCheck
from seawall.turn import AnswerOptions, ClientTool

__all__ = ["apply_answer_options", "check_client_options"]

_MAX_PROMPTS = 32  # kept of one agent
_CLIENT_HEADING = "Instructions of the client that you serve, below those above:"


class _Prompts(Struct, frozen=True):
    """The prompts of an agent with the options of a client, and the client's tools by name."""

    prompt: Prompt
    closing_prompt: Prompt
    tools: dict[str, ClientSideTool]


# By the agent's own prompt, which lives as long as the agent.
_prompts: WeakKeyDictionary[Prompt, OrderedDict[bytes, _Prompts]] = WeakKeyDictionary()


def check_client_options(agents: Mapping[str, Agent], first: str, options: AnswerOptions) -> None:
    """Check that an agent takes what a client has sent, before anything is done for the turn.

    Args:
        agents: As configured.
        first: The agent that answers.
        options: Of the request.

    Raises:
        InvalidField: It does not. The field is `tools`, `tools[INDEX].name`, `tool_choice`,
            `instructions` or `response_format`.
    """
    agent, wanted = agents[first], options.output
    if wanted is not None and wanted.schema != ANY_OBJECT and agent.output is not None:
        raise InvalidField(
            f"Agent {first} has an output schema of its own.", field="response_format"
        )
    if options.instructions and agent.client_instructions == "refuse":
        raise InvalidField(
            f"Agent {first} takes no instructions of clients: its client_instructions are refused.",
            field="instructions",
        )
    if options.tools and not agent.client_tools:
        raise InvalidField(
            f"Agent {first} takes no tools of clients; [agents.{first}] client_tools = true allows "
            "them.",
            field="tools",
        )
    names = [each.name for each in options.tools]
    own = {HAND_OFF}.union(*(each.tools for each in _reachable(agents, agent)))
    for index, name in enumerate(names):
        if name in own:
            raise InvalidField(
                f"A tool of the agent has the name {name!r}.", field=f"tools[{index}].name"
            )
    if options.tool_choice == "required" and not names:
        raise InvalidField("There are no tools.", field="tool_choice")
    if options.tool_choice not in ("auto", "none", "required", *names):
        raise InvalidField(
            f"There is no tool {options.tool_choice[:64]!r} in tools.", field="tool_choice"
        )


def _reachable(agents: Mapping[str, Agent], first: Agent) -> Iterator[Agent]:
    """An agent, and those to which the conversation may be handed over from it."""
    seen, pending = {first.name}, [first]
    while pending:
        agent = pending.pop()
        yield agent
        new = [each for each in agent.handoffs if each not in seen and each in agents]
        seen.update(new)
        pending += [agents[each] for each in new]


def apply_answer_options(
    agents: Mapping[str, Agent], options: AnswerOptions, *, client_seconds: float = 3_600.0
) -> dict[str, Agent]:
    """The agents with the options of one turn, which `check_client_options` has accepted.

    Args:
        agents: As configured.
        options: Also apply to agents that are handed over to; tools and instructions only to those
            that take them.
        client_seconds: How long results of the client's tools are waited for.
    """
    output = None
    if (wanted := options.output) is not None:
        output = OutputCheck(wanted, ValueCheck(wanted.schema), SchemaFault)
    return {name: _apply(agent, options, output, client_seconds) for name, agent in agents.items()}


def _apply(
    agent: Agent, options: AnswerOptions, output: OutputCheck | None, client_seconds: float
) -> Agent:
    if agent.output is not None:
        output = None
    offered = options.tools if agent.client_tools else ()
    if options.tool_choice == "none" and agent.prompt.tools:
        offered = ()  # the agent's own may be called
    instructions = options.instructions if agent.client_instructions == "append" else ""
    if offered or instructions or output is not None:
        prompts = _prompts_of(agent, offered, instructions, output, client_seconds)
        agent = structs.replace(
            agent,
            prompt=prompts.prompt,
            closing_prompt=prompts.closing_prompt,
            tools={**prompts.tools, **agent.tools},
            output=output or agent.output,
            tool_choice=options.tool_choice if offered else "auto",
        )
    if options.stop:
        model = StopSequenceModel(agent.model, options.stop)
        agent = structs.replace(agent, model=model, may_be_empty=True)
    if options.max_tokens is not None:
        least = min(options.max_tokens, agent.limits.call_tokens or options.max_tokens)
        agent = structs.replace(agent, limits=structs.replace(agent.limits, call_tokens=least))
    if not options.parallel_tool_calls:
        agent = structs.replace(agent, parallel_tool_calls=False)
    return agent


def _prompts_of(
    agent: Agent,
    offered: tuple[ClientTool, ...],
    instructions: str,
    output: OutputCheck | None,
    client_seconds: float,
) -> _Prompts:
    kept = _prompts.setdefault(agent.prompt, OrderedDict())
    wanted = output.format if output is not None else agent.prompt.output
    key = msgspec.json.encode((offered, instructions, wanted, client_seconds))
    found = kept.get(key)
    if found is not None:
        kept.move_to_end(key)
        return found
    tools = {each.name: client_side_tool(each, seconds=client_seconds) for each in offered}
    text = agent.prompt.instructions
    if instructions:
        text = f"{text}\n\n{_CLIENT_HEADING}\n{instructions}"
    specs = tuple(each.spec for name, each in tools.items() if name not in agent.tools)
    made = _Prompts(
        Prompt(text, (*agent.prompt.tools, *specs), wanted), Prompt(text, (), wanted), tools
    )
    kept[key] = made
    if len(kept) > _MAX_PROMPTS:
        kept.popitem(last=False)
    return made
