"""The surge driver at servers and machines that are not as they should be."""

import asyncio
import json
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest

from seawall.lab.processes import raise_file_limit
from seawall.lab.surge import connector as connecting
from seawall.lab.surge.driver import drive
from seawall.lab.surge.outcome import Durability, Outcome, SurgeResult
from seawall.lab.surge.process import drive_in_subprocess
from seawall.lab.surge.read_back import read_back
from seawall.lab.surge.report import as_html, as_table
from seawall.lab.surge.scenario import Closed, Crowd, Instant, Open, Scenario, digest_of
from tests.faulty_server import DROP, HANG, Answer, Handler, Hang, Request, script, serving
from tests.lab.conftest import Site

NOBODY = "http://127.0.0.1:1"
LONGER = 1 << 20  # than any answer: the connection is closed after it
CHUNK = b'data: {"id":"c1","choices":[{"delta":{"content":"Hello"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


def at_once(turns: int, url: str = NOBODY, **more: object) -> Scenario:
    load = Open([Crowd(shapes=[Instant(turns)])])
    return Scenario(url=url, load=load, **more)  # type: ignore[arg-type]  # of any field


def driven(handler: Handler, scenario: Callable[[str], Scenario]) -> SurgeResult:
    async def both() -> SurgeResult:
        async with serving(handler) as server:
            return await drive(scenario(server.url))

    return asyncio.run(both())


def test_an_answer_may_end_with_its_connection() -> None:
    whole = Answer(body=CHUNK + DONE, sized=False, cut=LONGER)
    result = driven(script(whole), lambda url: at_once(3, url, api="chat"))
    assert (result.errors, result.completed) == ({}, 3)


def test_an_answer_that_breaks_off_is_none_and_its_status_is_known() -> None:
    broken = Answer(body=CHUNK, sized=False, cut=LONGER)
    result = driven(script(broken), lambda url: at_once(1, url, api="chat"))
    assert result.errors == {"the stream ended before the turn was completed": 1}
    short = Answer(body=CHUNK, headers={"content-length": "999"}, sized=False, cut=LONGER)
    result = driven(script(short), lambda url: at_once(1, url, api="chat"))
    assert result.errors == {"connection closed early": 1}
    assert result.outcomes[0].status == 200


@pytest.mark.parametrize("wanted", ["", "20"])
def test_customers_who_are_refused_do_not_storm(wanted: str) -> None:
    """At once they would ask hundreds of times in a second."""
    refusal = Answer(status=503, headers={"retry-after": wanted} if wanted else {})
    load = Closed(users=2, seconds=1.2, ramp_up=0.0)
    result = driven(script(refusal), lambda url: Scenario(url=url, load=load))
    assert result.refused == result.turns
    assert 2 <= result.turns <= (2 if wanted else 4)


def test_those_who_are_told_to_come_again_at_once_do() -> None:
    refusal = Answer(status=429, headers={"retry-after": "0"})
    load = Closed(users=1, seconds=0.5, ramp_up=0.0)
    result = driven(script(refusal), lambda url: Scenario(url=url, load=load))
    assert result.turns > 2


def test_turns_are_spread_over_all_addresses_and_pass_over_those_that_do_not_answer(
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
    result = driven(
        script(whole),
        lambda url: at_once(6, url.replace("127.0.0.1", "several.test"), api="chat"),
    )
    assert (result.errors, result.completed) == ({}, 6)
    assert result.driver.saturated == []


def test_patience_that_runs_out_in_the_drivers_own_line_is_the_drivers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With TLS, at a server that takes connections and says nothing."""
    monkeypatch.setattr(connecting, "_AT_ONCE", 2)
    result = driven(
        script(HANG),
        lambda url: at_once(6, url.replace("http:", "https:"), patience=0.5),
    )
    ours = "no connection in time, while queued in the driver"
    assert result.errors == {ours: 4, "no connection in time": 2}
    assert f"4 turns: {ours}" in result.driver.saturated
    assert sum(each.late >= 0.5 for each in result.outcomes) == 4
    assert result.failure.p50 is not None
    assert result.failure.p50 >= 500.0


def test_open_files_that_run_out_are_the_drivers_limit(site: Site) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "seawall", "surge", site.url, "--at-once", "80", "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48)),
    )
    assert told.returncode == 1, told.stderr
    saturated = json.loads(told.stdout)["driver"]["saturated"]
    assert any("cannot connect: Too many open files" in each for each in saturated)


def test_a_result_of_several_batches_arrives_whole() -> None:
    result = asyncio.run(drive_in_subprocess(at_once(2_500)))
    assert sorted(each.number for each in result.outcomes) == list(range(2_500))
    assert result.failed == result.turns == 2_500


def test_files_are_raised_where_the_hard_limit_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
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
    said = [{"role": "user", "text": ASKED}, {"role": "assistant", "text": answer}]
    return {"id": name, "messages": said}


def outcome(name: str) -> Outcome:
    return Outcome(0, crowd="crowd", turn=name, session="s", digest=digest_of("Hello"))


def looked_up(handler: Handler, *names: str, most: int = 10) -> Durability:
    async def both() -> Durability:
        async with serving(handler) as server:
            scenario = at_once(1, server.url, unique=False, read_back=most)
            return await read_back(scenario, [outcome(name) for name in names])

    return asyncio.run(both())


def session(request: Request) -> Answer | Hang:
    """Two pages, the newest turn first."""
    cursor = parse_qs(urlsplit(request.target).query).get("cursor")
    pages = {None: ([turn("t3"), turn("t2")], "a/b+c="), "a/b+c=": ([turn("t1", "Other")], None)}
    turns, following = pages[cursor[0] if cursor else None]
    return Answer(body=json.dumps({"turns": turns, "cursor": following}).encode())


def test_a_turn_is_looked_for_on_all_pages_of_its_session() -> None:
    found = looked_up(session, "t3", "t1", "t0")
    assert (found.looked_up, found.found, found.unread) == (3, 1, 0)
    assert sorted(found.missing) == [
        "t0: it is not in its session",
        "t1: its session has another answer",
    ]


def test_what_passes_is_read_again() -> None:
    said = Answer(body=json.dumps({"turns": [turn("t1")]}).encode())
    found = looked_up(script(Answer(status=503), DROP, said), "t1")
    assert found == Durability(1, 1)
    assert found.good


def test_what_cannot_be_read_is_not_missing_but_not_good_either() -> None:
    for answer, why in (
        (Answer(status=401), "status 401"),
        (Answer(body=b"<html>"), "unexpected body"),
    ):
        found = looked_up(script(answer), "t1")
        assert (found.looked_up, found.found, found.missing, found.unread) == (0, 0, [], 1)
        assert why in found.why_unread[0]
        assert not found.good


def test_the_turns_that_are_looked_up_are_of_the_whole_run() -> None:
    asked: list[str] = []

    def handler(request: Request) -> Answer | Hang:
        asked.append(request.target)
        return Answer(status=404)

    names = [f"t{each}" for each in range(10)]
    found = looked_up(handler, *names, most=3)
    assert sorted(each.partition(":")[0] for each in found.missing) == ["t0", "t3", "t6"]
    assert len(asked) == 3


# What is told.


def test_failed_and_refused_turns_have_rows_of_their_own_and_nothing_to_obey() -> None:
    def handler(request: Request) -> Answer | Hang:
        if b"customer 0" in request.body:
            return Answer(body=CHUNK + DONE, sized=False, cut=LONGER)
        evil = '{"code":"\x1b[2J\x9b"}' if b"customer 1" in request.body else "no room"
        return Answer(status=500 if b"customer 1" in request.body else 503, body=evil.encode())

    result = driven(handler, lambda url: at_once(3, url, api="chat"))
    assert (result.completed, result.refused, result.failed) == (1, 1, 1)
    table, page = as_table(result), as_html(result, at_once(3, api="chat"))
    for text in (table, page):
        assert "1 completed turns of 3" in text
        assert "refusal, of 1" in text
        assert "failure, of 1" in text
        assert "\x1b" not in text
    assert page.count("&quot;name&quot;:&quot;refused&quot;") == 1
    assert page.count("&quot;name&quot;:&quot;failed&quot;") == 1


def test_nobody_who_asked_is_no_success() -> None:
    result = driven(
        script(Answer()), lambda url: Scenario(url=url, load=Closed(users=1, seconds=0.0))
    )
    assert result.turns == 0
    assert not result.good
