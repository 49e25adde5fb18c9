"""Questions of a server of tools to the user: a form of a few plain fields, or a page to visit.

What a server sends is foreign: of a schema only what describes plain fields is kept, and only
addresses that a browser can open safely are shown. Answers are checked by that schema.
"""

import re
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from seawall.errors import InvalidField
from seawall.turn import Question

__all__ = ["MAX_QUESTION_BYTES", "checked_answer", "read_question"]

MAX_QUESTION_BYTES = 16_384
"""Of one question, and of the answer to it."""

_MAX_MESSAGE_CHARACTERS = 4_000
_MAX_URL_CHARACTERS = 2_048
_MAX_FIELDS = 50
_MAX_NAME_CHARACTERS = 128
_url = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")  # RFC 3986; browsers differ on others
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class _Choice(Struct, omit_defaults=True):
    const: str
    title: str = ""


class _Items(Struct, omit_defaults=True, rename="camel"):
    type: Literal["string"] | UnsetType = UNSET
    enum: list[str] | UnsetType = UNSET
    any_of: list[_Choice] | UnsetType = UNSET


class _Field(Struct, omit_defaults=True, rename="camel"):
    """A field of a form; https://modelcontextprotocol.io/specification/2026-07-28/client/elicitation."""

    type: Literal["string", "number", "integer", "boolean", "array"]
    title: str = ""
    description: str = ""
    default: str | int | float | bool | list[str] | UnsetType | None = UNSET
    min_length: int | UnsetType = UNSET
    max_length: int | UnsetType = UNSET
    format: Literal["email", "uri", "date", "date-time"] | UnsetType = UNSET
    minimum: int | float | UnsetType = UNSET
    maximum: int | float | UnsetType = UNSET
    enum: list[str] | UnsetType = UNSET
    enum_names: list[str] | UnsetType = UNSET
    one_of: list[_Choice] | UnsetType = UNSET
    items: _Items | UnsetType = UNSET
    min_items: int | UnsetType = UNSET
    max_items: int | UnsetType = UNSET


class _Form(Struct):
    type: Literal["object"]
    properties: dict[str, _Field]
    required: list[str] = []


class _Asked(Struct, rename="camel"):
    message: str
    mode: Literal["form", "url"] = "form"
    requested_schema: _Form | None = None
    url: str = ""


def read_question(source: str, params: Raw, redact: tuple[str, ...] = ()) -> Question:
    """The question of an elicitation.

    Args:
        source: Name of the source that asks.
        params: Of `elicitation/create`.
        redact: As in `Question`.

    Raises:
        ValueError: It is not one that can be put before a user.
        RecursionError: It is nested too deeply.
    """
    if len(params) > MAX_QUESTION_BYTES:
        raise ValueError(f"it has more than {MAX_QUESTION_BYTES} bytes")
    asked = msgspec.json.decode(params, type=_Asked)
    if len(asked.message) > _MAX_MESSAGE_CHARACTERS:
        raise ValueError(f"its text has more than {_MAX_MESSAGE_CHARACTERS} characters")
    if asked.mode == "url":
        _check_url(asked.url)
        return Question(source, asked.message, url=asked.url)
    if asked.requested_schema is None:
        raise ValueError("it has no schema")
    return Question(source, asked.message, _plain_schema(asked.requested_schema), redact=redact)


def _plain_schema(form: _Form) -> dict[str, Any]:
    """What is kept of a schema.

    Raises:
        ValueError: It has too many fields, or not only plain ones.
    """
    if len(form.properties) > _MAX_FIELDS:
        raise ValueError(f"it has more than {_MAX_FIELDS} fields")
    if any(len(name) > _MAX_NAME_CHARACTERS for name in form.properties):
        raise ValueError(f"a name has more than {_MAX_NAME_CHARACTERS} characters")
    for name, each in form.properties.items():
        if each.type == "array" and each.items is UNSET:
            raise ValueError(f"{name[:40]!r} is a list of anything")
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: msgspec.to_builtins(each) for name, each in form.properties.items()},
        "required": [each for each in form.required if each in form.properties],
        "additionalProperties": False,
    }
    _validator(schema)
    for field in schema["properties"].values():
        if "default" in field and not _validator(field).is_valid(field["default"]):
            del field["default"]  # what the user leaves as it is has to fit
    return schema


def _check_url(url: str) -> None:
    if len(url) > _MAX_URL_CHARACTERS or not _url.fullmatch(url):
        raise ValueError("its URL is too long, or has characters that no URL has")
    parts = urlsplit(url)
    _ = parts.port  # raises ValueError if it is none
    local = parts.scheme == "http" and parts.hostname in _LOOPBACK
    if not (parts.scheme == "https" or local) or not parts.hostname or "@" in parts.netloc:
        raise ValueError("its URL is not an https address without a user name")


def checked_answer(question: Question, content: dict[str, object] | None) -> str:
    """The values of a form as JSON; `{}` for a page.

    Args:
        question: It was accepted.
        content: What the user has entered; None for nothing.

    Raises:
        InvalidField: It does not fit the question.
    """
    values = content or {}
    encoded = msgspec.json.encode(values)
    if len(encoded) > MAX_QUESTION_BYTES:
        raise InvalidField(f"It has more than {MAX_QUESTION_BYTES} bytes.", field="content")
    if question.schema is None:
        if values:
            raise InvalidField("A page to visit has no fields.", field="content")
        return "{}"
    try:
        _validator(question.schema).validate(values)
    except ValueError as error:
        path = ".".join(("content", *map(str, getattr(error, "instance_path", ()))))
        # The message of the validator repeats the value, which may be a secret.
        rule = ".".join(map(str, getattr(error, "schema_path", ())))
        raise InvalidField(f"It does not fit the form's schema: {rule}.", field=path) from None
    return encoded.decode()


def _validator(schema: dict[str, Any]) -> Any:  # noqa: ANN401 - its class is not public
    import jsonschema_rs  # noqa: PLC0415 - only where something is asked

    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True, offline=True)
