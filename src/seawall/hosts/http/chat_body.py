"""The body of a chat completion, in OpenAI's format: decoded, validated, and as a turn request."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from seawall.config import ServerSettings
from seawall.errors import BodyTooLarge, InvalidField, UnknownAgent
from seawall.hosts.http.bodies import checked_text, identifier, is_identifier
from seawall.requests import new_request
from seawall.turn import (
    AnswerOptions,
    AssistantMessage,
    Message,
    OutputFormat,
    TurnRequest,
    UserMessage,
)

__all__ = ["ChatBody", "chat_request"]

# In JSON both 5 and 5.0 are integers.
_Count = Annotated[float, Meta(ge=1, le=1_000_000_000, multiple_of=1)]

_MAX_STOPS = 4  # as in OpenAI's API
_MAX_STOP_CHARACTERS = 256
_LEGACY = "The legacy form is not offered: tools belong to the agents."
# Fields that are rejected by name, with the values that have no effect and are accepted.
_UNSUPPORTED_FIELDS: tuple[tuple[str, tuple[object, ...], str], ...] = (
    ("tools", (None, []), "Tools belong to the agents; a client cannot bring any."),
    ("tool_choice", (None, "none", "auto"), "Which tools are called is decided by the agents."),
    ("functions", (None, []), _LEGACY),
    ("function_call", (None, "none"), _LEGACY),
    ("logprobs", (None, False), "Log probabilities are not offered."),
    ("top_logprobs", (None, 0), "Log probabilities are not offered."),
    ("modalities", (None, [], ["text"]), "Only text is offered."),
    ("audio", (None,), "Audio is not offered."),
    ("web_search_options", (None,), "Tools belong to the agents; a client cannot bring any."),
)


class TextPart(Struct, frozen=True, tag="text", tag_field="type"):
    """A part of a message's content."""

    text: str | None = None


class RefusalPart(Struct, frozen=True, tag="refusal", tag_field="type"):
    """A part with an assistant's reason for not answering."""

    refusal: str | None = None


class ChatMessage(Struct, frozen=True):
    """A message in OpenAI's format; `content` is text or a list of parts."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart | RefusalPart] | None = None
    refusal: str | None = None


class StreamOptions(Struct, frozen=True):
    """Options of a stream."""

    include_usage: bool | None = None


class SchemaFormat(Struct, frozen=True):
    """The JSON Schema of an answer."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
    schema: dict[str, Any] | None = None


class ResponseFormat(Struct, frozen=True):
    """The format of an answer: text, any JSON object, or JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None


class ChatBody(Struct, frozen=True):
    """The body of `POST /v1/chat/completions`: the supported part of OpenAI's format.

    A null field counts as absent. `model` names the agent, `metadata.session` the session.
    Sampling parameters are ignored: they belong to the agent's configuration.
    """

    model: str
    messages: list[ChatMessage]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    metadata: dict[str, str | None] | None = None
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    stop: str | list[str] | None = None
    response_format: ResponseFormat | None = None
    n: float | None = None
    tools: Any = None
    tool_choice: Any = None
    functions: Any = None
    function_call: Any = None
    logprobs: Any = None
    top_logprobs: Any = None
    modalities: Any = None
    audio: Any = None
    web_search_options: Any = None


def chat_request(
    body: ChatBody, *, session: str | None, key: str | None, settings: ServerSettings
) -> TurnRequest:
    """The turn request of a chat completion, whose last message is the user's.

    With a session, the history comes from the store and earlier messages are ignored; without
    one, they are the history.

    Args:
        body: Of `POST /v1/chat/completions`.
        session: From the header; the same as `metadata.session`.
        key: The idempotency key.
        settings: Their limits apply.

    Raises:
        InvalidField: A value is outside its limits, or requests an unsupported feature.
    """
    _reject_unsupported(body)
    if not 1 <= len(body.messages) <= settings.max_messages:
        raise InvalidField(f"There must be 1 to {settings.max_messages}.", field="messages")
    last = len(body.messages) - 1
    if body.messages[last].role != "user":
        raise InvalidField("The last message must be the user's.", field=f"messages[{last}].role")
    session = identifier(session or (body.metadata or {}).get("session"), "session")
    history = () if session else _history(body.messages[:last], settings)
    return new_request(
        checked_text(_content(body.messages[last]), f"messages[{last}].content", settings),
        session=session,
        agent=None if body.model == "auto" else _agent(body.model),
        idempotency_key=key,
        history=history,
        options=_options(body),
    )


def _reject_unsupported(body: ChatBody) -> None:
    """Reject by name what would change the answer and is not supported."""
    if body.n not in (None, 1):
        raise InvalidField("Only one choice is supported.", field="n")
    for field, accepted, reason in _UNSUPPORTED_FIELDS:
        value = getattr(body, field)
        if not any(type(value) is type(each) and value == each for each in accepted):
            raise InvalidField(reason, field=field)


def _options(body: ChatBody) -> AnswerOptions | None:
    """The client's options for the answer; None if it has none."""
    bounds = [each for each in (body.max_tokens, body.max_completion_tokens) if each is not None]
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    if len(stop) > _MAX_STOPS or not all(1 <= len(each) <= _MAX_STOP_CHARACTERS for each in stop):
        raise InvalidField(
            f"Must be at most {_MAX_STOPS} texts, each of 1 to {_MAX_STOP_CHARACTERS} characters.",
            field="stop",
        )
    output = _output(body.response_format)
    if not bounds and not stop and output is None:
        return None
    most = int(min(bounds)) if bounds else None
    return AnswerOptions(max_tokens=most, stop=tuple(stop), output=output)


def _output(requested: ResponseFormat | None) -> OutputFormat | None:
    if requested is None or requested.type == "text":
        return None
    if requested.type == "json_object":
        return OutputFormat("answer", {"type": "object"})
    field = "response_format.json_schema"
    if requested.json_schema is None or requested.json_schema.schema is None:
        missing = field if requested.json_schema is None else f"{field}.schema"
        raise InvalidField("Required with the type json_schema.", field=missing)
    from seawall.tools.json_schema import UnusableSchema, check_schema  # noqa: PLC0415 - seldom

    schema = requested.json_schema.schema
    try:
        check_schema(schema)
    except UnusableSchema as fault:
        path = f"{field}.schema.{fault.path}".rstrip(".")
        raise InvalidField(fault.detail, field=path) from fault
    return OutputFormat(requested.json_schema.name, schema)


def _agent(model: str) -> str:
    if not is_identifier(model):
        raise UnknownAgent("There is no such model; /v1/models lists them.", field="model")
    return model


def _history(messages: list[ChatMessage], settings: ServerSettings) -> tuple[Message, ...]:
    """The history that a stateless client sends.

    System messages are left out, because instructions belong to the agent, and so are tool
    messages, because the client does not run the agent's tools.
    """
    history: list[Message] = []
    size = 0
    for index, message in enumerate(messages):
        text = _content(message)
        if message.role not in ("user", "assistant") or not text.strip():
            continue
        text = checked_text(text, f"messages[{index}].content", settings)
        size += len(text)
        if size > settings.max_body_bytes:
            raise BodyTooLarge("The messages are too long together.")
        history.append(UserMessage(text) if message.role == "user" else AssistantMessage(text))
    return tuple(history)


def _content(message: ChatMessage) -> str:
    content = message.content
    if isinstance(content, list):
        parts = [each.text if isinstance(each, TextPart) else each.refusal for each in content]
        content = "".join(filter(None, parts))
    return (content or "") + (message.refusal or "" if message.role == "assistant" else "")
