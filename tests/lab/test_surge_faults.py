"""The surge driver with faulty servers and limited machines."""

import json
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest

from seawall.lab.processes import raise_file_limit
from seawall.lab.surge import connector
from seawall.lab.surge.driver import drive
from seawall.lab.surge.outcome import Durability, Outcome, SurgeResult
from seawall.lab.surge.process import drive_in_subprocess
from seawall.lab.surge.read_back import read_back
from seawall.lab.surge.report import as_html, as_table
from seawall.lab.surge.scenario import Closed, Crowd, Instant, Open, Scenario, digest_of
from tests.faulty_server import DROP, HANG, Answer, Handler, Hang, Request, script, serving
from tests.lab.conftest import Site

UNREACHABLE = "http://127.0.0.1:1"
LONGER = 1 << 20  # than any answer: the connection is closed after it
CHUNK = b'data: {"id":"c1","choices":[{"delta":{"content":"Hello"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


def at_once(turns: int, url: str = UNREACHABLE, **more: object) -> Scenario:
    load = Open([Crowd(shapes=[Instant(turns)])])
    return Scenario(url=url, load=load, **more)  # type: ignore[arg-type]  # of any field


async def driven(handler: Handler, scenario: Callable[[str], Scenario]) -> SurgeResult:
    async with serving(handler) as server:
        return await drive(scenario(server.url))


async def test_an_answer_may_end_with_its_connection() -> None:
    whole = Answer(body=CHUNK + DONE, sized=False, cut=LONGER)
    result = await driven(script(whole), lambda url: at_once(3, url, api="chat"))
    assert (result.errors, result.completed) == ({}, 3)


async def test_an_interrupted_answer_is_an_error_with_its_status() -> None:
    broken = Answer(body=CHUNK, sized=False, cut=LONGER)
    result = await driven(script(broken), lambda url: at_once(1, url, api="chat"))
    assert result.errors == {"the stream ended before the turn was completed": 1}
    short = Answer(body=CHUNK, headers={"content-length": "999"}, sized=False, cut=LONGER)
    result = await driven(script(short), lambda url: at_once(1, url, api="chat"))
    assert result.errors == {"connection closed early": 1}
    assert result.outcomes[0].status == 200


@pytest.mark.parametrize("wanted", ["", "20"])
async def test_refused_users_wait_before_the_next_turn(wanted: str) -> None:
    """Without a pause they would send hundreds of turns a second."""
    refusal = Answer(status=503, headers={"retry-after": wanted} if wanted else {})
    load = Closed(users=2, seconds=1.2, ramp_up=0.0)
    result = await driven(script(refusal), lambda url: Scenario(url=url, load=load))
    assert result.refused == result.turns
    assert 2 <= result.turns <= (2 if wanted else 4)


async def test_retry_after_0_is_followed() -> None:
    refusal = Answer(status=429, headers={"retry-after": "0"})
    load = Closed(users=1, seconds=0.5, ramp_up=0.0)
    result = await driven(script(refusal), lambda url: Scenario(url=url, load=load))
    assert result.turns > 2


async def test_turns_are_spread_over_all_addresses_that_accept_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = socket.getaddrinfo

    def several(host: str, port: int, *more: int, **named: int) -> list[object]:
        if host != "several.test":
            return list(found(host, port, *more, **named))
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, (address, port)) for address in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", several)
    whole = Answer(body=CHUNK + DONE, sized=False, cut=LONGER)
    result = await driven(
        script(whole),
        lambda url: at_once(6, url.replace("127.0.0.1", "several.test"), api="chat"),
    )
    assert (result.errors, result.completed) == ({}, 6)
    assert result.driver.saturated == []


async def test_a_timeout_in_the_drivers_queue_is_a_limit_of_the_driver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With TLS, and a server that accepts connections but sends nothing."""
    monkeypatch.setattr(connector, "_AT_ONCE", 2)
    result = await driven(
        script(HANG),
        lambda url: at_once(6, url.replace("http:", "https:"), patience=0.5),
    )
    ours = "no connection in time, while queued in the driver"
    assert result.errors == {ours: 4, "no connection in time": 2}
    assert f"4 turns: {ours}" in result.driver.saturated
    assert sum(each.late >= 0.5 for each in result.outcomes) == 4
    assert result.failure.p50 is not None
    assert result.failure.p50 >= 500.0


def test_exhausted_open_files_are_a_limit_of_the_driver(site: Site) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "seawall", "surge", site.url, "--at-once", "80", "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48)),
    )
    assert done.returncode == 1, done.stderr
    saturated = json.loads(done.stdout)["driver"]["saturated"]
    assert any("cannot connect: Too many open files" in each for each in saturated)


async def test_a_result_of_several_batches_is_complete() -> None:
    result = await drive_in_subprocess(at_once(2_500))
    assert sorted(each.number for each in result.outcomes) == list(range(2_500))
    assert result.failed == result.turns == 2_500


def test_the_file_limit_is_raised_without_a_hard_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refusing(_: int, limits: tuple[int, int]) -> None:
        asked.append(limits[0])
        if limits[0] > 10_240:
            raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refusing)
    assert raise_file_limit() == 10_240
    assert len(asked) == 2


# Reading back.

ASKED = at_once(1, unique=False, read_back=10).question(0)


def turn(name: str, answer: str = "Hello") -> dict[str, object]:
    messages = [{"role": "user", "text": ASKED}, {"role": "assistant", "text": answer}]
    return {"id": name, "messages": messages}


def outcome(name: str) -> Outcome:
    return Outcome(0, crowd="crowd", turn=name, session="s", digest=digest_of("Hello"))


async def read(handler: Handler, *names: str, most: int = 10) -> Durability:
    async with serving(handler) as server:
        scenario = at_once(1, server.url, unique=False, read_back=most)
        return await read_back(scenario, [outcome(name) for name in names])


def session(request: Request) -> Answer | Hang:
    """Two pages, the newest turn first."""
    cursor = parse_qs(urlsplit(request.target).query).get("cursor")
    pages = {None: ([turn("t3"), turn("t2")], "a/b+c="), "a/b+c=": ([turn("t1", "Other")], None)}
    turns, following = pages[cursor[0] if cursor else None]
    return Answer(body=json.dumps({"turns": turns, "cursor": following}).encode())


async def test_a_turn_is_searched_on_all_pages_of_its_session() -> None:
    found = await read(session, "t3", "t1", "t0")
    assert (found.looked_up, found.found, found.unread) == (3, 1, 0)
    assert sorted(found.missing) == [
        "t0: it is not in its session",
        "t1: its session has another answer",
    ]


async def test_transient_failures_are_retried() -> None:
    answer = Answer(body=json.dumps({"turns": [turn("t1")]}).encode())
    found = await read(script(Answer(status=503), DROP, answer), "t1")
    assert found == Durability(1, 1)
    assert found.good


async def test_an_unreadable_session_is_neither_missing_nor_good() -> None:
    for answer, why in (
        (Answer(status=401), "status 401"),
        (Answer(body=b"<html>"), "unexpected body"),
    ):
        found = await read(script(answer), "t1")
        assert (found.looked_up, found.found, found.missing, found.unread) == (0, 0, [], 1)
        assert why in found.why_unread[0]
        assert not found.good


async def test_the_turns_that_are_read_back_are_spread_over_the_run() -> None:
    asked: list[str] = []

    def handler(request: Request) -> Answer | Hang:
        asked.append(request.target)
        return Answer(status=404)

    names = [f"t{each}" for each in range(10)]
    found = await read(handler, *names, most=3)
    assert sorted(each.partition(":")[0] for each in found.missing) == ["t0", "t3", "t6"]
    assert len(asked) == 3


# What is done.


async def test_failed_and_refused_turns_are_reported_without_control_characters() -> None:
    def handler(request: Request) -> Answer | Hang:
        if b"customer 0" in request.body:
            return Answer(body=CHUNK + DONE, sized=False, cut=LONGER)
        evil = '{"code":"\x1b[2J\x9b"}' if b"customer 1" in request.body else "no room"
        return Answer(status=500 if b"customer 1" in request.body else 503, body=evil.encode())

    result = await driven(handler, lambda url: at_once(3, url, api="chat"))
    assert (result.completed, result.refused, result.failed) == (1, 1, 1)
    table, page = as_table(result), as_html(result, at_once(3, api="chat"))
    for text in (table, page):
        assert "1 completed turns of 3" in text
        assert "refusal, of 1" in text
        assert "failure, of 1" in text
        assert "\x1b" not in text
    assert page.count("&quot;name&quot;:&quot;refused&quot;") == 1
    assert page.count("&quot;name&quot;:&quot;failed&quot;") == 1


async def test_a_run_without_turns_is_not_good() -> None:
    result = await driven(
        script(Answer()), lambda url: Scenario(url=url, load=Closed(users=1, seconds=0.0))
    )
    assert result.turns == 0
    assert not result.good
