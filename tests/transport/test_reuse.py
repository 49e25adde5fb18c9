"""Reuse of connections."""

import asyncio
from collections.abc import Mapping

import pytest

from seawall.transport.connection import ConnectFailed, ConnectionBroken, TransportTimeout
from seawall.transport.http_client import Endpoint, HttpClient
from tests.faulty_server import DROP, Answer, FaultyServer, Handler, script, serving

SIZED = Answer(body=b"sized")
CHUNKED: Mapping[str, str] = {"transfer-encoding": "chunked"}


async def requested(handler: Handler, calls: int = 3, *, replay: bool = True) -> FaultyServer:
    """A server after requests of one client."""
    async with serving(handler) as server:
        http = HttpClient()
        endpoint = Endpoint.parse(server.url)
        deadline = asyncio.get_running_loop().time() + 20
        try:
            for _ in range(calls):
                await http.request("POST", endpoint, body=b"x", deadline=deadline, replay=replay)
        finally:
            await http.close()
        return server


@pytest.mark.parametrize(
    "answer",
    [
        SIZED,
        Answer(body=b""),
        Answer(204, b""),
        Answer(500, b"failed"),
    ],
)
async def test_reused_after_a_complete_response(answer: Answer) -> None:
    assert (await requested(script(answer))).connections == 1


async def test_reused_after_a_chunked_response() -> None:
    def handler(_: object) -> Answer:
        return Answer(body=b"5\r\nhello\r\n0\r\n\r\n", headers=CHUNKED, sized=False)

    assert (await requested(handler)).connections == 1


async def test_closed_if_the_server_says_so() -> None:
    answer = Answer(body=b"sized", headers={"connection": "close"})
    assert (await requested(script(answer))).connections == 3


async def test_a_request_on_a_stale_connection_is_replayed() -> None:
    server = await requested(script(SIZED, DROP, SIZED), calls=2)
    assert (server.connections, len(server.requests)) == (2, 3)


async def test_not_replayed_if_the_caller_forbids_it() -> None:
    with pytest.raises(ConnectionBroken):
        await requested(script(SIZED, DROP, SIZED), calls=2, replay=False)


async def test_a_failed_replay_frees_its_connection_once() -> None:
    http = HttpClient(max_connections=1)
    deadline = asyncio.get_running_loop().time() + 20
    async with serving(script(SIZED)) as gone:
        endpoint = Endpoint.parse(gone.url)
        await http.request("GET", endpoint, deadline=deadline)
        gone.handler = script(DROP)
        gone.stop_listening()
        for _ in range(3):
            with pytest.raises(ConnectFailed):
                await http.request("GET", endpoint, deadline=deadline)
    running = peak = 0

    async def slowly() -> Answer:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.01)
        running -= 1
        return SIZED

    async with serving(lambda _: slowly(), port=endpoint.origin.port):
        calls = [http.request("GET", endpoint, deadline=deadline) for _ in range(4)]
        await asyncio.gather(*calls)
        assert peak == 1
        await http.close()


async def test_idle_connections_are_closed_without_further_requests() -> None:
    open_now, all_gone = 0, asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now
        open_now += 1
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            open_now -= 1
            if not open_now:
                all_gone.set()
        finally:
            writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        endpoint = Endpoint.parse(f"http://127.0.0.1:{port}/")
        http = HttpClient(idle_seconds=0.2)
        deadline = asyncio.get_running_loop().time() + 20
        await asyncio.gather(*(http.request("GET", endpoint, deadline=deadline) for _ in range(5)))
        assert open_now == 5
        async with asyncio.timeout(10):
            await all_gone.wait()
        all_gone.clear()
        assert (await http.request("GET", endpoint, deadline=deadline)).status == 200
        await http.close()
        async with asyncio.timeout(10):
            await all_gone.wait()


async def test_a_connection_whose_body_was_left_unread_is_read_again() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nend\r\n")
            await asyncio.sleep(0.05)
            writer.write(b"4\r\nmore\r\n0\r\n\r\n")
        writer.close()

    http = HttpClient()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    endpoint = Endpoint.parse(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    async with server:
        for _ in range(3):
            deadline = asyncio.get_running_loop().time() + 5
            async with http.stream("GET", endpoint, deadline=deadline) as response:
                assert await response.read_some() == b"end"
                await asyncio.sleep(0.2)  # the rest arrives while nothing waits for it
                await response.drain(seconds=0.05)
        await http.close()
    assert connections == 1


async def test_a_body_that_was_left_unread_until_its_deadline_is_not_complete() -> None:
    """Also if it has no length: the end of a connection that was closed here is not its end."""
    writers: list[asyncio.StreamWriter] = []

    def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nbegin")

    http = HttpClient()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        endpoint = Endpoint.parse(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        deadline = asyncio.get_running_loop().time() + 0.1
        async with http.stream("GET", endpoint, deadline=deadline) as response:
            await asyncio.sleep(0.3)
            assert await response.read_some() == b"begin"
            with pytest.raises(TransportTimeout):
                await response.read_some()
        await http.close()
        writers[0].transport.abort()
