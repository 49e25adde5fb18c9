"""Bodies of chat completions: a request within its limits, or a problem that names the error."""

import json

import msgspec

from seawall.config import ServerSettings
from seawall.errors import InvalidRequest, UnknownAgent
from seawall.hosts.http.bodies import TurnBody, decode, turn_request
from seawall.hosts.http.chat_body import ChatBody, chat_request
from seawall.tools.json_schema import SchemaFault, ValueCheck
from seawall.turn import ToolMessage, TurnRequest
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
    return chat_request(body, session=None, key=None, settings=_settings)


def _turn(data: bytes) -> TurnRequest:
    return turn_request(decode(_decode_turn, data), key=None, settings=_settings)


def _check(request: TurnRequest) -> None:
    assert request.text.strip()
    assert len(request.text) <= _settings.max_text_characters
    assert "\0" not in request.text
    assert 1 <= len(request.session) <= 64
    assert request.agent is None or 1 <= len(request.agent) <= 64
    assert len(request.history) < _settings.max_messages
    for message in request.history:
        assert not isinstance(message, ToolMessage)
        assert message.text.strip()
    options = request.options
    if options is not None:
        assert options.max_tokens is None or options.max_tokens >= 1
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
]
