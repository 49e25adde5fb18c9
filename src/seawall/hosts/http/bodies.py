"""Request bodies: bytes to valid requests, or an error that names the field."""

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from seawall.config import ServerSettings
from seawall.errors import BodyTooLarge, InvalidField, InvalidRequest, UnknownAgent
from seawall.pipeline.identifiers import new_request
from seawall.turn import (
    AnswerOptions,
    AssistantMessage,
    Message,
    OutputFormat,
    TurnRequest,
    UserMessage,
)

__all__ = ["ChatBody", "TurnBody", "chat_request", "decode", "idempotency_key", "turn_request"]

T = TypeVar("T")
# In JSON 5.0 is an integer as well as 5.
_Count = Annotated[float, Meta(ge=1, le=1_000_000_000, multiple_of=1)]

_where = re.compile(r" - at `\$\.?(.+)`$")
_unknown = re.compile(r"unknown field `(.+?)`")
_missing = re.compile(r"missing required field `(.+?)`")
_identifier = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_key = re.compile(r"[\x21-\x7e]{1,255}\Z")
_MAX_STOPS = 4  # as OpenAI has it
_MAX_STOP_CHARACTERS = 256
_LEGACY = "The legacy form is not offered: tools belong to the agents."
# Fields that are refused by name, unless they ask for nothing.
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


class TurnBody(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /v1/turns`. What is null counts as absent.

    background: the turn is completed even if the client goes away; without `stream`, it is
    accepted and its events are to be had at /v1/turns/{id}/events.
    """

    text: str
    session: str | None = None
    agent: str | None = None
    stream: bool | None = None
    background: bool | None = None


class TextPart(Struct, frozen=True, tag="text", tag_field="type"):
    """A part of a message's content."""

    text: str | None = None


class RefusalPart(Struct, frozen=True, tag="refusal", tag_field="type"):
    """A part by which an assistant said why it would not answer."""

    refusal: str | None = None


class ChatMessage(Struct, frozen=True):
    """A message in OpenAI's format; `content` is text or a list of parts."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart | RefusalPart] | None = None
    refusal: str | None = None


class StreamOptions(Struct, frozen=True):
    """What a client wants to see at the end of a stream."""

    include_usage: bool | None = None


class SchemaFormat(Struct, frozen=True):
    """The JSON Schema that an answer has to be valid against."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
    schema: dict[str, Any] | None = None


class ResponseFormat(Struct, frozen=True):
    """What an answer has to be: text, any JSON object, or JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None


class ChatBody(Struct, frozen=True):
    """The body of `POST /v1/chat/completions`: the part of OpenAI's format that is acted on.

    metadata: `session` continues a session; `agent` is not here: `model` names it.
    What is null counts as absent. Sampling parameters are read past: they belong to the agent's
    configuration.
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


def decode(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
    """The body as the decoder's type.

    Raises:
        InvalidRequest: it is not JSON.
        InvalidField: a field is missing, unknown or of the wrong type.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _field_error(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if path := _lone_surrogate(body):
            raise InvalidField("The text has a lone surrogate.", field=path) from error
        said = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InvalidRequest(f"The body is not valid JSON: {said}") from error


def turn_request(body: TurnBody, *, key: str | None, settings: ServerSettings) -> TurnRequest:
    """The turn that the body asks for.

    Raises:
        InvalidField: a value is out of its limits.
    """
    return new_request(
        _text(body.text, "text", settings),
        session=_optional_identifier(body.session, "session"),
        agent=_optional_identifier(body.agent, "agent"),
        idempotency_key=key,
        background=bool(body.background),
    )


def chat_request(
    body: ChatBody, *, session: str | None, key: str | None, settings: ServerSettings
) -> TurnRequest:
    """The turn that a chat completion asks for: the last message is the customer's.

    session: from the header; `metadata.session` says the same. With a session, earlier messages
    are the store's business and those of the request are passed over; without one, they are the
    history.

    Raises:
        InvalidField: a value is out of its limits, or asks for what is not offered.
    """
    _reject_unsupported(body)
    if not 1 <= len(body.messages) <= settings.max_messages:
        raise InvalidField(f"There must be 1 to {settings.max_messages}.", field="messages")
    last = len(body.messages) - 1
    if body.messages[last].role != "user":
        raise InvalidField("The last message must be the user's.", field=f"messages[{last}].role")
    session = _optional_identifier(session or (body.metadata or {}).get("session"), "session")
    history = () if session else _history(body.messages[:last], settings)
    return new_request(
        _text(_content(body.messages[last]), f"messages[{last}].content", settings),
        session=session,
        agent=None if body.model == "auto" else _agent(body.model),
        idempotency_key=key,
        history=history,
        options=_options(body),
    )


def _reject_unsupported(body: ChatBody) -> None:
    """Refuse by name what would change the answer and is not offered."""
    if body.n not in (None, 1):
        raise InvalidField("Only one choice is offered.", field="n")
    for field, nothing, said in _UNSUPPORTED_FIELDS:
        value = getattr(body, field)
        if not any(type(value) is type(each) and value == each for each in nothing):
            raise InvalidField(said, field=field)


def _options(body: ChatBody) -> AnswerOptions | None:
    """What the client wants of the answer; None where it leaves that to the agent."""
    bounds = [each for each in (body.max_tokens, body.max_completion_tokens) if each is not None]
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    if len(stop) > _MAX_STOPS or not all(1 <= len(each) <= _MAX_STOP_CHARACTERS for each in stop):
        raise InvalidField(
            f"There may be {_MAX_STOPS} texts, each of 1 to {_MAX_STOP_CHARACTERS} characters.",
            field="stop",
        )
    output = _output(body.response_format)
    if not bounds and not stop and output is None:
        return None
    most = int(min(bounds)) if bounds else None
    return AnswerOptions(max_tokens=most, stop=tuple(stop), output=output)


def _output(wanted: ResponseFormat | None) -> OutputFormat | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return OutputFormat("answer", {"type": "object"})
    field = "response_format.json_schema"
    if wanted.json_schema is None or wanted.json_schema.schema is None:
        missing = field if wanted.json_schema is None else f"{field}.schema"
        raise InvalidField("Must be there with the type json_schema.", field=missing)
    from seawall.tools.json_schema import UnusableSchema, check_schema  # noqa: PLC0415 - seldom

    schema = wanted.json_schema.schema
    try:
        check_schema(schema)
    except UnusableSchema as fault:
        path = f"{field}.schema.{fault.path}".rstrip(".")
        raise InvalidField(fault.detail, field=path) from fault
    return OutputFormat(wanted.json_schema.name, schema)


def _agent(model: str) -> str:
    if not _identifier.match(model):
        raise UnknownAgent("There is no such model; /v1/models lists them.", field="model")
    return model


def idempotency_key(header: bytes | None) -> str | None:
    """The value of the header Idempotency-Key, if there is one.

    Raises:
        InvalidField: it is not 1 to 255 visible ASCII characters.
    """
    if header is None:
        return None
    key = header.decode("latin-1")
    if not _key.match(key):
        raise InvalidField(
            "The header must have 1 to 255 visible ASCII characters.", field="Idempotency-Key"
        )
    return key


def _history(messages: list[ChatMessage], settings: ServerSettings) -> tuple[Message, ...]:
    """What was said before, in a stateless client's own words.

    System messages are left out: instructions are the agent's, not the client's. So are tool
    messages: a client has none of ours to tell of.
    """
    said: list[Message] = []
    size = 0
    for index, message in enumerate(messages):
        text = _content(message)
        if message.role not in ("user", "assistant") or not text.strip():
            continue
        text = _text(text, f"messages[{index}].content", settings)
        size += len(text)
        if size > settings.max_body_bytes:
            raise BodyTooLarge("The messages are too long together.")
        said.append(UserMessage(text) if message.role == "user" else AssistantMessage(text))
    return tuple(said)


def _content(message: ChatMessage) -> str:
    content = message.content
    if isinstance(content, list):
        parts = [each.text if isinstance(each, TextPart) else each.refusal for each in content]
        content = "".join(filter(None, parts))
    return (content or "") + (message.refusal or "" if message.role == "assistant" else "")


def _text(text: str, field: str, settings: ServerSettings) -> str:
    if not text.strip():
        raise InvalidField("The text must not be empty.", field=field)
    if len(text) > settings.max_text_characters:
        raise InvalidField(
            f"The text may have {settings.max_text_characters} characters; it has {len(text)}.",
            field=field,
        )
    if "\0" in text:
        raise InvalidField("The text must not contain NUL characters.", field=field)
    return text


def _optional_identifier(value: str | None, field: str) -> str | None:
    if value is not None and not _identifier.match(value):
        raise InvalidField("Must be 1 to 64 letters, digits, underscores or hyphens.", field=field)
    return value


def _field_error(message: str) -> InvalidField:
    """Name the field that msgspec complains of."""
    where = _where.search(message)
    path = where[1] if where else ""
    named = _unknown.search(message) or _missing.search(message)
    if named:
        path = f"{path}.{named[1]}" if path else named[1]
    said = message[: where.start()] if where else message
    return InvalidField(f"{said}.", field=path or None)


def _lone_surrogate(body: bytes) -> str:
    """Where a body that could not be decoded has half a character; "" when that is not it.

    The standard library lets lone surrogates through, so it can tell where they are.
    """
    import json  # noqa: PLC0415 - only for a body that is wrong

    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    pending: list[tuple[str, object]] = [("", value)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            return path or "body"
        if isinstance(value, dict):
            pending += [(f"{path}.{key}".lstrip("."), each) for key, each in value.items()]
        elif isinstance(value, list):
            pending += [(f"{path}[{index}]", each) for index, each in enumerate(value)]
    return ""
