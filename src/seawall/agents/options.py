"""What a client wants of an answer, within the bounds of the agents. Imported only where asked."""

from collections.abc import Mapping

from msgspec import structs

from seawall.agents.definition import Agent
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
    """The agents as they answer one turn.

    Args:
        agents: as they are configured.
        first: the one that the turn begins with.
        options: what is asked of it, and of those that it hands over to.

    Raises:
        InvalidField: a schema is asked for, and the agent has one of its own.
    """
    wanted = options.output
    if wanted is not None and wanted.schema != ANY_OBJECT and agents[first].output is not None:
        raise InvalidField(
            f"Agent {first} answers with JSON of a schema of its own.", field="response_format"
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
