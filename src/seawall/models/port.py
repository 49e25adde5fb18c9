"""The model port: what the agent loop asks of any provider."""

from collections.abc import AsyncGenerator
from typing import Literal, Protocol

from msgspec import Struct

from seawall.turn import Message, OutputFormat, ToolCall, Usage

__all__ = [
    "Finish",
    "FinishReason",
    "Meter",
    "Model",
    "ModelEvent",
    "ModelRequest",
    "OutputFormat",
    "Progress",
    "Prompt",
    "Text",
    "ToolCalls",
    "ToolSpec",
]


class ToolSpec(Struct, frozen=True):
    """A tool as a model sees it; `parameters` is a JSON Schema object."""

    name: str
    description: str
    parameters: dict[str, object]


class Prompt(Struct, frozen=True, eq=False, weakref=True):
    """The part of a request that is the same for every turn of an agent.

    Built once at start and compared by identity, so that an adapter can encode it once.
    output: asked of the provider, which may not keep to it; whoever needs it has to check.
    """

    instructions: str
    tools: tuple[ToolSpec, ...] = ()
    output: OutputFormat | None = None


class Meter(Protocol):
    """Takes down what the calls of one turn cost, as soon as it is known."""

    def spent(self, model: str, usage: Usage, cost: int, *, estimated: bool) -> None:
        """A call has ended, well or not.

        model: its name in the configuration. cost: in billionths of the currency; 0 where there
        is no price. estimated: the provider did not report the usage.
        """
        ...


class ModelRequest(Struct, frozen=True):
    """One call: the agent's fixed prompt and the conversation so far.

    max_tokens bounds the completion; temperature None leaves the provider's default. meter: the
    turn's, told by every attempt that is made for this call. stop: texts at which the provider
    may end the answer; a provider that cannot is no failure, see `stopping.py`.
    """

    prompt: Prompt
    messages: tuple[Message, ...]
    max_tokens: int | None = None
    temperature: float | None = None
    meter: Meter | None = None
    stop: tuple[str, ...] = ()


class Text(Struct, frozen=True):
    """The next piece of text. Pieces that arrived together come as one."""

    text: str


class Progress(Struct, frozen=True):
    """The model is at work on something else than text: it thinks, or writes a tool call.

    reasoning: the next piece of what it thinks; empty where the provider does not show it.
    """

    reasoning: str = ""


class ToolCalls(Struct, frozen=True):
    """The tool calls of this step.

    calls: complete. unfinished: those whose arguments are not complete JSON, since the answer was
    cut off or the model wrote something else. They are never executed.
    """

    calls: tuple[ToolCall, ...]
    unfinished: tuple[ToolCall, ...] = ()


FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "other"]
"""Why an answer ended; `length`: a bound on its tokens cut it off, also where there are calls."""


class Finish(Struct, frozen=True):
    """The end of the call. `usage` is zero where the provider does not report it."""

    reason: FinishReason
    usage: Usage


ModelEvent = Text | Progress | ToolCalls | Finish


class Model(Protocol):
    """A model endpoint.

    `stream` yields Text and Progress, then ToolCalls at most once, then one Finish. Closing the
    generator, or cancelling the task that reads it, closes the upstream request.
    """

    def stream(self, request: ModelRequest, *, deadline: float) -> AsyncGenerator[ModelEvent, None]:
        """Call the model; `deadline` is in seconds on the event loop's clock.

        Raises:
            UpstreamFailed: the endpoint failed or broke off; its subclasses tell a request that it
                refuses for good from a throttled one.
            DeadlineExceeded: it did not finish in time.
        """
        ...

    async def warm(self) -> None:
        """Open what can be opened before the first turn. Never raises for a cold upstream."""
        ...

    async def close(self) -> None:
        """Release every connection."""
        ...
