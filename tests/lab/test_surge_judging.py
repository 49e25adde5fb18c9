"""Validation of answers by the surge driver: only a complete answer counts, whatever is sent."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.lab.surge.answer import Answer as Judged
from seawall.lab.surge.driver import drive
from seawall.lab.surge.export import to_locust
from seawall.lab.surge.outcome import SurgeResult
from seawall.lab.surge.report import as_table
from seawall.lab.surge.scenario import Api, Crowd, Instant, Open, Scenario
from seawall.transport.sse import SseParser
from tests.faulty_server import Answer, Handler, script, serving

WHOLE = 1 << 26  # longer than any answer: the connection is closed after it
TEXT = '{"id":"c1","choices":[{"delta":{"content":"Hello"}}]}'
STOP = '{"choices":[{"delta":{},"finish_reason":"stop"}]}'
DONE = "[DONE]"


def stream(*data: str) -> bytes:
    return "".join(f"data: {each}\n\n" for each in data).encode()


def judged(api: Api, body: bytes) -> Judged:
    answer = Judged(api)
    for event in SseParser().feed(body):
        answer.take(event)
    answer.close(None)
    return answer


def chat(text: str | None = "Hello", reason: str | None = "stop", **more: object) -> str:
    choice = {"delta": {"content": text}, "finish_reason": reason}
    return json.dumps({"id": "c1", "choices": [choice]} | more)


FAILED = {
    "error beside choices": [chat(error={"code": 502, "message": "bad gateway"}), DONE],
    "error beside choices that comes late": [
        TEXT,
        chat("", "error", error={"message": "gone"}),
        DONE,
    ],
    "error before choices": ['{"error":{"message":"no"},"choices":[]}', DONE],
    "error with white space": ['{ \n"error": "no" }'.replace("\n", " "), DONE],
    "error in the choice": [
        '{"choices":[{"delta":{"content":"Hi"},"error":{"code":429}}]}',
        DONE,
    ],
    "error by type": [TEXT, '{"type":"error","message":"no"}', DONE],
    "error by object": ['{"object":"error","message":"no","code":400}', DONE],
    "finish_reason error": [TEXT, chat("", "error"), DONE],
    "finish_reason abort": [TEXT, chat("", "abort"), DONE],
    "finish_reason content_filter": [TEXT, chat("", "content_filter"), DONE],
    "finish_reason in capitals": [TEXT, chat("", "ERROR"), DONE],
    "nothing": [DONE],
    "empty text": [chat(""), DONE],
    "null text": [chat(None), DONE],
    "white space": [chat(" \n "), DONE],
    "no end": [TEXT, STOP],
    "something after the end": [TEXT, DONE, TEXT],
}


@pytest.mark.parametrize("data", FAILED.values(), ids=FAILED.keys())
def test_incomplete_chat_answers_are_failed(data: list[str]) -> None:
    assert judged("chat", stream(*data)).error


COMPLETE = {
    "plain": [TEXT, STOP, DONE],
    "without a reason": [TEXT, DONE],
    "cut off by its own bound": [chat("Hello", "length"), DONE],
    "null error": [chat(error=None), STOP, DONE],
    "null choices": [TEXT, '{"choices":null,"usage":{"total_tokens":3}}', DONE],
    "null delta": [TEXT, '{"choices":[{"delta":null,"finish_reason":"stop"}]}', DONE],
    "parts": [
        (
            '{"choices":[{"delta":{"content":[{"type":"thinking","thinking":[]},'
            '{"type":"text","text":"Hello"}]}}]}'
        ),
        DONE,
    ],
    "pings": ["", "null", ": keepalive", TEXT, "[DONE] "],
}


@pytest.mark.parametrize("data", COMPLETE.values(), ids=COMPLETE.keys())
def test_complete_chat_answers_are_completed(data: list[str]) -> None:
    answer = judged("chat", stream(*data))
    assert (answer.error, answer.text) == ("", "Hello")


@pytest.mark.parametrize(
    "name", [name for name in FAILED if name.startswith(("error beside", "error in", "finish"))]
)
def test_exported_locustfiles_validate_alike(name: str) -> None:
    script = to_locust(one("http://127.0.0.1:1"))
    reading: dict[str, Any] = {"json": json}
    exec(script[script.index("FINISHED = ") :], reading)
    with pytest.raises(ValueError, match=r"error|abort|content_filter|ERROR"):
        [reading["text_of"](each.encode()) for each in FAILED[name]]
    texts = [reading["text_of"](each.encode()) for each in COMPLETE["pings"]]
    assert "".join(texts) == "Hello"


def test_an_event_with_the_name_error_is_a_failure() -> None:
    for api in ("chat", "turns"):
        body = stream(TEXT) if api == "chat" else b""
        error = judged(api, body + b'event: error\ndata: {"detail":"no"}\n\n' + stream(DONE)).error
        assert error.startswith("turn failed: ")


@given(
    pieces=st.lists(
        st.sampled_from([TEXT, STOP, chat("", "error"), chat(error={"code": 1}), "null", ""]),
        max_size=6,
    )
)
def test_a_failure_anywhere_fails_the_whole(pieces: list[str]) -> None:
    failing = any('"error"' in each and "null" not in each for each in pieces)
    error = judged("chat", stream(*pieces, DONE)).error
    assert bool(error) == (failing or not {TEXT} & set(pieces))


async def driven(handler: Handler, scenario: Callable[[str], Scenario]) -> SurgeResult:
    async with serving(handler) as server:
        return await drive(scenario(server.url))


def one(url: str, api: Api = "chat") -> Scenario:
    return Scenario(url=url, api=api, load=Open([Crowd(shapes=[Instant(1)])]), patience=10.0)


HOSTILE = {
    "an event that is no UTF-8": (
        b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n',
        "unread",
    ),
    "an event of endless depth": (b'data: {"error":' + b"[" * 100_000 + b"\n\n", "unread"),
    "an id that is no UTF-8": (b"id: \xff\nevent: x\ndata: {}\n\n", "where 1 was expected"),
    "an endless line": (b"data: " + b"x" * (2 << 20), "an event exceeds"),
    "an endless event": (b"data: x\n" * (5 << 17), "an event exceeds"),
    "endless comments": (
        (b": " + b"n" * 1_000 + b"\n\n") * (17 << 10),
        "an answer of more than 16777216 bytes",
    ),
    "JSON and no stream": (b'{"error":{"message":"no\x1b[2J"}}', "not a stream of events"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_body_is_a_failed_turn_and_bounded(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    body, words = HOSTILE[name]
    api: Api = "turns" if "id" in name.split() else "chat"
    answer = Answer(body=body, sized=False, cut=WHOLE)
    result = await driven(script(answer), lambda url: one(url, api))
    (error,) = result.errors
    assert words in error
    assert (result.failed, result.good) == (1, False)
    assert not [each for each in as_table(result) if each != "\n" and not each.isprintable()]
    assert capfd.readouterr().err == ""  # no traceback out of the event loop


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nx-long: " + b"a" * (1 << 18),
        b"HTTP/1.1 200 OK\r\n" + b"x-many: a\r\n" * (1 << 15),
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * (1 << 14),
    ],
    ids=["line", "lines", "informational"],
)
async def test_an_endless_head_is_a_failed_turn(head: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1 << 16)
        writer.write(head)
        try:
            await writer.drain()
            await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        (error,) = (await drive(one(f"http://127.0.0.1:{port}"))).errors
    assert error.startswith(("a head of more than 131072 bytes", "not HTTP"))


async def test_the_command_fails_if_a_server_sends_an_error_beside_choices() -> None:
    body = stream(chat("", None, error={"code": 502, "message": "bad gateway"}), DONE)

    async with serving(script(Answer(body=body, sized=False, cut=WHOLE))) as server:
        words = ("surge", server.url, "--api", "chat", "--at-once", "2", "--json")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "seawall", *words),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        out, _ = await process.communicate()
    assert process.returncode == 1
    figures = json.loads(out)
    assert (figures["turns"], figures["completed"], figures["failed"]) == (2, 0, 2)


async def test_an_answer_ends_even_if_its_body_stays_open() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1 << 16)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + stream(TEXT, STOP, DONE))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        result = await drive(one(f"http://127.0.0.1:{port}"))
    assert (result.errors, result.completed) == ({}, 1)
    assert result.outcomes[0].total < 0.9  # not when the driver stopped waiting
