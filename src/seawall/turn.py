"""The vocabulary of a turn: callers, messages, requests and records.

Plain typed data. Nothing here imports anything of ours, does I/O or knows a clock.
"""

from typing import Any

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import force_setattr

__all__ = [
    "AnswerOptions",
    "AssistantMessage",
    "Cost",
    "Message",
    "OutputFormat",
    "Principal",
    "SessionKey",
    "ToolCall",
    "ToolMessage",
    "TurnRecord",
    "TurnRequest",
    "Usage",
    "UserMessage",
]


class Principal(Struct, frozen=True):
    """An authenticated caller: one subject of one tenant.

    Attributes:
        tenant: The organisation; limits and budgets apply to it.
        subject: The user, unique within the tenant.
    """

    tenant: str
    subject: str


class SessionKey(Struct, frozen=True):
    """The full name of a session, including its owner.

    Attributes:
        tenant: Of the owner.
        subject: Of the owner.
        session: The session's id.
    """

    tenant: str
    subject: str
    session: str


class ToolCall(Struct, frozen=True, omit_defaults=True):
    """A tool call requested by a model.

    Attributes:
        id: As the model gave it.
        name: The tool's name.
        arguments: JSON text as the model wrote it.
        origin: The provider that wrote it; empty if unknown.
        extra: A JSON object that is sent back with the call, to that provider only; empty for none.
    """

    id: str
    name: str
    arguments: str
    origin: str = ""
    extra: str = ""


class UserMessage(Struct, frozen=True, tag="user", tag_field="role"):
    """The user's message."""

    text: str


class AssistantMessage(Struct, frozen=True, tag="assistant", tag_field="role", omit_defaults=True):
    """The model's text, and the tool calls that it requested in the same step.

    Attributes:
        text: May be empty.
        tool_calls: In the model's order.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


class ToolMessage(Struct, frozen=True, tag="tool", tag_field="role", omit_defaults=True):
    """A tool's result.

    Attributes:
        call_id: Id of the tool call.
        name: The tool's name.
        content: The result as text.
        failed: Whether the content is an error message for the model.
    """

    call_id: str
    name: str
    content: str
    failed: bool = False


Message = UserMessage | AssistantMessage | ToolMessage


class Usage(Struct, frozen=True):
    """Tokens used, and the number of model calls that used them.

    Providers and custom models report these numbers. An impossible one, because it is negative, not
    a number, or more than a thousand million, counts as 0, as if it was not reported, so that code
    that counts, charges or stores usage can rely on valid numbers.

    Attributes:
        prompt_tokens: All tokens read.
        completion_tokens: All tokens written.
        model_calls: Number of calls.
        cached_prompt_tokens: Those of the prompt tokens that were read from the provider's prompt
            cache.
        cache_write_tokens: Those of them that were written to it.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    model_calls: int = 0
    cached_prompt_tokens: int = 0
    cache_write_tokens: int = 0

    def __post_init__(self) -> None:
        for name in _COUNTS:
            count = getattr(self, name)
            if type(count) is not int or not 0 <= count <= _MOST_TOKENS:
                force_setattr(self, name, _sane(count))

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.model_calls + other.model_calls,
            self.cached_prompt_tokens + other.cached_prompt_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
        )


_COUNTS = Usage.__struct_fields__
_MOST_TOKENS = 10**9


def _sane(count: object) -> int:
    return int(count) if isinstance(count, int | float) and 0 <= count <= _MOST_TOKENS else 0


class Cost(Struct, frozen=True, omit_defaults=True):
    """The cost of a turn, by the configured prices.

    Attributes:
        amount: In units of the currency.
        currency: Such as `USD`.
        estimated: A provider did not report its usage, or a call was cut off before it did; its
            part is an estimate, at four characters per token.
    """

    amount: float
    currency: str
    estimated: bool = False


class OutputFormat(Struct, frozen=True):
    """The JSON format of a final answer.

    Attributes:
        name: Letters, digits, `_` and `-`.
        schema: A JSON Schema.
    """

    name: str
    schema: dict[str, Any]


class AnswerOptions(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A client's options for the answer, within the limits of the agent.

    Attributes:
        max_tokens: Written in one model call at most.
        stop: Texts before which the answer ends.
        output: The required JSON format.
    """

    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    output: OutputFormat | None = None


class TurnRequest(Struct, frozen=True, kw_only=True):
    """One user message as a host received it; already validated by the host.

    Made by `pipeline.identifiers.new_request`.

    Attributes:
        id: Of the turn.
        text: The message; no NUL, no lone surrogate.
        session: The session to continue, or the id of the new one.
        opens: Whether the session is new.
        agent: An agent requested by name, or None to let the intent decide.
        idempotency_key: Makes a retry return the first answer instead of running a second turn.
        history: Messages before `text`, if the client keeps the history itself (OpenAI's stateless
            format); only used for a new session, never stored.
        deadline: Seconds on the event loop's monotonic clock; None for the configured turn limit.
        background: Complete the turn even if no client waits for the answer any more.
        options: None if the client leaves everything to the agent.
    """

    id: str
    text: str
    session: str
    opens: bool
    agent: str | None = None
    idempotency_key: str | None = None
    history: tuple[Message, ...] = ()
    deadline: float | None = None
    background: bool = False
    options: AnswerOptions | None = None


class TurnRecord(Struct, frozen=True):
    """A stored turn: everything needed to continue the session or replay the answer.

    Attributes:
        id: Of the turn.
        number: Position in the session, from 1; equals the session's version after the commit.
        created_at: Unix seconds.
        agent: The agent that answered last.
        intent: The detected intent.
        messages: Begins with the UserMessage and ends with the final AssistantMessage.
        usage: Of all steps.
        confidence: Of the intent, as in the event `intent.detected`.
        by: As in the event `intent.detected`.
        first_agent: As in the first event `agent.selected`.
        reason: As in the first event `agent.selected`.
        attempt: Its number, if the turn was interrupted.
        cost: Of this turn, if models had prices.
        finish_reason: As in the event `turn.completed`; turns that were stored without it count as
            "stop".
    """

    id: str
    number: int
    created_at: float
    agent: str
    intent: str | None
    messages: tuple[Message, ...]
    usage: Usage
    confidence: float = 0.0
    by: str = "none"
    first_agent: str = ""
    reason: str = "default"
    attempt: int = 1
    cost: Cost | UnsetType = UNSET
    finish_reason: str = "stop"

    @property
    def answer(self) -> str:
        """The text of the answer."""
        return "".join(m.text for m in self.messages if isinstance(m, AssistantMessage))
