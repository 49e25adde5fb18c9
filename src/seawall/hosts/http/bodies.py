"""Request bodies: decodes and validates them; errors name the field."""

import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from seawall.config import ServerSettings
from seawall.errors import InvalidField, InvalidRequest
from seawall.requests import new_request
from seawall.turn import AnswerOptions, TurnRequest

__all__ = [
    "IDENTIFIER_PATTERN",
    "KEY_PATTERN",
    "AttachedFile",
    "TurnBody",
    "checked_key",
    "checked_text",
    "decode",
    "field_error",
    "idempotency_key",
    "identifier",
    "is_identifier",
    "turn_request",
]

T = TypeVar("T")

# As in JSON Schema.
IDENTIFIER_PATTERN = "^[A-Za-z0-9_-]{1,64}$"
KEY_PATTERN = "^[\\x21-\\x7E]{1,255}$"

_MAX_NESTING = 128
_TOO_DEEP = f"The body is nested too deeply: at most {_MAX_NESTING} levels."
_JSON_TEXT = rb'(?s)"[^"\\]*(?:\\.[^"\\]*)*"'
_NO_BRACKETS = bytes(set(range(256)).difference(b"[]{}"))
_STEPS = [(each in b"[{") - (each in b"]}") for each in range(256)]

_WHERE = " - at `$"
_NAMED = ("Object contains unknown field `", "Object missing required field `")
_MAX_NAME_CHARACTERS = 200
_identifier = re.compile(IDENTIFIER_PATTERN[:-1] + r"\Z")
_key = re.compile(KEY_PATTERN[:-1] + r"\Z")


class AttachedFile(Struct, frozen=True, forbid_unknown_fields=True):
    """A file of a turn: the id of an upload, or its bytes.

    Attributes:
        file: Of `POST /v1/files`, or of this session.
        data: A data URL in Base64.
        name: As the client calls it.
    """

    file: str | None = None
    data: str | None = None
    name: str | None = None


class TurnBody(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /v1/turns`. A null field counts as absent.

    Attributes:
        text: The user's message; it may be empty with attachments.
        session: The session to continue.
        agent: The agent that answers.
        stream: Whether the response is a stream of events.
        background: The turn is completed even if the client disconnects; without `stream` the
            response is 202, and the events are available at /v1/turns/{id}/events.
        attachments: Files of the message.
        tools: Tools that the client runs, for agents that take them.
        tool_choice: Of the first model call: "auto", "none", "required", or the name of a tool.
        parallel_tool_calls: Whether one step may have several calls.
        instructions: Of the client, for agents that take them.
    """

    text: str
    session: str | None = None
    agent: str | None = None
    stream: bool | None = None
    background: bool | None = None
    attachments: list[AttachedFile] | None = None
    tools: list[Any] | None = None
    tool_choice: str | None = None
    parallel_tool_calls: bool | None = None
    instructions: str | None = None


def decode(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
    """Decode a body.

    What is nested deeper than `_MAX_NESTING` is refused: it might be decoded here and be too deep
    for what encodes it later, on a fuller stack.

    Args:
        decoder: Of the type of the body.
        body: JSON.

    Raises:
        InvalidRequest: The body is not JSON, or nested too deeply.
        InvalidField: A field is missing, unknown or of the wrong type.
    """
    try:
        value = decoder.decode(body)
    except msgspec.ValidationError as error:
        raise field_error(str(error)) from error
    except RecursionError as error:
        raise InvalidRequest(_TOO_DEEP) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if path := _lone_surrogate(body):
            raise InvalidField("The text has a lone surrogate.", field=path) from error
        raise InvalidRequest(f"The body is not valid JSON: {error}") from error
    if body.count(b"[") + body.count(b"{") > _MAX_NESTING and _is_deep(body):
        raise InvalidRequest(_TOO_DEEP)
    return value


def _is_deep(body: bytes) -> bool:
    """Whether JSON is nested deeper than `_MAX_NESTING`; of other bytes it may say either."""
    brackets = re.sub(_JSON_TEXT, b"", body).translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > _MAX_NESTING


def turn_request(
    body: TurnBody,
    *,
    key: str | None,
    settings: ServerSettings,
    options: AnswerOptions | None = None,
) -> TurnRequest:
    """The turn request of a body.

    Args:
        body: Of `POST /v1/turns`.
        key: The idempotency key.
        settings: Their limits apply.
        options: What the client brings to the turn.

    Raises:
        InvalidField: A value is outside its limits.
    """
    return new_request(
        checked_text(body.text, "text", settings, required=not body.attachments),
        session=identifier(body.session, "session"),
        agent=identifier(body.agent, "agent"),
        idempotency_key=key,
        background=bool(body.background),
        options=options,
    )


def idempotency_key(header: bytes | None) -> str | None:
    """The value of the header Idempotency-Key, if there is one.

    Raises:
        InvalidField: The value is not 1 to 255 visible ASCII characters.
    """
    return None if header is None else checked_key(header.decode("latin-1"), "Idempotency-Key")


def checked_key(key: str, field: str) -> str:
    """The idempotency key in a field.

    Args:
        key: As sent.
        field: Its name.

    Raises:
        InvalidField: The key is not 1 to 255 visible ASCII characters.
    """
    if not _key.match(key):
        raise InvalidField("Must be 1 to 255 visible ASCII characters.", field=field)
    return key


def checked_text(text: str, field: str, settings: ServerSettings, *, required: bool = True) -> str:
    """The text of a message, if it is within the limits.

    Args:
        text: As sent.
        field: Its path in the body.
        settings: Their limits apply.
        required: Whether it may not be empty.

    Raises:
        InvalidField: It is empty, too long, or has a NUL character.
    """
    if required and not text.strip():
        raise InvalidField("The text must not be empty.", field=field)
    if len(text) > settings.max_text_characters:
        raise InvalidField(
            f"Must be at most {settings.max_text_characters} characters; there are {len(text)}.",
            field=field,
        )
    if "\0" in text:
        raise InvalidField("The text must not contain NUL characters.", field=field)
    return text


def is_identifier(value: str) -> bool:
    """Whether a value can be the id of a session or the name of an agent."""
    return _identifier.match(value) is not None


def identifier(value: str | None, field: str) -> str | None:
    """The identifier in a field, which may be absent.

    Args:
        value: As sent.
        field: Its path in the body.

    Raises:
        InvalidField: It is not one.
    """
    if value is not None and not is_identifier(value):
        raise InvalidField("Must be 1 to 64 letters, digits, underscores or hyphens.", field=field)
    return value


def field_error(message: str) -> InvalidField:
    """Extract the field from a message of msgspec.

    The message repeats names that the client has chosen, so it is not searched by patterns.
    """
    detail, mark, where = message.rpartition(_WHERE)
    if not mark or (detail.startswith(_NAMED) and detail.count("`") == 1):  # it is in a name
        detail, where = message, ""
    path = where.removesuffix("`").removeprefix(".")
    for before in _NAMED:
        if detail.startswith(before):
            name = detail.removeprefix(before).partition("`")[0]
            if len(name) > _MAX_NAME_CHARACTERS:
                name = name[:_MAX_NAME_CHARACTERS] + "…"
            path = f"{path}.{name}" if path else name
            detail = f"{before}{name}`"
    return InvalidField(f"{detail}.", field=path or None)


def _lone_surrogate(body: bytes) -> str:
    """The path of a lone surrogate in a body that could not be decoded; "" if there is none.

    The standard library accepts lone surrogates, so it can find them. Beside the value, memory is
    used for one path only, as a path may repeat long names that the client has chosen.
    """
    import json  # noqa: PLC0415 - only for an invalid body

    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    surrogate = re.compile("[\ud800-\udfff]")
    names: list[str] = []  # of the value whose members are walked, and of those around it
    walks = [iter((("", value),))]
    while walks:
        name, value = next(walks[-1], (None, None))
        if name is None:
            walks.pop()
            del names[-1:]
        elif isinstance(value, str):
            if surrogate.search(value):
                return _path([*names, name])
        elif isinstance(value, dict | list):
            names.append(name)
            if isinstance(value, dict) and any(map(surrogate.search, value)):
                return _path(names)
            walks.append(_members(value))
    return ""


def _members(value: dict[str, object] | list[object]) -> Iterator[tuple[str, object]]:
    """The members of a value with their names in a path."""
    if isinstance(value, dict):
        return ((f".{key}", each) for key, each in value.items())
    return ((f"[{index}]", each) for index, each in enumerate(value))


def _path(names: list[str]) -> str:
    """The path of these names; only the beginning of a long one."""
    path = "".join(each[:_MAX_NAME_CHARACTERS] for each in names)
    return path.removeprefix(".")[:_MAX_NAME_CHARACTERS] or "body"
