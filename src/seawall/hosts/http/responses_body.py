"""The body of OpenAI's `POST /v1/responses`: decoded, validated, and as a chat completion.

Both formats ask for the same things in other words, so limits and checks are those of `chat_body`;
`renamed` gives a field its name in this format.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from seawall.config import ServerSettings
from seawall.errors import InvalidField, Problem, UnknownAgent
from seawall.hosts.http.chat_body import ChatBody, ResponseFormat, SchemaFormat
from seawall.hosts.http.chat_tools import ChatTool
from seawall.hosts.http.client_tools import ToolDefinition
from seawall.hosts.http.conversations import Answer
from seawall.hosts.http.responses_ids import response_key
from seawall.hosts.http.responses_input import InputReader, converted

__all__ = [
    "ACCEPTED_FIELDS",
    "DEFAULTS",
    "INCLUDED",
    "Asked",
    "ResponsesBody",
    "asked",
    "echo",
    "renamed",
]

# In JSON both 5 and 5.0 are integers.
_Count = Annotated[float, Meta(ge=1, le=1_000_000_000, multiple_of=1)]
_Id = Annotated[str, Meta(min_length=1, max_length=256)]
_Label = Annotated[str, Meta(max_length=512)]
_Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]],
    Meta(max_length=16),
]

_OF_AGENT = "This belongs to the agent."
_OF_MODEL = "This belongs to the configuration of the agent's model."
# Fields that are rejected by name, with the values that have no effect and are accepted.
_UNSUPPORTED_FIELDS: tuple[tuple[str, tuple[object, ...], str], ...] = (
    ("access_programs", (None,), "Access programs are not offered."),
    ("background_options", (None, {}), "Completion windows are not offered."),
    ("context_management", (None, []), f"Compaction is not requested here. {_OF_AGENT}"),
    ("image", (None, {}), f"Images are not compressed by a request. {_OF_MODEL}"),
    ("max_tool_calls", (None,), f"The bound of tool calls is not set by a request. {_OF_AGENT}"),
    ("moderation", (None,), "Moderation is not offered."),
    ("prompt", (None,), f"Prompt templates are not offered. {_OF_AGENT}"),
    ("top_logprobs", (None, 0), "Log probabilities are not offered."),
    ("truncation", (None, "auto", "disabled"), "The agent's window decides what its model reads."),
    ("service_tier", (None, "auto", "default"), _OF_MODEL),
)
SERVER_LABEL = "seawall"
"""Of the agents' own tools."""

INCLUDED = (
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
)
"""What a request may ask to be included: members of items that no response has here."""

ACCEPTED_FIELDS = (
    *("frequency_penalty", "presence_penalty", "prompt_cache_options", "prompt_cache_retention"),
    *("reasoning", "temperature", "top_p"),
)
"""Fields that are read past: what they set belongs to the agent, its model or the server."""


class FormatBody(Struct, frozen=True):
    """The format of a text."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None


class TextBody(Struct, frozen=True, forbid_unknown_fields=True):
    """What a text is to be; how verbose it is belongs to the agent."""

    format: FormatBody | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class StreamOptionsBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Options of a stream."""

    include_obfuscation: Literal[False] | None = None


class NamedConversation(Struct, frozen=True):
    """A conversation."""

    id: _Id


class OwnToolsBody(Struct, frozen=True, forbid_unknown_fields=True):
    """The declaration that a client shows requests for approval of calls of the agents' own tools.

    Which tools there are, and which need approval, is decided by the agents.
    """

    type: Literal["mcp"]
    server_label: str
    server_url: str | None = None
    server_description: str | None = None
    require_approval: Any = None


class ResponsesBody(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /v1/responses`. A null field counts as absent.

    `model` names the agent. `ACCEPTED_FIELDS` are read past; `metadata`, `prompt_cache_key`,
    `safety_identifier` and `user` are repeated in the answer, and nothing else.
    """

    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    previous_response_id: _Id | None = None
    conversation: _Id | NamedConversation | None = None
    stream: bool | None = None
    stream_options: StreamOptionsBody | None = None
    background: bool | None = None
    store: bool | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: _Count | None = None
    text: TextBody | None = None
    include: Annotated[list[str], Meta(max_length=32)] | None = None
    metadata: _Metadata | None = None
    prompt_cache_key: _Label | None = None
    safety_identifier: _Label | None = None
    user: _Label | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    reasoning: dict[str, Any] | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    access_programs: Any = None
    background_options: Any = None
    context_management: Any = None
    image: Any = None
    max_tool_calls: Any = None
    moderation: Any = None
    prompt: Any = None
    service_tier: Any = None
    top_logprobs: Any = None
    truncation: Any = None

    @property
    def conversation_id(self) -> str | None:
        """Id of the conversation that is named."""
        named = self.conversation
        return named.id if isinstance(named, NamedConversation) else named

    @property
    def session(self) -> str | None:
        """Id of the session that it continues, which has the history; None for a new one.

        Raises:
            TurnNotFound: `previous_response_id` is not the id of a response.
        """
        if self.previous_response_id is not None:
            return response_key(self.previous_response_id, "previous_response_id").session
        return self.conversation_id


class Asked(Struct, frozen=True):
    """What a body asks for.

    Attributes:
        approves: Whether the client knows requests for approval.
        chat: The same as a chat completion.
        paths: Of each message, where it and its content are in the body.
        answers: Decisions about calls that wait; then there is nothing else but results.
    """

    approves: bool
    chat: ChatBody
    paths: tuple[tuple[str, str], ...]
    answers: tuple[Answer, ...]


DEFAULTS: dict[str, Any] = {
    "object": "response",
    "created_at": 0,
    "completed_at": None,
    "incomplete_details": None,
    "instructions": None,
    "model": "",
    "previous_response_id": None,
    "tools": [],
    "tool_choice": "auto",
    "truncation": "auto",
    "parallel_tool_calls": True,
    "text": {"format": {"type": "text"}},
    "max_output_tokens": None,
    "max_tool_calls": None,
    "store": True,
    "background": False,
    "metadata": {},
    "safety_identifier": None,
    "prompt_cache_key": None,
    "user": None,
    # What the format requires; what the model does is set by the agent.
    "temperature": 1.0,
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
    "reasoning": {"effort": None, "summary": None},
    "service_tier": "default",
}
"""What a response says of a request that is not known any more."""


def asked(
    body: ResponsesBody, settings: ServerSettings, referenced: Mapping[str, dict[str, Any]]
) -> Asked:
    """What a body asks for.

    Args:
        body: Of `POST /v1/responses`.
        settings: Their limits apply.
        referenced: The items that its input refers to, by their ids.

    Raises:
        InvalidField: A value is outside its limits, or requests an unsupported feature.
    """
    _reject_unsupported(body)
    reader = InputReader(session=body.session, referenced=referenced)
    if body.instructions is not None and body.instructions.strip():
        reader.instruct(body.instructions)
    reader.read(body.input, most=settings.max_messages)
    requested = body.text.format if body.text is not None else None
    chat = ChatBody(
        model=body.model,
        messages=reader.messages,
        max_completion_tokens=body.max_output_tokens,
        response_format=None if requested is None else _response_format(requested),
        tools=_tools(body.tools or []),
        tool_choice=_tool_choice(body.tool_choice),
        parallel_tool_calls=body.parallel_tool_calls,
    )
    approves = any(each.get("type") == "mcp" for each in body.tools or ())
    return Asked(approves, chat, tuple(reader.paths), tuple(reader.answers))


def echo(body: ResponsesBody) -> dict[str, Any]:
    """What the answer repeats of a request."""
    repeated = {
        "model": body.model,
        "previous_response_id": body.previous_response_id,
        "tools": list(map(_echoed_tool, body.tools or ())),
        "tool_choice": body.tool_choice or "auto",
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "text": {"format": _echoed_format(body)},
        "max_output_tokens": body.max_output_tokens and int(body.max_output_tokens),
        "store": body.store is not False,
        "background": bool(body.background),
        "metadata": body.metadata or {},
        "safety_identifier": body.safety_identifier,
        "prompt_cache_key": body.prompt_cache_key,
        "user": body.user,
    }
    return DEFAULTS | repeated


def _echoed_tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = {"description": None, "parameters": None, "strict": False}
    return function | tool if tool.get("type") == "function" else tool


def _echoed_format(body: ResponsesBody) -> dict[str, Any]:
    requested = body.text.format if body.text is not None else None
    if requested is None or requested.type != "json_schema":
        return {"type": requested.type if requested is not None else "text"}
    return {
        "type": "json_schema",
        "name": requested.name,
        "description": None,
        "schema": requested.schema,
        "strict": True,
    }


_message = re.compile(r"messages\[(\d+)\]\.?(.*)\Z")
_renamings: tuple[tuple[str, str], ...] = (
    ("response_format.json_schema", "text.format"),
    ("response_format", "text.format"),
    ("max_completion_tokens", "max_output_tokens"),
    ("tool_choice.allowed_tools", "tool_choice"),
    ("messages", "input"),
    ("session", "conversation"),
)


def renamed(problem: Problem, asked: Asked | None) -> Problem:
    """A problem whose field has its name in this format.

    Args:
        problem: As of a chat completion.
        asked: What the body asks for; None if it was not read to its end.
    """
    field = problem.field
    if field is None:
        return problem
    if isinstance(problem, UnknownAgent):
        field = "model"
    elif (found := _message.match(field)) is not None and asked is not None:
        where, content = asked.paths[int(found[1])]
        rest = found[2]
        if rest.startswith("content"):
            part = rest.removeprefix("content").replace(".image_url.url", ".image_url")
            field = content + part.replace(".file", "", 1)
        elif rest == "tool_call_id":
            field = f"{where}.call_id"
        elif rest.startswith("tool_calls"):
            field = where
        else:
            field = f"{where}.{rest}" if rest and where.startswith("input[") else where
    elif field.startswith("tools["):
        field = field.replace(".function", "", 1)
    else:
        for before, after in _renamings:
            if field == before or field.startswith(f"{before}."):
                field = after + field.removeprefix(before)
                break
    problem.field = field
    return problem


def _reject_unsupported(body: ResponsesBody) -> None:
    """Reject by name what would change the answer and is not supported."""
    for field, accepted, reason in _UNSUPPORTED_FIELDS:
        value = getattr(body, field)
        if not any(type(value) is type(each) and value == each for each in accepted):
            raise InvalidField(reason, field=field)
    for index, each in enumerate(body.include or ()):
        if each not in INCLUDED:
            raise InvalidField("This is not offered.", field=f"include[{index}]")
    if body.previous_response_id is not None and body.conversation is not None:
        raise InvalidField(
            "A response continues another one, or a conversation; not both.", field="conversation"
        )
    if body.store is False:
        for field in ("background", "previous_response_id", "conversation"):
            if getattr(body, field):
                raise InvalidField("This needs a response that is stored.", field=field)


def _response_format(requested: FormatBody) -> ResponseFormat:
    if requested.type != "json_schema":
        return ResponseFormat(requested.type)
    if requested.name is None:
        raise InvalidField("Required with the type json_schema.", field="text.format.name")
    described = {"name": requested.name, "schema": requested.schema}
    return ResponseFormat("json_schema", converted(described, SchemaFormat, "text.format"))


def _tools(tools: list[dict[str, Any]]) -> list[ChatTool]:
    made = []
    for index, each in enumerate(tools):
        kind, path = each.get("type"), f"tools[{index}]"
        if kind == "mcp":
            declared = converted(each, OwnToolsBody, path)
            if declared.server_label != SERVER_LABEL:
                raise InvalidField(
                    f"Only {SERVER_LABEL} is offered: the agents' own tools.",
                    field=f"{path}.server_label",
                )
            continue
        if kind != "function":
            raise InvalidField(
                "Only tools of the type function are offered; others belong to the agents.",
                field=f"{path}.type",
            )
        made.append(ChatTool("function", converted(each, ToolDefinition, path)))
    return made


def _tool_choice(choice: str | dict[str, Any] | None) -> object:
    """The choice in the format of chat completions, where a function is an object of its own."""
    if not isinstance(choice, dict):
        return choice
    if choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    if choice.get("type") == "allowed_tools":
        listed = choice.get("tools")
        tools = [_tool_choice(each) for each in listed] if isinstance(listed, list) else listed
        mode = choice.get("mode")
        return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}
    return choice
