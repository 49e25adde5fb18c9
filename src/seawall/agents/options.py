"""Options of one request, applied to the agents. Imported only if a request has some."""

from collections.abc import Mapping

from msgspec import structs

from seawall.agents import Agent
from seawall.agents.output import OutputCheck
from seawall.errors import InvalidField
from seawall.models.schemas import ANY_OBJECT
from seawall.models.wrappers import StopSequenceModel
from seawall.tools.json_schema import SchemaFault, ValueCheck
from seawall.turn import AnswerOptions

__all__ = ["apply_answer_options"]


def apply_answer_options(
    agents: Mapping[str, Agent], first: str, options: AnswerOptions
) -> dict[str, Agent]:
    """The agents with the options of one turn.

    Args:
        agents: As configured.
        first: The agent that the turn begins with.
        options: Also apply to agents that it hands over to.

    Raises:
        InvalidField: The request has a schema, and the agent has one of its own.
    """
    wanted = options.output
    if wanted is not None and wanted.schema != ANY_OBJECT and agents[first].output is not None:
        raise InvalidField(
            f"Agent {first} has an output schema of its own.", field="response_format"
        )
    output = None
    if wanted is not None:
        output = OutputCheck(wanted, ValueCheck(wanted.schema), SchemaFault)
    return {name: _apply(agent, options, output) for name, agent in agents.items()}


def _apply(agent: Agent, options: AnswerOptions, output: OutputCheck | None) -> Agent:
    if output is not None and agent.output is None:
        agent = structs.replace(
            agent,
            prompt=structs.replace(agent.prompt, output=output.format),
            closing_prompt=structs.replace(agent.closing_prompt, output=output.format),
            output=output,
        )
    if options.stop:
        model = StopSequenceModel(agent.model, options.stop)
        agent = structs.replace(agent, model=model, may_be_empty=True)
    if options.max_tokens is not None:
        least = min(options.max_tokens, agent.limits.call_tokens or options.max_tokens)
        agent = structs.replace(agent, limits=structs.replace(agent.limits, call_tokens=least))
    return agent
