"""The vocabulary of a turn: who speaks, what was said, what is kept.

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
    "ModelSpend",
    "OutputFormat",
    "Principal",
    "SessionKey",
    "ToolCall",
    "ToolMessage",
    "TurnRecord",
    "TurnReport",
    "TurnRequest",
    "Usage",
    "UserMessage",
]


class Principal(Struct, frozen=True):
    """Whoever a credential proved to be: one subject of one tenant."""

    tenant: str
    subject: str


class SessionKey(Struct, frozen=True):
    """The full name of a session. Another tenant or subject cannot even spell it."""

    tenant: str
    subject: str
    session: str


class ToolCall(Struct, frozen=True, omit_defaults=True):
    """A model's wish to call a tool. `arguments` is the JSON text as the model wrote it.

    origin: the provider that wrote it; empty for unknown. extra: a JSON object that the provider
    wants back with the call, and that no other provider is sent; empty for none.
    """

    id: str
    name: str
    arguments: str
    origin: str = ""
    extra: str = ""


class UserMessage(Struct, frozen=True, tag="user", tag_field="role"):
    """What the customer said."""

    text: str


class AssistantMessage(Struct, frozen=True, tag="assistant", tag_field="role", omit_defaults=True):
    """What the model said, and the tools it asked for in the same step."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


class ToolMessage(Struct, frozen=True, tag="tool", tag_field="role", omit_defaults=True):
    """What a tool answered; `failed` when the answer is an error for the model to read."""

    call_id: str
    name: str
    content: str
    failed: bool = False


Message = UserMessage | AssistantMessage | ToolMessage


class Usage(Struct, frozen=True):
    """Tokens spent, and the number of model calls that spent them.

    prompt_tokens: all that were read. cached_prompt_tokens: those of them that the provider had in
    its prompt cache. cache_write_tokens: those of them that it put there.

    Providers and models of others report these numbers. One that cannot be, because it is negative,
    not a number, or more than a thousand million, counts as 0, which is as not reported: nothing
    that counts, charges or stores usage has to expect anything else.
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
    """What a turn cost, by the prices that are configured.

    estimated: a provider did not report what it used, or a call was cut off before it did; its
    part is an estimate, four characters to a token.
    """

    amount: float
    currency: str
    estimated: bool = False


class OutputFormat(Struct, frozen=True):
    """The JSON that a final answer has to be. name: letters, digits, `_` and `-`."""

    name: str
    schema: dict[str, Any]


class AnswerOptions(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a client wants of the answer, within the bounds of the agent.

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
    background: complete it even if nobody waits for the answer any more.
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
    """A turn as it is kept: everything needed to continue the session or replay the answer.

    number: position in the session, from 1; equals the session's version after the commit.
    created_at: Unix time in seconds.
    messages: begins with the UserMessage and ends with the final AssistantMessage.
    confidence, by: of the intent, as in the event `intent.detected`. first_agent, reason: as in
    the first `agent.selected`. attempt: which one it was, of a turn that was interrupted. cost: of
    this turn, where models had prices. finish_reason: as in the event `turn.completed`; turns that
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
        """The text that the customer was given."""
        return "".join(m.text for m in self.messages if isinstance(m, AssistantMessage))


class ModelSpend(Struct):
    """What was spent on one model; `cost` in billionths of the currency."""

    usage: Usage = Usage()
    cost: int = 0


class TurnReport(Struct):
    """What is reported of a turn when it is over; filled in while it runs.

    Attributes:
        turn: Its id.
        outcome: "completed", "replayed", "cancelled", or the code of the problem that ended it.
        agent: The agent that answered; empty if there was none.
        intent: The detected intent.
        intent_by: The step of the cascade that detected it.
        usage: Tokens over all steps.
        tool_calls: Number of tool calls over all steps.
        failed_tool_calls: Those of them that failed.
        timings: Milliseconds by stage.
        spent: By model, where calls are metered, also for a turn that failed.
        currency: Of the costs.
        cached: Whether the answer was produced for another turn.
        tenant: Empty until it is verified.
    """

    turn: str
    outcome: str = "cancelled"
    agent: str = ""
    intent: str | None = None
    intent_by: str = ""
    usage: Usage = Usage()
    tool_calls: int = 0
    failed_tool_calls: int = 0
    timings: dict[str, float] = {}
    spent: dict[str, ModelSpend] = {}
    currency: str = ""
    cached: bool = False
    tenant: str = ""
