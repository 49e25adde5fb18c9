"""Bodies of chat completions: a request within its limits, or a problem that names the error."""

import json

import msgspec

from seawall.config import ServerSettings
from seawall.errors import InvalidRequest, UnknownAgent
from seawall.hosts.http.bodies import TurnBody, decode, turn_request
from seawall.hosts.http.chat_body import ChatBody, chat_request, returned_contents
from seawall.hosts.http.client_calls import effect_of, public_call_id
from seawall.hosts.http.client_tools import client_options
from seawall.tools.client import ClientSideTool, client_side_tool
from seawall.tools.json_schema import SchemaFault, ValueCheck
from seawall.tools.port import ToolError
from seawall.turn import AssistantMessage, ToolMessage, TurnRequest
from tests.fuzz.targets import ensure

__all__ = ["SEEDS", "one_input"]

_settings = ServerSettings()
_decode_chat = msgspec.json.Decoder(ChatBody)
_decode_turn = msgspec.json.Decoder(TurnBody)


def one_input(data: bytes) -> None:
    """Read the bytes as the body of a chat completion, and of a turn.

    Raises:
        AssertionError: a request is out of its bounds.
        Exception: reading it failed in another way than by a problem of 4xx.
    """
    for read in (_chat, _turn):
        try:
            request = read(data)
        except (InvalidRequest, UnknownAgent) as refused:
            ensure(400 <= refused.status < 500, "a client's mistake")
            ensure(msgspec.json.encode(refused.as_dict()), "it can be sent")
            continue
        _check(request)


def _chat(data: bytes) -> TurnRequest:
    body = decode(_decode_chat, data)
    for each in returned_contents(body, _settings):
        ensure(each.call, "a result without a call")
        effect = effect_of(each.call)
        ensure(not effect or public_call_id(effect) == each.call, "it is the id of another call")
    return chat_request(body, session=None, key=None, settings=_settings, instructed=True)


def _turn(data: bytes) -> TurnRequest:
    body = decode(_decode_turn, data)
    options = client_options(
        body.tools,
        body.tool_choice,
        parallel=body.parallel_tool_calls,
        instructions=body.instructions,
        settings=_settings,
    )
    return turn_request(body, key=None, settings=_settings, options=options)


def _check(request: TurnRequest) -> None:
    assert request.text.strip()
    assert len(request.text) <= _settings.max_text_characters
    assert "\0" not in request.text
    assert 1 <= len(request.session) <= 64
    assert request.agent is None or 1 <= len(request.agent) <= 64
    assert len(request.history) < _settings.max_messages
    waiting: set[str] = set()
    for message in request.history:
        if isinstance(message, ToolMessage):
            assert message.call_id in waiting
            waiting.remove(message.call_id)
            continue
        assert not waiting
        calls = message.tool_calls if isinstance(message, AssistantMessage) else ()
        assert message.text.strip() or calls
        waiting = {each.id for each in calls}
        assert len(waiting) == len(calls)
    assert not waiting
    options = request.options
    if options is not None:
        assert options.max_tokens is None or options.max_tokens >= 1
        assert len(options.tools) <= 128
        assert len({each.name for each in options.tools}) == len(options.tools)
        for tool in options.tools:
            _call(client_side_tool(tool, seconds=1.0))
        assert len(options.stop) <= 4
        assert all(options.stop)
        if options.output is not None:
            check = ValueCheck(options.output.schema)
            for value in (None, {"a": [1]}, "a"):
                try:
                    check(value)
                except SchemaFault as fault:
                    ensure(str(fault), "it says nothing")
    kept = msgspec.json.encode(request)  # as a background turn is
    assert msgspec.json.decode(kept, type=TurnRequest) == request


def _call(tool: ClientSideTool) -> None:
    for arguments in ("", "null", "{}", '{"a": [1]}', "[]", "{"):
        try:
            prepared = tool.prepare(arguments)
        except ToolError as refusal:
            ensure(str(refusal), "it says nothing")
        else:
            ensure(isinstance(prepared.values, dict), "no object")


def _chats(**fields: object) -> bytes:
    body = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
    return json.dumps(body | fields).encode()


_schema = {
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/d"}},
    "required": ["a"],
    "$defs": {"d": {"anyOf": [{"type": "integer", "minimum": 1}, {"enum": ["x", None]}]}},
}
SEEDS: list[bytes] = [
    b"",
    b"{}",
    b'{"text": "hi"}',
    b'{"text": "hi", "session": "s", "agent": "a", "stream": null, "background": true}',
    _chats(),
    _chats(stream=True, stream_options={"include_usage": None}, metadata={"session": "s"}),
    _chats(max_tokens=5, max_completion_tokens=None, stop=["a", "b"], n=1),
    _chats(response_format={"type": "json_object"}),
    _chats(
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": _schema}}
    ),
    _chats(
        messages=[
            {"role": "system", "content": "x"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        ]
    ),
    _chats(tools=[{}], functions=[], function_call="none", logprobs=False, modalities=["text"]),
    _chats(
        tools=[{"type": "function", "function": {"name": "f", "parameters": _schema}}],
        tool_choice={"type": "function", "function": {"name": "f"}},
        parallel_tool_calls=False,
    ),
    _chats(
        tools=[
            {"type": "function", "function": {"name": "f", "strict": True, "parameters": _schema}}
        ],
        messages=[
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "tool_calls": [
                    {
                        "id": "call_1_ab_s",
                        "type": "function",
                        "function": {"name": "f", "arguments": "{}"},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_1_ab_s", "content": "x"},
            {"role": "user", "content": "and?"},
        ],
    ),
    b'{"text": "hi", "tools": [{"name": "f", "strict": true}], "tool_choice": "f"}',
]
