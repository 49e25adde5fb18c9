"""Types of a turn: principals, messages, requests, records.

Plain typed data, without I/O or clocks. It imports nothing else of this package.
"""

from typing import Any

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import astuple, force_setattr

__all__ = [
    "AnswerOptions",
    "ApprovalRequest",
    "AssistantMessage",
    "Attachment",
    "ClientTool",
    "Cost",
    "Decision",
    "Effect",
    "Image",
    "Journal",
    "Message",
    "ModelSpend",
    "OutputFormat",
    "PendingInput",
    "Principal",
    "Question",
    "Resumption",
    "SessionKey",
    "Source",
    "ToolCall",
    "ToolMessage",
    "TurnRecord",
    "TurnReport",
    "TurnRequest",
    "Usage",
    "UserMessage",
    "cited_title",
]


class Principal(Struct, frozen=True, eq=False):
    """An authenticated caller: one subject of one tenant.

    Attributes:
        tenant: The tenant.
        subject: The subject.
        roles: What its credential grants; two principals are equal whatever their roles.
    """

    tenant: str
    subject: str
    roles: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Principal)
            and self.subject == other.subject
            and self.tenant == other.tenant
        )

    def __ne__(self, other: object) -> bool:
        return not self == other  # a Struct has one of its own, which compares identities

    def __hash__(self) -> int:
        return hash((self.tenant, self.subject))


class SessionKey(Struct, frozen=True):
    """The key of a session. It contains the owner, so it cannot name a session of another one."""

    tenant: str
    subject: str
    session: str


class ToolCall(Struct, frozen=True, omit_defaults=True):
    """A tool call that a model requests.

    Attributes:
        id: Its id.
        name: Name of the tool.
        arguments: JSON text, as the model wrote it.
        origin: The provider that wrote it; empty for unknown.
        extra: A JSON object that this provider wants back with the call, and that no other provider
            gets; empty for none.
    """

    id: str
    name: str
    arguments: str
    origin: str = ""
    extra: str = ""


class Attachment(Struct, frozen=True, omit_defaults=True):
    """A file that a user sent with a message. Its bytes are in the blob store.

    Attributes:
        id: Names session and file; see `storage.blobs`.
        media_type: Such as "image/png"; found from its bytes.
        name: As the client calls it, bounded; empty for none.
        bytes: Size of what is stored.
        tokens: About how many tokens a model reads for it.
    """

    id: str
    media_type: str
    name: str
    bytes: int
    tokens: int = 0


class UserMessage(Struct, frozen=True, tag="user", tag_field="role", omit_defaults=True):
    """The user's message.

    Attributes:
        text: Its text; empty only with attachments.
        attachments: Files that were sent with it.
    """

    text: str
    attachments: tuple[Attachment, ...] = ()

    @property
    def described(self) -> str:
        """Its text, with the names of its attachments."""
        if not self.attachments:
            return self.text
        names = (each.name or each.media_type for each in self.attachments)
        return f"[{', '.join(names)}] {self.text}".rstrip()


class AssistantMessage(Struct, frozen=True, tag="assistant", tag_field="role", omit_defaults=True):
    """A message of the model, and the tool calls that it requests in the same step.

    Attributes:
        text: Its text.
        tool_calls: Of the same step.
        by: The subject of the person who wrote it in place of the model; empty for the model.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    by: str = ""


class Image(Struct, frozen=True):
    """An image for models that take them; see `tools.images`.

    Attributes:
        media_type: Such as "image/png".
        data: Its bytes in Base64.
    """

    media_type: str
    data: str


class Source(Struct, frozen=True, omit_defaults=True):
    """What a part of a tool's result was taken from, for clients to show.

    Attributes:
        title: Of the document.
        section: Its headings above the part, outermost first, joined by " > "; empty for none.
        url: Where people find it; empty if it has no address.
        path: Name of the document in its collection; empty for none.
        media_type: Of the document; empty for unknown.
    """

    title: str
    section: str = ""
    url: str = ""
    path: str = ""
    media_type: str = ""


def cited_title(source: Source) -> str:
    """The title and the section of a source, as one line."""
    return f"{source.title} > {source.section}" if source.section else source.title


class ToolMessage(Struct, frozen=True, tag="tool", tag_field="role", omit_defaults=True):
    """The result of a tool call.

    Attributes:
        call_id: Id of the call.
        name: Name of the tool.
        content: The text, which names the images.
        failed: Whether it is an error for the model to read.
        images: For models that take them; not stored.
        sources: What the parts of the text were taken from, for clients.
    """

    call_id: str
    name: str
    content: str
    failed: bool = False
    images: tuple[Image, ...] = ()
    sources: tuple[Source, ...] = ()


Message = UserMessage | AssistantMessage | ToolMessage


class Usage(Struct, frozen=True):
    """Tokens used, and the number of model calls that used them.

    A reported number that is negative, not a number, or more than a thousand million counts as 0,
    like one that was not reported, so that nothing that counts, charges or stores usage has to
    expect it.

    Attributes:
        prompt_tokens: All tokens that were read.
        completion_tokens: Tokens that were written.
        model_calls: Model calls.
        cached_prompt_tokens: Tokens read that were in the provider's prompt cache.
        cache_write_tokens: Tokens read that were written to it.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    model_calls: int = 0
    cached_prompt_tokens: int = 0
    cache_write_tokens: int = 0

    def __post_init__(self) -> None:
        for index, count in enumerate(astuple(self)):
            if type(count) is not int or not 0 <= count <= _MOST_TOKENS:
                force_setattr(self, _COUNTS[index], _sane(count))

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
_UNSTORED_SECONDS = 3_600.0


def _sane(count: object) -> int:
    return int(count) if isinstance(count, int | float) and 0 <= count <= _MOST_TOKENS else 0


class Cost(Struct, frozen=True, omit_defaults=True):
    """The cost of a turn, by the configured prices.

    Attributes:
        amount: In `currency`.
        currency: As configured.
        estimated: Whether a part is an estimate (four characters a token), because a provider did
            not report usage, or a call was cut off before it did.
    """

    amount: float
    currency: str
    estimated: bool = False


class OutputFormat(Struct, frozen=True):
    """The JSON Schema of a final answer. `name`: letters, digits, `_` and `-`."""

    name: str
    schema: dict[str, Any]


class ClientTool(Struct, frozen=True, omit_defaults=True):
    """A tool that a client offers and runs itself; all of it is foreign data.

    Attributes:
        name: Letters, digits, `_` and `-`.
        description: For the model.
        parameters: JSON Schema object.
        strict: Whether only arguments that match the schema reach the client.
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: bool = False


class AnswerOptions(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Options of the answer that a client requests, within the limits of the agent.

    Attributes:
        max_tokens: Tokens written in one model call.
        stop: Texts before which the answer ends.
        output: The JSON that it has to be.
        tools: Tools of the client; for agents that take them.
        tool_choice: Of the first model call: "auto", "none" (no tool of the client), "required", or
            the name of a tool of the client.
        parallel_tool_calls: Whether one step may have several calls.
        instructions: Of the client; what becomes of them is decided by the agent.
    """

    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    output: OutputFormat | None = None
    tools: tuple[ClientTool, ...] = ()
    tool_choice: str = "auto"
    parallel_tool_calls: bool = True
    instructions: str = ""


class TurnRequest(Struct, frozen=True, kw_only=True):
    """One user message, validated by the host that received it. Made by `new_request`.

    Attributes:
        id: Id of the turn.
        text: The message, without NUL and lone surrogates.
        session: The session to continue, or the id of the new one.
        opens: Whether the session is new.
        agent: The requested agent; None to let routing decide.
        idempotency_key: Makes a retry return the first answer instead of running a second turn.
        history: Messages before `text` of a client that keeps the conversation itself (OpenAI's
            stateless format); only used for a new session, never stored.
        deadline: In seconds on the event loop's clock; None for the configured limit.
        background: Whether to complete the turn even if no client waits for it any more.
        options: None to leave everything to the agent.
        named: Whether the client has chosen the session's id, also that of a new one.
        attachments: Files that were sent with the message.
        stored: Whether a new session is kept as long as any other. One that is not, and that its
            host does not delete, expires an hour later, unless an effect has to be reconciled.
        recorded: Whether its course is recorded where there is a console, however many turns there
            are; of others it is a sample.
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
    named: bool = False
    attachments: tuple[Attachment, ...] = ()
    stored: bool = True
    recorded: bool = False

    @property
    def message(self) -> UserMessage:
        """The user's message."""
        return UserMessage(self.text, self.attachments)

    def kept_seconds(self, configured: float) -> float:
        """How long the session is kept after the turn.

        Args:
            configured: The same for sessions that are stored.
        """
        return configured if self.stored else min(configured, _UNSTORED_SECONDS)


class Question(Struct, frozen=True, omit_defaults=True):
    """What a server of tools asks the user before a call goes on: a form, or a page to visit.

    Attributes:
        source: Name of the source that asks.
        message: Its text; foreign.
        schema: JSON Schema of the form; None if there is a page to visit.
        url: Of the page.
        redact: Fields of the form whose values are not shown in records; "*" for all.
        number: Of the questions of this call, from 1.
    """

    source: str
    message: str
    schema: dict[str, Any] | None = None
    url: str = ""
    redact: tuple[str, ...] = ()
    number: int = 0


class PendingInput(Struct, frozen=True, omit_defaults=True):
    """What a call that was answered with questions needs in order to be made again.

    Attributes:
        questions: Those that are not answered, by the server's keys.
        responses: Answers by the server's keys, as the protocol has them.
        state: What the server wants back; None for nothing.
        in_place: Whether the server asks again, and gets the answers then.
    """

    questions: dict[str, Question]
    responses: dict[str, dict[str, Any]] = {}
    state: str | None = None
    in_place: bool = False


class Decision(Struct, frozen=True, omit_defaults=True):
    """A decision about a call that waited for one.

    Attributes:
        verdict: "approve", "reject", "edit" or "expire"; of a question "accept", "decline",
            "cancel" or "expire"; of an unknown outcome "done" or "not-done"; of a hand-over
            "return".
        by: The subject who decided; empty for the system.
        at: Unix seconds.
        note: What the subject said about it.
        arguments: Of "edit", the new arguments as JSON; of "accept", the values of the form.
        result: Of "done" and "return", the outcome for the model.
        failed: Of "return", whether the result is an error for the model to read.
        options: Of the request that returned the result, which apply from there on; None for those
            that applied before.
    """

    verdict: str
    by: str
    at: float
    note: str = ""
    arguments: str = ""
    result: str = ""
    failed: bool = False
    options: AnswerOptions | None = None


class ApprovalRequest(Struct, frozen=True, omit_defaults=True):
    """What a call waits for before it runs.

    Attributes:
        expires_at: Unix seconds; afterwards the call is rejected.
        role: The role that decides; None for the turn's own subject.
        own: Whether the turn's own subject may decide if it has the role.
        kind: "approval", "input" (a server asks the user something), "person" (the conversation is
            with a person) or "client" (the client runs the tool).
        decision: None while it waits.
        question: Of "input".
    """

    expires_at: float
    role: str | None = None
    own: bool = False
    kind: str = "approval"
    decision: Decision | None = None
    question: Question | None = None


class Effect(Struct, frozen=True, omit_defaults=True):
    """A journaled call: it changes something outside, or it waits for a decision.

    Attributes:
        id: Unique in the tenant: the turn's id, a dot and a number.
        key: Its idempotency key: the same however often the turn is continued.
        call: Id of the tool call.
        tool: Name of the tool.
        agent: Name of the agent.
        arguments: In canonical JSON, as it runs.
        step: Number of the turn's step.
        shown: The arguments redacted, if the tool declares redactions.
        status: "planned", "waiting", "begun", "done", "failed" (nothing has changed), "rejected",
            "unknown" (begun, without an outcome).
        began_at: Unix seconds; 0 before.
        ended_at: Unix seconds; 0 before.
        request: What it waits for, or waited for last; None for nothing.
        asked: As `shown`, of the model's own arguments, if others were approved.
        earlier: What it waited for before, oldest first.
        input: Of a call whose server asks something, until the call has ended.
        reads: Whether it only reads; it is journaled because it waits.
    """

    id: str
    key: str
    call: str
    tool: str
    agent: str
    arguments: str
    step: int
    shown: str = ""
    status: str = "planned"
    began_at: float = 0.0
    ended_at: float = 0.0
    request: ApprovalRequest | None = None
    asked: str = ""
    earlier: tuple[ApprovalRequest, ...] = ()
    input: PendingInput | None = None
    reads: bool = False

    @property
    def requests(self) -> tuple[ApprovalRequest, ...]:
        """All that it has waited for, oldest first."""
        return (*self.earlier, self.request) if self.request is not None else ()

    @property
    def wait(self) -> str:
        """Id of what it waits for now, or waited for last; unique in the tenant."""
        question = self.request.question if self.request is not None else None
        return self.id if question is None else f"{self.id}.{question.number}"


class Resumption(Struct, frozen=True, omit_defaults=True):
    """A place in a turn where a further attempt continued.

    Attributes:
        attempt: Number of the attempt that continued.
        messages: How many of the turn's messages were before.
        waited: Ids of the calls that the turn had paused for; empty after an interruption.
        questions: Of each of them, the number of the question; empty if none asked one.
        usage: Tokens of the turn before.
    """

    attempt: int
    messages: int
    waited: tuple[str, ...] = ()
    questions: tuple[int, ...] = ()
    usage: Usage = Usage()


class Journal(Struct, frozen=True, omit_defaults=True):
    """The journal of a turn with effects: what is needed to continue it, and what was done.

    Until the turn is completed, the last of its messages is that of the model with the calls of the
    last step, whose results are among the outcomes.

    Attributes:
        status: "open" (in progress, or its process is gone), "paused", "interrupted" or
            "completed".
        revision: Number of writes of this turn, from 1.
        writer: The lease owner that wrote this revision.
        attempt: Number of the attempt that wrote it.
        effects: In the order in which they were journaled.
        outcomes: Of the calls of the last step that have ended, until the turn is completed.
        steps: Model calls so far, of those that the agent may make.
        resumptions: Where further attempts continued.
        state: Notes of the session as the tools left them.
        roles: Of the caller.
        problem: Why it was interrupted.
        options: Of the request that continued it last, until it is completed; None for those of the
            request that began it.
    """

    status: str = "completed"
    revision: int = 0
    writer: str = ""
    attempt: int = 1
    effects: tuple[Effect, ...] = ()
    outcomes: tuple[ToolMessage, ...] = ()
    steps: int = 0
    resumptions: tuple[Resumption, ...] = ()
    state: dict[str, str] = {}
    roles: tuple[str, ...] = ()
    problem: dict[str, Any] = {}
    options: AnswerOptions | None = None


class TurnRecord(Struct, frozen=True):
    """A stored turn: what is needed to continue the session, or to replay the answer.

    Attributes:
        id: Id of the turn.
        number: Position in the session, from 1; equals the session's version after the commit.
        created_at: Unix time in seconds.
        agent: The agent that answered.
        intent: The detected intent; None for none.
        messages: Begin with the `UserMessage`, and end with the final `AssistantMessage` if it is
            completed. What was said while a person had the conversation is a turn of its own: the
            user's message, perhaps with a notice as its answer, or one message of the person.
        usage: Tokens of the turn.
        confidence: Of the intent, as in the event `intent.detected`.
        by: As in the event `intent.detected`.
        first_agent: As in the first `agent.selected`.
        reason: As in the first `agent.selected`.
        attempt: The attempt whose events come first: of a turn without a journal, the one that
            completed it.
        cost: If models had prices.
        finish_reason: As in the event `turn.completed`; "stop" for turns that were stored without
            it.
        journal: Of a turn with effects.
        during: Of what was said while a person had the conversation: the id of the hand-over, which
            is that of the effect that waited.
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
    journal: Journal | UnsetType = UNSET
    during: str | UnsetType = UNSET

    @property
    def status(self) -> str:
        """As of its journal; "completed" without one."""
        return self.journal.status if self.journal is not UNSET else "completed"

    @property
    def answer(self) -> str:
        """The text of the answer."""
        return "".join(m.text for m in self.messages if isinstance(m, AssistantMessage))


class ModelSpend(Struct):
    """What was spent on one model; `cost` in billionths of the currency."""

    usage: Usage = Usage()
    cost: int = 0


class TurnReport(Struct):
    """The report of a turn that has ended or paused; filled in while the turn runs.

    Attributes:
        turn: Its id.
        outcome: "completed", "paused", "replayed", "cancelled", "person" (a person has the
            conversation), or the code of the problem that ended it.
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
        subject: The same.
        session: Id of the session.
        effects: Tool, status and decision ("none" for none) of each effect that has ended.
        compaction: How a compaction of the session ended, whose summary, if there is one, is
            stored with this turn: "summarised", "failed", "refused"; empty for none. Its cost is
            in `spent`.
        memory: Whether what is remembered of the user was "read", or could not be: "failed"; empty
            for an agent without a memory.
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
    subject: str = ""
    session: str = ""
    effects: list[tuple[str, str, str]] = []
    compaction: str = ""
    memory: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether its outcome is none of a problem, and it was not cancelled."""
        return self.outcome in ("completed", "replayed", "paused", "person")
