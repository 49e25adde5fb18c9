"""Models. This is their port: requests, events and the interface that every provider implements."""

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Literal, Protocol
from weakref import WeakKeyDictionary

import msgspec
from msgspec import Struct

from seawall.turn import (
    AssistantMessage,
    Message,
    OutputFormat,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)

if TYPE_CHECKING:
    from seawall.models.attachments import Contents

__all__ = [
    "CHARACTERS_PER_TOKEN",
    "AnswerText",
    "Caller",
    "DirectText",
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
    "TextSink",
    "ToolCalls",
    "ToolSpec",
    "estimate_prompt_tokens",
    "prompt_bytes",
]

CHARACTERS_PER_TOKEN = 4
"""In English text (https://platform.openai.com/tokenizer)."""
_MESSAGE_OVERHEAD = 16  # characters' worth of tokens that frame each message
_IMAGE_CHARACTERS = 6_000  # 1,500 tokens: an estimate, until the provider has counted


class ToolSpec(Struct, frozen=True, omit_defaults=True):
    """A tool as a model sees it.

    Attributes:
        name: Its name.
        description: What it does.
        parameters: A JSON Schema object.
        strict: Whether the provider should enforce the schema; the caller checks in any case.
    """

    name: str
    description: str
    parameters: dict[str, object]
    strict: bool = False


class Prompt(Struct, frozen=True, eq=False, weakref=True):
    """The part of a request that is the same for every turn of an agent.

    Built once at start and compared by identity, so that an adapter can encode it once.

    Attributes:
        instructions: The system prompt.
        tools: Tools that the model may call.
        output: Format requested from the provider, which may not keep to it: the caller checks.
    """

    instructions: str
    tools: tuple[ToolSpec, ...] = ()
    output: OutputFormat | None = None


class Meter(Protocol):
    """Records what the model calls of one turn cost, as soon as that is known."""

    def charge(self, model: str, usage: Usage, cost: int, *, estimated: bool) -> None:
        """Record a call that has ended, successfully or not.

        Args:
            model: Name of the model in the configuration.
            usage: Tokens of the call.
            cost: In billionths of the currency; 0 where there is no price.
            estimated: The provider did not report the usage.
        """
        ...


class Caller(Protocol):
    """On whose behalf a model is called: the turn, which waits if a quota is used up."""

    @property
    def tenant(self) -> str:
        """Tenants share a quota."""
        ...

    @property
    def deadline(self) -> float:
        """Of the turn, on the event loop's clock; waiting is no part of the call's own time."""
        ...

    async def queued(self, position: int, seconds: float) -> None:
        """Report that the call waits.

        Args:
            position: In the queue, from 1.
            seconds: The expected wait.
        """
        ...


class TextSink(Protocol):
    """Takes pieces of an answer at once, where nothing has to be waited for."""

    def __call__(self, text: str) -> bool:
        """Take the next piece.

        Args:
            text: Not empty.

        Returns:
            Whether it was taken; if not, the model yields it, and waits until its reader goes on.
        """
        ...


class DirectText:
    """The way of text to a sink, past everything between model and reader, which look at it later.

    Attributes:
        taken: The pieces that the sink has taken.
        at: When it took the last one, on the event loop's clock.
    """

    __slots__ = ("_clock", "_sink", "at", "taken")

    def __init__(self, sink: TextSink) -> None:
        self._sink = sink
        self._clock = asyncio.get_running_loop().time
        self.taken: list[str] = []
        self.at = 0.0

    def __call__(self, text: str) -> bool:
        """See `TextSink`."""
        if not self._sink(text):
            return False
        self.taken.append(text)
        self.at = self._clock()
        return True


class AnswerText:
    """The text of an answer in its order: what was yielded, and what went to a sink in between."""

    __slots__ = ("_direct", "_pieces", "_seen")

    def __init__(self, direct: DirectText | None) -> None:
        self._direct = direct
        self._pieces: list[str] = []
        self._seen = len(direct.taken) if direct is not None else 0

    def add(self, text: str) -> None:
        """Add a piece that was yielded."""
        self._add_taken()
        self._pieces.append(text)

    def whole(self) -> str:
        """All of it so far."""
        self._add_taken()
        return "".join(self._pieces)

    def _add_taken(self) -> None:
        if self._direct is not None:
            self._pieces += self._direct.taken[self._seen :]
            self._seen = len(self._direct.taken)


class ModelRequest(Struct, frozen=True):
    """One call: the agent's fixed prompt and the conversation so far.

    Attributes:
        prompt: What is the same for every turn of the agent.
        messages: The conversation, oldest first.
        max_tokens: Limit on completion tokens; None for the provider's default.
        temperature: None for the provider's default.
        meter: Of the turn; every attempt that is made for this call is charged to it.
        stop: Texts that end the answer. A provider may ignore them; see `StopSequenceModel`.
        caller: On whose behalf; None for no turn's.
        contents: Where the bytes of attachments are found; None if no message has any.
        tool_choice: "auto", "none", "required", or the name of the tool that has to be called. A
            provider may not keep to it: the caller checks.
        parallel_tool_calls: Whether one answer may have several calls; as above.
        sink: A model that has yielded text may pass what follows to it, in order, instead of
            yielding it; None if all is to be yielded, as by a model that is registered in code.
    """

    prompt: Prompt
    messages: tuple[Message, ...]
    max_tokens: int | None = None
    temperature: float | None = None
    meter: Meter | None = None
    stop: tuple[str, ...] = ()
    caller: Caller | None = None
    contents: "Contents | None" = None
    tool_choice: str = "auto"
    parallel_tool_calls: bool = True
    sink: DirectText | None = None


class Text(Struct, frozen=True):
    """The next piece of text; pieces that arrived together are one event."""

    text: str


class Progress(Struct, frozen=True):
    """The model is producing something other than text: reasoning, or a tool call.

    Attributes:
        reasoning: The next piece of its reasoning; empty where the provider hides it.
    """

    reasoning: str = ""


class ToolCalls(Struct, frozen=True):
    """The tool calls of this step.

    Attributes:
        calls: Complete calls.
        unfinished: Calls whose arguments are not complete JSON, because the answer was cut off or
            the model wrote something else; never executed.
    """

    calls: tuple[ToolCall, ...]
    unfinished: tuple[ToolCall, ...] = ()


FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "other"]
"""Why an answer ended; `length`: a limit on its tokens cut it off, also where there are calls."""


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
        """Call the model.

        Args:
            request: The prompt and the conversation.
            deadline: Seconds on the event loop's clock.

        Raises:
            UpstreamFailed: The endpoint failed or broke off; its subclasses distinguish a request
                that is refused permanently from a throttled one.
            DeadlineExceeded: The call did not finish in time.
        """
        ...

    async def warm(self) -> None:
        """Open connections, or load the model, before the first turn. Never raises."""
        ...

    async def close(self) -> None:
        """Release every connection."""
        ...


# A prompt lives as long as its agent and is measured once.
_prompt_characters: WeakKeyDictionary[Prompt, int] = WeakKeyDictionary()
_prompt_bytes: WeakKeyDictionary[Prompt, int] = WeakKeyDictionary()


def estimate_prompt_tokens(request: ModelRequest) -> int:
    """Estimate the tokens of a request, including the agent's fixed part."""
    prompt = request.prompt
    fixed = _prompt_characters.get(prompt)
    if fixed is None:
        fixed = len(prompt.instructions) + len(msgspec.json.encode(prompt.tools))
        _prompt_characters[prompt] = fixed
    return (fixed + sum(map(_characters, request.messages))) // CHARACTERS_PER_TOKEN + 1


def prompt_bytes(request: ModelRequest) -> int:
    """Size of a request in bytes of UTF-8, including the agent's fixed part.

    An image counts as much as text of as many tokens.
    """
    prompt = request.prompt
    fixed = _prompt_bytes.get(prompt)
    if fixed is None:
        fixed = _size(prompt.instructions) + len(msgspec.json.encode(prompt.tools))
        _prompt_bytes[prompt] = fixed
    return fixed + sum(map(_message_bytes, request.messages))


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _message_bytes(message: Message) -> int:
    if isinstance(message, ToolMessage):
        shown = len(message.images) * _IMAGE_CHARACTERS
        return _MESSAGE_OVERHEAD + _size(message.content) + shown
    if isinstance(message, AssistantMessage):
        called = sum(len(call.name) + _size(call.arguments) for call in message.tool_calls)
        return _MESSAGE_OVERHEAD + _size(message.text) + called
    return _MESSAGE_OVERHEAD + _size(message.text) + _attached(message)


def _characters(message: Message) -> int:
    if isinstance(message, ToolMessage):
        shown = len(message.images) * _IMAGE_CHARACTERS
        return _MESSAGE_OVERHEAD + len(message.content) + shown
    if isinstance(message, AssistantMessage):
        called = sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
        return _MESSAGE_OVERHEAD + len(message.text) + called
    return _MESSAGE_OVERHEAD + len(message.text) + _attached(message)


def _attached(message: UserMessage) -> int:
    """Characters' worth of the tokens of attachments."""
    if not message.attachments:
        return 0
    return sum(each.tokens for each in message.attachments) * CHARACTERS_PER_TOKEN
