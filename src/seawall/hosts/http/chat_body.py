"""The body of a chat completion, in OpenAI's format: decoded, validated, and as a turn request."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, structs

from seawall.config import ServerSettings
from seawall.errors import BodyTooLarge, InvalidField, UnknownAgent
from seawall.hosts.http.bodies import checked_text, identifier, is_identifier
from seawall.hosts.http.chat_tools import ChatCall, ChatTool, History, tool_options
from seawall.requests import new_request
from seawall.turn import (
    AnswerOptions,
    AssistantMessage,
    Message,
    OutputFormat,
    TurnRequest,
    UserMessage,
)

__all__ = [
    "IGNORED_FIELDS",
    "REFUSED_FIELDS",
    "ChatBody",
    "ChatMessage",
    "FilePart",
    "ImagePart",
    "ReturnedContent",
    "answer_options",
    "chat_request",
    "has_files",
    "instructions_field",
    "returned_contents",
]

# In JSON both 5 and 5.0 are integers.
_Count = Annotated[float, Meta(ge=1, le=1_000_000_000, multiple_of=1)]

_MAX_STOPS = 4  # as in OpenAI's API
_MAX_STOP_CHARACTERS = 256
_LEGACY = "The legacy form is not offered; use tools."
_INSTRUCTING = ("system", "developer")
# Fields that are rejected by name, with the values that have no effect and are accepted.
_UNSUPPORTED_FIELDS: tuple[tuple[str, tuple[object, ...], str], ...] = (
    ("functions", (None, []), _LEGACY),
    ("function_call", (None, "none"), _LEGACY),
    ("logprobs", (None, False), "Log probabilities are not offered."),
    ("top_logprobs", (None, 0), "Log probabilities are not offered."),
    ("modalities", (None, [], ["text"]), "Only text is offered."),
    ("audio", (None,), "Audio is not offered."),
    ("moderation", (None,), "Moderation is not offered."),
    (
        "web_search_options",
        (None,),
        "Searching is a tool, and tools of the server are the agents'.",
    ),
)
REFUSED_FIELDS = ("n", *(name for name, _, _ in _UNSUPPORTED_FIELDS))
"""Fields that are refused by name where they would change the answer."""

IGNORED_FIELDS = (
    *("frequency_penalty", "logit_bias", "prediction", "presence_penalty", "prompt_cache_key"),
    *("prompt_cache_options", "prompt_cache_retention", "reasoning_effort", "safety_identifier"),
    *("seed", "service_tier", "store", "temperature", "top_p", "user", "verbosity"),
)
"""Fields that are read past: what they set belongs to the agent, its model or the server."""


class TextPart(Struct, frozen=True, tag="text", tag_field="type"):
    """A part of a message's content."""

    text: str | None = None


class RefusalPart(Struct, frozen=True, tag="refusal", tag_field="type"):
    """A part with an assistant's reason for not answering."""

    refusal: str | None = None


class ImageAddress(Struct, frozen=True):
    """A data URL; how closely a model looks at an image is not chosen by clients."""

    url: str


class ImagePart(Struct, frozen=True, tag="image_url", tag_field="type"):
    """A part of a user's message: an image."""

    image_url: ImageAddress


class ChatFile(Struct, frozen=True):
    """A file by its bytes, or by the id of an upload."""

    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class FilePart(Struct, frozen=True, tag="file", tag_field="type"):
    """A part of a user's message: a file."""

    file: ChatFile


class ChatMessage(Struct, frozen=True):
    """A message in OpenAI's format; `content` is text or a list of parts."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart | RefusalPart | ImagePart | FilePart] | None = None
    refusal: str | None = None
    tool_calls: list[ChatCall] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The text of its content."""
        content = self.content
        if isinstance(content, list):
            texts = (
                each.text if isinstance(each, TextPart) else each.refusal
                for each in content
                if isinstance(each, TextPart | RefusalPart)
            )
            content = "".join(filter(None, texts))
        return (content or "") + (self.refusal or "" if self.role == "assistant" else "")


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
    `IGNORED_FIELDS` are read past.
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
    tools: list[ChatTool] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    functions: Any = None
    function_call: Any = None
    logprobs: Any = None
    top_logprobs: Any = None
    modalities: Any = None
    audio: Any = None
    moderation: Any = None
    web_search_options: Any = None


class ReturnedContent(Struct, frozen=True):
    """The result of a call, in the last messages of a request.

    Attributes:
        call: Id of the call, as sent.
        content: The result.
        field: Path of the message.
    """

    call: str
    content: str
    field: str


def returned_contents(body: ChatBody, settings: ServerSettings) -> list[ReturnedContent]:
    """The results with which the messages end; empty if the last message is no result.

    Args:
        body: Of `POST /v1/chat/completions`.
        settings: Their limits apply.

    Raises:
        InvalidField: There are too many messages, or a result names no call or one twice, or has
            files.
    """
    _check_count(body, settings)
    found: dict[str, ReturnedContent] = {}
    for index in range(len(body.messages) - 1, -1, -1):
        message = body.messages[index]
        if message.role != "tool":
            break
        field = f"messages[{index}]"
        if not message.tool_call_id or message.tool_call_id in found:
            raise InvalidField(
                "Must be the id of a call that has no other result.", field=f"{field}.tool_call_id"
            )
        if has_files(message):
            raise InvalidField(
                "Only messages of the user may have files.", field=f"{field}.content"
            )
        returned = ReturnedContent(message.tool_call_id, message.text, field)
        found[message.tool_call_id] = returned
    return list(found.values())[::-1]


def has_files(message: ChatMessage) -> bool:
    """Whether a message has parts that are files."""
    return isinstance(message.content, list) and any(
        isinstance(each, ImagePart | FilePart) for each in message.content
    )


def instructions_field(body: ChatBody) -> str | None:
    """Path of the first message with instructions; None if there is none."""
    for index, message in enumerate(body.messages):
        if message.role in _INSTRUCTING and message.text.strip():
            return f"messages[{index}].role"
    return None


def chat_request(
    body: ChatBody,
    *,
    session: str | None,
    key: str | None,
    settings: ServerSettings,
    instructed: bool = False,
) -> TurnRequest:
    """The turn request of a chat completion, whose last message is the user's.

    With a session, the history comes from the store and earlier messages are ignored; without
    one, they are the history.

    Args:
        body: Of `POST /v1/chat/completions`.
        session: From the header; the same as `metadata.session`.
        key: The idempotency key.
        settings: Their limits apply.
        instructed: As of `answer_options`.

    Raises:
        InvalidField: A value is outside its limits, or requests an unsupported feature.
    """
    options = answer_options(body, settings, instructed=instructed)
    _check_count(body, settings)
    last = len(body.messages) - 1
    if body.messages[last].role != "user":
        raise InvalidField("The last message must be the user's.", field=f"messages[{last}].role")
    session = identifier(session or (body.metadata or {}).get("session"), "session")
    history = () if session else _history(body.messages[:last], settings)
    return new_request(
        checked_text(
            body.messages[last].text,
            f"messages[{last}].content",
            settings,
            required=not has_files(body.messages[last]),
        ),
        session=session,
        agent=None if body.model == "auto" else _agent(body.model),
        idempotency_key=key,
        history=history,
        options=options,
    )


def _check_count(body: ChatBody, settings: ServerSettings) -> None:
    if not 1 <= len(body.messages) <= settings.max_messages:
        raise InvalidField(f"There must be 1 to {settings.max_messages}.", field="messages")


def _reject_unsupported(body: ChatBody) -> None:
    """Reject by name what would change the answer and is not supported."""
    if body.n not in (None, 1):
        raise InvalidField("Only one choice is supported.", field="n")
    for field, accepted, reason in _UNSUPPORTED_FIELDS:
        value = getattr(body, field)
        if not any(type(value) is type(each) and value == each for each in accepted):
            raise InvalidField(reason, field=field)


def answer_options(
    body: ChatBody, settings: ServerSettings, *, instructed: bool = False
) -> AnswerOptions | None:
    """The client's options for the answer; None if it has none.

    Args:
        body: Of `POST /v1/chat/completions`.
        settings: Their limits apply.
        instructed: Whether some agent does not ignore instructions of clients.

    Raises:
        InvalidField: A value is outside its limits, or requests an unsupported feature.
    """
    _reject_unsupported(body)
    bounds = [each for each in (body.max_tokens, body.max_completion_tokens) if each is not None]
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    if len(stop) > _MAX_STOPS or not all(1 <= len(each) <= _MAX_STOP_CHARACTERS for each in stop):
        raise InvalidField(
            f"Must be at most {_MAX_STOPS} texts, each of 1 to {_MAX_STOP_CHARACTERS} characters.",
            field="stop",
        )
    options = tool_options(body.tools, body.tool_choice, parallel=body.parallel_tool_calls)
    options = structs.replace(
        options,
        max_tokens=int(min(bounds)) if bounds else None,
        stop=tuple(stop),
        output=_output(body.response_format),
        instructions=_instructions(body, settings) if instructed else "",
    )
    if options == AnswerOptions() or (options.tool_choice == "none" and not options.tools):
        plain = structs.replace(options, tool_choice="auto")
        return None if plain == AnswerOptions() else plain
    return options


def _instructions(body: ChatBody, settings: ServerSettings) -> str:
    texts: list[str] = []
    for index, message in enumerate(body.messages):
        text = message.text
        if message.role in _INSTRUCTING and text.strip():
            texts.append(checked_text(text, f"messages[{index}].content", settings))
    return checked_text("\n\n".join(texts), "messages", settings) if texts else ""


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

    System messages are left out: see `answer_options`. Calls are those of the client's own tools,
    each with its result.
    """
    history: list[Message] = []
    calls = History()
    size = 0
    for index, message in enumerate(messages):
        field, text = f"messages[{index}]", message.text
        if message.role in _INSTRUCTING:
            continue
        if message.role == "function":
            raise InvalidField(_LEGACY, field=f"{field}.role")
        if message.role == "user" and text.strip():
            text = checked_text(text, f"{field}.content", settings)
        elif "\0" in text:
            raise InvalidField(
                "The text must not contain NUL characters.", field=f"{field}.content"
            )
        size += len(text)
        if size > settings.max_body_bytes:
            raise BodyTooLarge("The messages are too long together.")
        if message.role == "tool":
            history.append(calls.returned(message.tool_call_id, text, field))
            continue
        calls.end()
        if message.role == "assistant" and message.tool_calls:
            made = calls.called(message.tool_calls, f"{field}.tool_calls")
            history.append(AssistantMessage(text, made))
        elif text.strip() or (message.role == "user" and has_files(message)):
            history.append(UserMessage(text) if message.role == "user" else AssistantMessage(text))
    calls.end()
    return tuple(history)
