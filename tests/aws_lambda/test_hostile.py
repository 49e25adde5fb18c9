"""The Lambda host under hostile events, handlers and Runtime APIs: it answers, and goes on."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from tests.aws_lambda.forked_runtime import ForkedRuntime, start_runtime
from tests.servers import ROOT

ACCEPTED = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"


def invocation(
    payload: bytes = b'{"do": ""}',
    *headers: tuple[str, str],
    number: str = "1",
    deadline: object = None,
) -> bytes:
    """An answer to /next. deadline: in milliseconds since 1970; in ten seconds without."""
    if deadline is None:
        deadline = int((time.time() + 10) * 1e3)
    lines = [
        "HTTP/1.1 200 OK",
        f"lambda-runtime-aws-request-id: {number}",
        f"lambda-runtime-deadline-ms: {deadline}",
        f"content-length: {len(payload)}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + payload


class Given(Struct):
    """What the runtime has sent."""

    target: str
    head: str
    body: bytes

    @property
    def kind(self) -> str:
        for line in self.head.split("\r\n"):
            name, _, value = line.partition(": ")
            if name.lower() == "lambda-runtime-function-error-type":
                return value
        return ""


Act = bytes | Callable[[asyncio.StreamWriter], Any]


class HostileApi:
    """A scripted Runtime API.

    nexts, answers: the replies to polls and to responses, in order; bytes, or a function of the
    connection. Then a valid invocation with the id "last", and after it none.
    """

    def __init__(self, nexts: Sequence[Act], answers: Sequence[Act]) -> None:
        self._nexts = [*nexts, due(b'{"do": ""}', 10, number="last")]
        self._answers = list(answers)
        self.given: list[Given] = []
        self.last = asyncio.Event()
        self._connections: set[asyncio.Task[object]] = set()

    async def close(self) -> None:
        """End the connections."""
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                target = head.split(" ")[1]
                body = await _body(reader, head)
                if target.endswith("/next"):
                    act: Act = self._nexts.pop(0) if self._nexts else _wait
                else:
                    self.given.append(Given(target, head, body))
                    act = self._answers.pop(0) if self._answers else ACCEPTED
                    if "/last/" in target:
                        self.last.set()
                if isinstance(act, bytes):
                    writer.write(act)
                    await writer.drain()
                else:
                    await act(writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


async def _body(reader: asyncio.StreamReader, head: str) -> bytes:
    fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    if fields.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(fields.get("content-length", "0")))
    pieces = []
    while size := int(await reader.readline(), 16):
        pieces.append(await reader.readexactly(size + 2))
    while await reader.readline() not in (b"\r\n", b""):
        pass
    return b"".join(each[:-2] for each in pieces)


async def _wait(_: asyncio.StreamWriter) -> None:
    await asyncio.sleep(600)


async def _cut(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    raise ConnectionError


def _then_cut(sent: bytes) -> Act:
    async def act(writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await writer.drain()
        await asyncio.sleep(0.05)
        await _cut(writer)

    return act


def due(payload: bytes, seconds: float, *, number: str = "1") -> Act:
    """An invocation with a deadline so long after it is asked for."""

    async def act(writer: asyncio.StreamWriter) -> None:
        writer.write(
            invocation(payload, number=number, deadline=int((time.time() + seconds) * 1e3))
        )

    return act


def _slowly(sent: bytes, pieces: int = 40) -> Act:
    async def act(writer: asyncio.StreamWriter) -> None:
        for at in range(0, len(sent), max(1, len(sent) // pieces)):
            writer.write(sent[at : at + max(1, len(sent) // pieces)])
            await asyncio.sleep(0.01)

    return act


def _endless(begin: bytes, piece: bytes, most: int) -> Act:
    async def act(writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        sent = 0
        while sent < most:  # the runtime has cut it long before
            writer.write(piece)
            sent += len(piece)
            await writer.drain()
        raise AssertionError("the runtime takes whatever it is sent")

    return act


@asynccontextmanager
async def running(
    nexts: Sequence[Act] = (),
    answers: Sequence[Act] = (),
    *,
    handler: str = "awaited",
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[tuple[HostileApi, ForkedRuntime]]:
    api = HostileApi(nexts, answers)
    server = await asyncio.start_server(api.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    process = await start_runtime(
        handler if "." in handler else f"tests.aws_lambda.hostile_handlers.{handler}",
        {**os.environ, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}", **(environment or {})},
        ROOT,
    )
    reading = asyncio.create_task(process.stdout.read())
    try:
        yield api, process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading
        server.close()
        await api.close()


async def goes_on(
    api: HostileApi, process: ForkedRuntime, *, ends: bool = True, seconds: float = 20
) -> None:
    """It answers the invocation that is in order, and then ends when it is asked to."""
    async with asyncio.timeout(seconds):
        await api.last.wait()
    assert api.given[-1].target.endswith("/last/response")
    assert process.returncode is None
    if ends:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(8):
            assert await process.wait() == 0


NEXTS: dict[str, list[Act]] = {
    "no request id": [invocation().replace(b"aws-request-id", b"other")],
    "a folder as request id": [invocation(number="..")],
    "a path as request id": [invocation(number="../../init/error?")],
    "a request id of 100 KB": [invocation(number="x" * 100_000)],
    "a request id that is not ASCII": [invocation(number="\xe9")],
    "informational": [b"HTTP/1.1 100 Continue\r\n\r\n" + invocation()],
    "a response without a request": [invocation() + ACCEPTED],
    "not HTTP": [_then_cut(b"SSH-2.0-OpenSSH_9\r\n")],
    "chunks of nothing": [
        _then_cut(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n")
    ],
    "closed in the middle": [_then_cut(invocation(b"{" + b" " * 1000)[:-500])],
    "closed at once": [_cut, _cut],
    "slow": [_slowly(invocation())],
    "a NUL in a header": [_then_cut(invocation(b"{}", ("lambda-runtime-trace-id", "a\0b")))],
    "odd headers": [
        invocation(
            b"{}",
            ("lambda-runtime-trace-id", "\xff\xfe"),
            ("lambda-runtime-client-context", "{{{"),
            ("lambda-runtime-cognito-identity", "\xe9" * 5_000),
            ("lambda-runtime-invocation-id", "\xe9"),
            *((f"x-{number}", "y") for number in range(5_000)),
        )
    ],
    "an endless head": [_endless(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 1_000, 64 << 20)],
    "an endless body": [
        _endless(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            b"10000\r\n" + b" " * 65_536 + b"\r\n",
            256 << 20,
        )
    ],
}


async def test_hostile_nexts() -> None:
    """One process goes on after each of them, and answers the invocation that comes next."""
    nexts: list[Act] = []
    for number, acts in enumerate(NEXTS.values()):
        nexts += [*acts, due(b'{"do": ""}', 60, number=f"after-{number}")]
    async with running(nexts) as (api, process):
        await goes_on(api, process, seconds=60)
        after = [each.target.split("/")[-2:] for each in api.given if "/after-" in each.target]
        assert after == [[f"after-{number}", "response"] for number in range(len(NEXTS))]


async def test_hostile_deadlines() -> None:
    """Over, it is an error of the invocation; unreadable, the latest that there can be."""
    over, unreadable = ["-1", "0", "1"], ["", "soon", "1e99", "9" * 400, "²", "\xe9", "nan"]
    nexts = [
        invocation(deadline=deadline, number=str(number))
        for number, deadline in enumerate(over + unreadable)
    ]
    async with running(nexts) as (api, process):
        await goes_on(api, process)
        found = [(*each.target.split("/")[-2:], each.kind) for each in api.given[:-1]]
        assert found == [
            (str(number), "error", "Seawall.DeadlineExceeded")
            if number < len(over)
            else (str(number), "response", "")
            for number in range(len(nexts))
        ]


async def test_endless_responses_end_the_runtime_with_a_status() -> None:
    async with running([_cut] * 20) as (_, process):
        async with asyncio.timeout(20):
            assert await process.wait() == 1
    async with running([invocation(number="?")] * 20) as (_, process):
        async with asyncio.timeout(20):
            assert await process.wait() == 1


ANSWERS: dict[str, list[Act]] = {
    "too large": [b"HTTP/1.1 413 x\r\ncontent-length: 0\r\n\r\n"],
    "broken": [b"HTTP/1.1 500 x\r\ncontent-length: 3\r\n\r\nabc"],
    "informational": [b"HTTP/1.1 100 Continue\r\n\r\n" + ACCEPTED],
    "closed": [_cut],
    "garbage": [_then_cut(b"\0\1\2\3")],
    "half": [_then_cut(ACCEPTED[:20])],
    "never": [_wait],
    "doubled": [ACCEPTED * 3],
    "closing": [ACCEPTED.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")],
    "endless": [
        _endless(b"HTTP/1.1 202 x\r\ncontent-length: 99999999999\r\n\r\n", b" " * 65_536, 256 << 20)
    ],
}


@pytest.mark.parametrize("handler", ["awaited", "streamed"])
@pytest.mark.parametrize("answers", ANSWERS.values(), ids=ANSWERS)
async def test_a_hostile_reception(answers: list[Act], handler: str) -> None:
    async with running([due(b"{}", 2)], answers, handler=handler) as (api, process):
        await goes_on(api, process)


async def test_a_report_that_is_never_accepted() -> None:
    async with running([due(b"{", 2)], [_wait]) as found:
        await goes_on(*found)


WHAT = {
    "exit": "SystemExit",
    "interrupt": "KeyboardInterrupt",
    "stop-iteration": "RuntimeError",
    "cancelled": "CancelledError",
    "generator-exit": "GeneratorExit",
    "base": "BaseException",
    "coded": "Coded",
    "mute": "Mute",
    "surrogate": "ValueError",
    "recursion": "RecursionError",
    "unencodable": "TypeError",
    "nested": "RecursionError",
    "hang": "Seawall.DeadlineExceeded",
    "ignore": "Seawall.DeadlineExceeded",
}


@pytest.mark.parametrize("handler", ["awaited", "plain"])
async def test_hostile_handlers(handler: str) -> None:
    """Each has an error of its own, and the process goes on, and ends when it is asked to."""
    nexts = [
        due(
            json.dumps({"do": what}).encode(),
            0.8 if what in ("hang", "ignore") else 10,
            number=what,
        )
        for what in WHAT
    ]
    async with running(nexts, handler=handler) as (api, process):
        await goes_on(api, process)
        kinds = {each.target.split("/")[-2]: each.kind for each in api.given[:-1]}
        assert kinds == WHAT
        for each in api.given[:-1]:
            result = json.loads(each.body)
            assert result["errorType"] == each.kind
            assert len(each.body) < 100_000


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("import sys\nsys.exit(0)", "SystemExit"),
        ("raise BaseException('base')", "BaseException"),
        (
            "import threading\nthreading.Thread(target=threading.Event().wait).start()\nNONE",
            "NameError",
        ),
    ],
    ids=["exit", "base", "a thread that stays"],
)
async def test_hostile_modules(tmp_path: Path, code: str, kind: str) -> None:
    """Why it does not start is reported, and the process ends."""
    (tmp_path / "hostile_module.py").write_text(code)
    path = {"LAMBDA_TASK_ROOT": str(tmp_path)}
    async with running(handler="hostile_module.handler", environment=path) as (api, process):
        async with asyncio.timeout(20):
            assert await process.wait() == 1
        (report,) = api.given
        assert report.target.endswith("init/error")
        assert report.kind == kind


async def test_calls_of_a_plain_handler_run_side_by_side() -> None:
    """As many as there are slots."""
    slots = 40
    nexts = [due(b'{"do": "meet"}', 20, number=str(each)) for each in range(slots)]
    environment = {"AWS_LAMBDA_MAX_CONCURRENCY": str(slots)}
    async with running(nexts, handler="meet", environment=environment) as (api, _):
        async with asyncio.timeout(15):
            while len(api.given) < slots:  # noqa: ASYNC110 - another process is waited for
                await asyncio.sleep(0.05)
        assert all(each.target.endswith("/response") for each in api.given)


async def test_a_task_of_a_handler_that_raises_system_exit() -> None:
    wanted = {"task-exit": "SystemExit", "task-interrupt": "KeyboardInterrupt"}
    nexts = [due(json.dumps({"do": what}).encode(), 5, number=what) for what in wanted]
    async with running(nexts, handler="awaited") as (api, process):
        await goes_on(api, process)
        assert {each.target.split("/")[-2]: each.kind for each in api.given[:-1]} == wanted


async def test_hostile_streams() -> None:
    """What each has said before is there, and the process goes on."""
    kinds = ["exit", "hang", "ignore", "surrogate", "mute"]
    nexts = [due(json.dumps({"do": kind}).encode(), 1.5, number=kind) for kind in kinds]
    async with running(nexts, handler="streamed") as (api, process):
        await goes_on(api, process)
        said = [(each.target.split("/")[-2], each.body) for each in api.given[:-1]]
        assert said == [(kind, b"begun ") for kind in kinds]


async def test_an_environment_in_which_everything_hangs_is_ended() -> None:
    hangs = due(b'{"do": "hang"}', 0.45)
    async with running([hangs] * 50, handler="plain") as (api, process):
        async with asyncio.timeout(45):
            assert await process.wait() == 1
        assert 30 < len(api.given) < 40
        kinds = {each.kind for each in api.given}
        assert kinds == {"Seawall.DeadlineExceeded", "Seawall.HandlerHangs"}


def _request(**fields: Any) -> bytes:
    event = {
        "version": "2.0",
        "rawPath": "/none",
        "headers": {},
        "requestContext": {"http": {"method": "GET"}},
    }
    return json.dumps({**event, **fields}).encode()


EVENTS: dict[str, bytes] = {
    "100,000 headers": _request(headers={f"x-{number}": "y" for number in range(100_000)}),
    "a header of 1 MB": _request(headers={"x": "y" * 1_000_000}),
    "a header that splits": _request(headers={"x": "a\r\nx-api-key: b"}),
    "a name that splits": _request(headers={"x: y\r\nz": "a"}),
    "a NUL in a header": _request(headers={"x": "\0"}),
    "values of other types": _request(headers={"x": ["a"], "y": None}),
    "not the base64 it says": _request(body="{}", isBase64Encoded=True),
    "base64 as a text": _request(body="{}", isBase64Encoded="false"),
    "a body of another type": _request(body={"text": "x"}),
    "a method that splits": _request(requestContext={"http": {"method": "GET / HTTP/1.1\r\n"}}),
    "a NUL in the path": _request(rawPath="/none%00/\0"),
    "a surrogate in the path": _request(rawPath="/\ud800"),
    "claims of another type": _request(
        requestContext={"http": {"method": "GET"}, "authorizer": {"jwt": {"claims": ["x"]}}}
    ),
    "nothing": b"",
    "not UTF-8": b'"\xff\xfe"',
    "not JSON": b"{",
    "deep": b"[" * 200_000 + b"]" * 200_000,
    "null": b"null",
    "a number": b"1e400",
    "a list": b"[[]]",
    "a text": b'"x"',
    "a lone surrogate": b'{"text": "\\ud800"}',
    "a NUL": b'{"text": "\\u0000"}',
    "large": b'{"text": "' + b"x" * 6_000_000 + b'"}',
    "records of nothing": b'{"Records": []}',
    "records of numbers": b'{"Records": [1]}',
    "an unknown request": b'{"requestContext": {"http": {}}}',
}


async def test_hostile_events() -> None:
    """An application of ASGI: it is asked for requests only; all else is refused by a name."""
    deadline = int((time.time() + 100) * 1e3)
    nexts = [
        invocation(event, number=str(number), deadline=deadline)
        for number, event in enumerate(EVENTS.values())
    ]
    last = {
        "version": "2.0",
        "rawPath": "/echo",
        "headers": {},
        "requestContext": {"http": {"method": "GET"}},
    }
    nexts.append(invocation(json.dumps(last).encode(), number="last", deadline=deadline))
    async with running(nexts, handler="tests.aws_lambda.apps.app") as (api, process):
        await goes_on(api, process, seconds=60)
        numbers = [each.target.split("/")[-2] for each in api.given[:-1]]
        assert numbers == [str(number) for number in range(len(EVENTS))]
        for name, given in zip(EVENTS, api.given, strict=False):
            if given.target.endswith("/error"):
                assert given.kind == "Seawall.UnknownEvent", name
            else:
                assert 400 <= json.loads(given.body)["statusCode"] < 500, name
