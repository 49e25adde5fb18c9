"""Each fault on the wire, and the counters of the simulated model."""

import asyncio
import gc
import re
import sys
from collections import Counter
from typing import Any

import msgspec
import pytest

from seawall.lab.sim_model.limits import SimLimits
from seawall.lab.sim_model.reply import SimTimes
from seawall.transport.connection import ConnectFailed, ConnectionBroken, TransportTimeout
from tests.lab.simulated import request, simulating, until

NO_END = b"0\r\n\r\n"
END = b"data: [DONE]\n\n\r\n0\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def events(body: bytes) -> list[bytes]:
    return re.findall(rb"data: (.*)\n\n", body)


def error_of(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(body)["error"]
    return found


def balanced(stats: dict[str, Any]) -> bool:
    """Whether every request is counted exactly once."""
    ended = stats["completed"] + stats["cancelled"] + stats["broken"]
    return bool(
        stats["requests"] == stats["started"] + stats["refused"]
        and stats["started"] == ended + stats["open_streams"]
    )


async def test_without_rules_replies_are_complete() -> None:
    async with simulating() as sim:
        streamed = await sim.ask()
        assert len(events(streamed.body)) == 7  # five pieces, the reason, [DONE]
        whole = await sim.ask(stream=False)
        assert msgspec.json.decode(whole.body)["choices"][0]["finish_reason"] == "stop"
        stats = await sim.stats_when_idle()
        assert balanced(stats)
        assert (stats["completed"], stats["peak_streams"], stats["faults"]) == (2, 1, {})


async def test_a_reply_that_has_ended_leaves_nothing_for_the_garbage_collector() -> None:
    """The model runs without one."""
    async with simulating() as sim:
        await sim.ask()
        [connection] = sim.model.connections
        gc.collect()
        gc.disable()
        try:
            before = sys.getrefcount(connection)
            for _ in range(3):
                await sim.ask()
            await sim.stats_when_idle()
            assert [connection] == list(sim.model.connections)  # which was used again
            assert sys.getrefcount(connection) == before
        finally:
            gc.enable()


async def test_a_rule_that_does_not_apply_changes_nothing() -> None:
    async def reply(*rules: dict[str, object]) -> bytes:
        async with simulating(*rules) as sim:
            return re.sub(rb"chatcmpl-sim-\d+", b"", (await sim.ask()).body)

    expected = await reply()
    assert await reply({"kind": "hang", "match": "other"}) == expected
    assert await reply({"kind": "slow", "factor": 1.0}) == expected


async def test_throttle() -> None:
    async with simulating({"kind": "throttle", "retry_after": 2.5}) as sim:
        answer = await sim.ask()
        assert answer.status == 429
        assert answer.headers["retry-after"] == "3"
        assert answer.headers["retry-after-ms"] == "2500"
        error = error_of(answer.body)
        assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
        assert "try again in 2.5s" in error["message"]
        stats = await sim.stats_when_idle()
        assert balanced(stats)
        assert (stats["refused"], stats["started"]) == (1, 0)
        assert stats["faults"] == {"throttle": 1}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (500, "server_error"),
        (503, "server_error"),
        (529, "overloaded_error"),
    ],
)
async def test_error(status: int, kind: str) -> None:
    async with simulating({"kind": "error", "status": status, "code": "broken_on_purpose"}) as sim:
        answer = await sim.ask()
        assert answer.status == status
        assert "retry-after" not in answer.headers
        assert error_of(answer.body)["type"] == kind
        assert error_of(answer.body)["code"] == "broken_on_purpose"
        assert (await sim.stats_when_idle())["faults"] == {"error": 1}


async def test_errors_in_bursts() -> None:
    fast = SimTimes(first_token=(0, 0), duration=(0, 0), chunks=1)
    async with simulating({"kind": "error", "until": 0.05, "every": 0.1}, times=fast) as sim:
        statuses: Counter[int] = Counter()
        bursts, before = 0, 200
        while bursts < 3:
            status = (await sim.ask(stream=False)).status
            bursts += (before, status) == (200, 500)
            statuses[status] += 1
            before = status
        stats = await sim.stats_when_idle()
        assert stats["faults"] == {"error": statuses[500]}
        assert stats["completed"] == statuses[200]


POINTS = [("before-head", 0, 0), ("after-head", 1, 0), ("in-stream", 1, 2), ("in-stream", 1, 4)]


@pytest.mark.parametrize(("at", "heads", "chunks"), POINTS)
async def test_hang(at: str, heads: int, chunks: int) -> None:
    # In a stream of five events the last, with its end, is never sent: at most four are.
    async with simulating({"kind": "hang", "at": at, "chunks": 2 if chunks < 4 else 99}) as sim:
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
        writer.write(request("hello"))
        received = b""
        while received.count(b"HTTP/1.1 200 OK") < heads or len(events(received)) < chunks:
            received += await reader.read(65_536)
        await asyncio.sleep(0.15)  # longer than a whole reply: nothing else may arrive
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                received += await reader.read(65_536)
        assert len(events(received)) == chunks
        stats = await sim.stats()
        assert balanced(stats)
        assert (stats["open_streams"], stats["faults"]) == (1, {"hang": 1})
        writer.close()
        await writer.wait_closed()
        stats = await sim.stats_when_idle()
        assert balanced(stats)
        assert stats["cancelled"] == 1


@pytest.mark.parametrize(("at", "heads", "chunks"), POINTS)
async def test_drop(at: str, heads: int, chunks: int) -> None:
    async with simulating({"kind": "drop", "at": at, "chunks": 2 if chunks < 4 else 99}) as sim:
        received = await sim.raw()
        assert received.count(STREAM) == heads
        assert len(events(received)) == chunks
        assert not received.endswith(NO_END)
        with pytest.raises(ConnectionBroken):
            await sim.ask()
        stats = await sim.stats_when_idle()
        assert balanced(stats)
        assert (stats["broken"], stats["faults"]) == (2, {"drop": 2})


@pytest.mark.parametrize(("at", "heads", "chunks"), POINTS)
async def test_reset(at: str, heads: int, chunks: int) -> None:
    async with simulating({"kind": "reset", "at": at, "chunks": 2 if chunks < 4 else 99}) as sim:
        with pytest.raises(ConnectionResetError) as caught:
            await sim.raw()
        received = caught.value.args[0]
        assert received.count(STREAM) <= heads  # a reset may overtake what the reader has not read
        assert len(events(received)) <= chunks
        stats = await sim.stats_when_idle()
        assert balanced(stats)
        assert (stats["broken"], stats["faults"]) == (1, {"reset": 1})


async def test_malformed() -> None:
    async with simulating({"kind": "malformed", "chunks": 2}) as sim:
        answer = await sim.ask()
        received = events(answer.body)
        assert len(received) == 8
        with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
            msgspec.json.decode(received[2])
        for each in (*received[:2], *received[3:-1]):
            msgspec.json.decode(each)
        whole = await sim.ask(stream=False)
        with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
            msgspec.json.decode(whole.body)
        stats = await sim.stats_when_idle()
        assert (stats["completed"], stats["faults"]) == (2, {"malformed": 2})


async def test_stream_error() -> None:
    async with simulating({"kind": "stream-error", "chunks": 2}) as sim:
        answer = await sim.ask()
        received = events(answer.body)
        assert len(received) == 3
        assert error_of(received[2])["type"] == "server_error"
        stats = await sim.stats_when_idle()
        assert balanced(stats)
        assert (stats["broken"], stats["faults"]) == (1, {"stream-error": 1})
        assert stats["accepted"] == 1  # the body was ended: the connection is reused


async def test_truncate() -> None:
    async with simulating({"kind": "truncate", "chunks": 2}) as sim:
        answer = await sim.ask()
        received = events(answer.body)
        assert len(received) == 2
        assert not any(msgspec.json.decode(x)["choices"][0]["finish_reason"] for x in received)
        whole = await sim.ask(stream=False)
        with pytest.raises(msgspec.DecodeError):
            msgspec.json.decode(whole.body)
        stats = await sim.stats_when_idle()
        assert (stats["broken"], stats["faults"]) == (2, {"truncate": 2})
        assert stats["accepted"] == 1


async def test_slow() -> None:
    async with simulating({"kind": "slow", "factor": 1_000.0, "match": "slow"}) as sim:
        with pytest.raises(TransportTimeout):
            await sim.ask("slow", seconds=0.3)  # without the fault it takes 0.06 s
        assert (await sim.ask("quick", seconds=20)).status == 200
        stats = await sim.stats_when_idle()
        assert (stats["completed"], stats["cancelled"]) == (1, 1)
        assert stats["faults"] == {"slow": 1}


async def test_an_outage_refuses_and_ends() -> None:
    async with simulating({"kind": "hang", "model": "hangs"}) as sim:
        assert (await sim.ask("before", stream=False)).status == 200
        hanging = asyncio.create_task(sim.ask("hang", model="hangs"))
        await until(lambda: sim.model.stats.open_streams == 1)
        replaced = await sim.get("/sim/faults", b'{"rules":[{"kind":"refuse","until":1.0}]}')
        assert msgspec.json.decode(replaced.body) == {"rules": 1}
        with pytest.raises((ConnectionBroken, ConnectFailed)):  # it may be retried, in vain
            await hanging
        with pytest.raises(ConnectFailed):
            await sim.ask("during")
        async with asyncio.timeout(20):
            while True:
                try:
                    assert (await sim.ask("after")).status == 200
                    break
                except ConnectFailed:
                    await asyncio.sleep(0.05)
        stats = await sim.stats_when_idle()
        assert balanced(stats)
        assert stats["faults"] == {"hang": 1, "refuse": 1}
        assert (stats["completed"], stats["broken"]) == (2, 1)


async def test_rules_are_replaced_at_run_time() -> None:
    async with simulating({"kind": "error", "status": 503, "attempts": 1}) as sim:
        assert (await sim.ask()).status == 503
        assert (await sim.ask()).status == 200
        again = b'{"rules":[{"kind":"error","status":500,"attempts":1}]}'
        await sim.get("/sim/faults", again)
        assert (await sim.ask()).status == 500  # attempts are counted anew
        assert (await sim.ask()).status == 200
        wrong = await sim.get("/sim/faults", b'{"rules":[{"kind":"error","status":"x"}]}')
        assert wrong.status == 400
        assert error_of(wrong.body)["message"] == "rules[0].status: Expected `int`, got `str`"
        assert (await sim.ask("more")).status == 500  # the previous rules stay
        await sim.get("/sim/faults", b"{}")
        assert (await sim.ask("yet more")).status == 200
        assert (await sim.stats_when_idle())["faults"] == {"error": 3}


async def test_an_outage_of_one_model_leaves_the_others_available() -> None:
    rule = {"kind": "error", "status": 503, "model": "large"}
    async with simulating(rule, models=("large", "small")) as sim:
        assert (await sim.ask(model="large")).status == 503
        assert (await sim.ask(model="small")).status == 200
        assert (await sim.ask(model="never heard of")).status == 200
        listed = msgspec.json.decode((await sim.get("/v1/models")).body)
        assert [each["id"] for each in listed["data"]] == ["large", "small"]
        stats = await sim.stats_when_idle()
        assert stats["models"] == {"large": 1, "small": 1, "never heard of": 1}


async def test_the_seed_determines_which_requests_fail() -> None:
    rules = {"kind": "error", "probability": 0.5}, {"kind": "throttle", "probability": 0.3}
    fast = SimTimes(first_token=(0, 0), duration=(0, 0), chunks=1)

    async def statuses(seed: int) -> list[int]:
        async with simulating(*rules, times=fast, seed=seed) as sim:
            return [(await sim.ask(f"{index % 5}", stream=False)).status for index in range(30)]

    found = await statuses(7)
    assert set(found) == {200, 429, 500}
    assert await statuses(7) == found
    assert await statuses(8) != found


async def test_requests_per_minute_by_model() -> None:
    async with simulating(limits=SimLimits(requests_per_minute=2)) as sim:
        first = await sim.ask("a", stream=False)
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert first.headers["x-ratelimit-reset-requests"] == "30s"
        assert "x-ratelimit-limit-tokens" not in first.headers
        assert (await sim.ask("b")).status == 200
        refused = await sim.ask("c")
        assert refused.status == 429
        assert 25 <= int(refused.headers["retry-after"]) <= 30
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert error_of(refused.body)["code"] == "rate_limit_exceeded"
        assert (await sim.ask("d", model="other")).status == 200
        stats = await sim.stats_when_idle()
        assert balanced(stats)
        assert stats["faults"] == {"requests-per-minute": 1}


async def test_tokens_per_minute() -> None:
    async with simulating(limits=SimLimits(tokens_per_minute=100)) as sim:
        assert (await sim.ask("x" * 320)).status == 200
        refused = await sim.ask("x" * 320)
        assert refused.status == 429
        assert error_of(refused.body)["type"] == "tokens"
        assert int(refused.headers["x-ratelimit-remaining-tokens"]) <= 21
        assert (await sim.ask("x" * 40)).status == 200
        assert (await sim.stats_when_idle())["faults"] == {"tokens-per-minute": 1}


async def test_a_limit_of_concurrent_streams() -> None:
    unhurried = SimTimes(first_token=(0.5, 0.5), duration=(1, 1), chunks=3)
    async with simulating(times=unhurried, limits=SimLimits(max_concurrent=8)) as sim:
        answers = await asyncio.gather(*(sim.ask(f"{index}") for index in range(20)))
        statuses = Counter(each.status for each in answers)
        assert statuses == {200: 8, 429: 12}
        assert (await sim.ask("afterwards")).status == 200
        stats = await sim.stats_when_idle()
        assert balanced(stats)
        assert (stats["peak_streams"], stats["faults"]) == (8, {"max-concurrent": 12})


async def test_replies_slow_down_under_load() -> None:
    loop = asyncio.get_running_loop()
    async with simulating(limits=SimLimits(slow_above=2)) as sim:

        async def seconds(message: str) -> float:
            began = loop.time()
            assert (await sim.ask(message)).status == 200
            return loop.time() - began

        alone = await seconds("alone")
        assert alone >= 0.06
        crowd = await asyncio.gather(*(seconds(f"{index}") for index in range(20)))
        assert min(crowd) >= 0.06 * 4  # they speed up as others end
        assert (await sim.stats_when_idle())["faults"] == {}
