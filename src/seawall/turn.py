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
    """An authenticated caller: one subject of one tenant."""

    tenant: str
    subject: str


class SessionKey(Struct, frozen=True):
    """The full name of a session, including its owner."""

    tenant: str
    subject: str
    session: str


class ToolCall(Struct, frozen=True, omit_defaults=True):
    """A tool call requested by a model. `arguments` is the JSON text as the model wrote it.

    origin: the provider that wrote it; empty if unknown. extra: a JSON object that is sent back with
    the call, to that provider only; empty for none.
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
    """The model's text, and the tool calls that it requested in the same step."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


class ToolMessage(Struct, frozen=True, tag="tool", tag_field="role", omit_defaults=True):
    """A tool's result; `failed` if it is an error message for the model."""

    call_id: str
    name: str
    content: str
    failed: bool = False


Message = UserMessage | AssistantMessage | ToolMessage


class Usage(Struct, frozen=True):
    """Tokens used, and the number of model calls that used them.

    prompt_tokens: all that were read. cached_prompt_tokens: those read from the provider's prompt
    cache. cache_write_tokens: those written to it.

    Providers and custom models report these numbers. An impossible one, because it is negative, not
    a number, or more than a thousand million, counts as 0, as if it was not reported, so that code
    that counts, charges or stores usage can rely on valid numbers.
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

    estimated: a provider did not report its usage, or a call was cut off before it did; its part is
    an estimate, at four characters per token.
    """

    amount: float
    currency: str
    estimated: bool = False


class OutputFormat(Struct, frozen=True):
    """The JSON format of a final answer. name: letters, digits, `_` and `-`."""

    name: str
    schema: dict[str, Any]


class AnswerOptions(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A client's options for the answer, within the limits of the agent.

    max_tokens: written in one model call. stop: texts before which the answer ends. output: the
    JSON that it has to be.
    """

    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    output: OutputFormat | None = None


class TurnRequest(Struct, frozen=True, kw_only=True):
    """One user message as a host received it; already validated by the host.

    Made by `pipeline.identifiers.new_request`. id: the turn's own. text: no NUL, no lone
    surrogate. session: the session to continue, or the id that the new one gets.
    opens: the session is new.
    agent: an agent asked for by name, or None to let the intent decide.
    background: complete it even if no client waits for the answer any more.
    idempotency_key: makes a retry return the first answer instead of a second turn.
    history: messages that stand before `text` when the client keeps the history itself
        (OpenAI's stateless format); only used for a new session, never stored.
    deadline: seconds on the event loop's monotonic clock; None for the configured turn limit.
    options: None where the client leaves everything to the agent.
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

    number: position in the session, from 1; equals the session's version after the commit.
    created_at: Unix time in seconds.
    messages: begins with the UserMessage and ends with the final AssistantMessage.
    confidence, by: of the intent, as in the event `intent.detected`. first_agent, reason: as in
    the first `agent.selected`. attempt: its number, if the turn was interrupted. cost: of
    this turn, if models had prices. finish_reason: as in the event `turn.completed`; turns that
    were stored without it count as "stop".
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
