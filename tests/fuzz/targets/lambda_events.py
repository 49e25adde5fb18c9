"""Events of the Lambda host: every one is answered, or rejected with a named error."""

import asyncio
import copy
import json
import logging
from typing import Any

from seawall import Orchestrator, Settings
from seawall.errors import Problem
from seawall.hosts.aws_lambda.dispatch import Dispatcher, UnknownEvent
from seawall.hosts.aws_lambda.http_events import other_source, read_event, source_of
from seawall.hosts.aws_lambda.runtime_api import InvocationContext
from seawall.hosts.aws_lambda.target import LambdaSettings, Target
from seawall.hosts.aws_lambda.turns import TurnRefused
from tests.aws_lambda.samples import OTHERS, REQUESTS, TURN, sqs

__all__ = ["SEEDS", "one_input"]

_log = logging.getLogger("seawall.lambda")
_EVENTS: list[Any] = [*REQUESTS.values(), *OTHERS.values(), TURN, sqs(TURN, "{", TURN), sqs({})]
_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1e308, 2**63, "", "\0", "a\r\nb: c", "\x7f", "é", "日本", "%00%"),
    *("AAAA", "====", "//", "..", "?", "GET ", "x" * 70_000, [], {}, [None], ["a", 1], {"": ""}),
    *({"a": [["b"]]}, {"a\r\nb": "c"}, {"h": "v\0"}, [{}] * 3, {"a": None}, "²", "host: x"),
]
SEEDS = [
    *(json.dumps(event).encode() for event in _EVENTS),
    *(
        bytes([number, step, value])
        for number in range(4)
        for step in (0, 7, 99)
        for value in (1, 9)
    ),
    b"[" * 5_000,
    b'{"requestContext": {"http": {"method": "GET"}}, "headers": {}, "rawPath": "\\ud800"}',
    b"\xff\xfe",
    b"",
]


class _Writer:
    """Takes one response, whole or streamed."""

    def __init__(self) -> None:
        self.response = b""
        self.streamed = b""
        self.ended = False

    async def respond(self, payload: bytes) -> None:
        assert not self.response
        assert not self.streamed
        self.response = payload

    async def begin(self, content_type: str) -> None:
        assert content_type

    async def write(self, piece: bytes) -> None:
        assert not self.ended
        self.streamed += piece

    async def end(self) -> None:
        assert not self.ended
        self.ended = True


async def _application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError("only HTTP")
    body = (await receive())["body"]
    assert isinstance(body, bytes)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b'{"ok": true}'})


def one_input(data: bytes) -> None:
    """Have the host answer an event: the JSON that the input is, or a sample that it mangles."""
    payload = data if data[:1] in (b"{", b"[", b'"', b"") else json.dumps(_mangled(data)).encode()
    try:
        event = json.loads(payload)
    except (ValueError, RecursionError):
        event = None
    else:
        _check_read(event)
    _log.disabled = True  # refusals are logged, and are many
    try:
        asyncio.run(_answered(payload))
    finally:
        _log.disabled = False


def _mangled(data: bytes) -> object:
    """A sample, in which each two bytes after the first put a value where the first one says."""
    event = copy.deepcopy(_EVENTS[data[0] % len(_EVENTS)])
    for where, what in zip(data[1::2], data[2::2], strict=False):
        positions = list(_positions(event))
        if not positions:
            break
        container, key = positions[where % len(positions)]
        container[key] = copy.deepcopy(_VALUES[what % len(_VALUES)])
    return event


def _positions(found: Any) -> Any:
    if not isinstance(found, dict | list):
        return
    for key, value in list(found.items() if isinstance(found, dict) else enumerate(found)):
        yield found, key
        yield from _positions(value)


def _check_read(event: object) -> None:
    """A request that is read is one that an ASGI application may be given."""
    assert isinstance(other_source(event), str)
    source = source_of(event)
    if source is None:
        return
    assert isinstance(event, dict)
    try:
        read = read_event(event, source, base_path="/base")
    except Problem as problem:
        assert 400 <= problem.status < 500  # noqa: PT017 - no test
        return
    scope = read.scope
    assert isinstance(read.body, bytes)
    assert isinstance(read.claims, dict)
    assert scope["method"].isascii()
    assert scope["method"] == scope["method"].upper()
    assert isinstance(scope["path"], str)
    assert isinstance(scope["raw_path"], bytes)
    assert scope["client"] is None or isinstance(scope["client"][0], str)
    assert scope["scheme"] in ("http", "https")
    assert 0 <= scope["server"][1] <= 65_535
    for name, value in scope["headers"]:
        assert name == name.lower()
        assert name
        assert not set(name) & set(b" \r\n\0:")
        assert not set(value) & set(b"\r\n\0")


async def _answered(payload: bytes) -> None:
    settings = LambdaSettings(direct=True, queue=True, authorizer=True)
    target = Target(app=_application, orchestrator=Orchestrator(Settings()))
    answer = _Writer()
    context = InvocationContext("r", asyncio.get_running_loop().time() + 20)
    try:
        await Dispatcher(target, settings).answer(payload, context, answer)  # type: ignore[arg-type]
    except (UnknownEvent, TurnRefused):
        assert not answer.response
        assert not answer.streamed
        return
    if answer.response:
        assert isinstance(json.loads(answer.response), dict)
    else:
        assert answer.ended
        head, _, _ = answer.streamed.partition(b"\0" * 8)
        assert 200 <= json.loads(head)["statusCode"] < 500
