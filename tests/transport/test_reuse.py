"""When connections are used again, and when not."""

import asyncio
from collections.abc import Mapping

import pytest

from seawall.transport.errors import ConnectionBroken
from seawall.transport.http_client import Endpoint, HttpClient
from tests.faulty_server import DROP, Answer, FaultyServer, Handler, script, serving

SIZED = Answer(body=b"sized")
CHUNKED: Mapping[str, str] = {"transfer-encoding": "chunked"}


def connections_of(handler: Handler, calls: int = 3, *, replay: bool = True) -> FaultyServer:
    async def play() -> FaultyServer:
        async with serving(handler) as server:
            http = HttpClient()
            endpoint = Endpoint.parse(server.url)
            deadline = asyncio.get_running_loop().time() + 20
            try:
                for _ in range(calls):
                    await http.request(
                        "POST", endpoint, body=b"x", deadline=deadline, replay=replay
                    )
            finally:
                await http.close()
            return server

    return asyncio.run(play())


@pytest.mark.parametrize(
    "answer",
    [
        SIZED,
        Answer(body=b""),
        Answer(204, b""),
        Answer(500, b"failed"),
    ],
)
def test_kept_after_a_whole_answer(answer: Answer) -> None:
    assert connections_of(script(answer)).connections == 1


def test_kept_after_chunks() -> None:
    def handler(_: object) -> Answer:
        return Answer(body=b"5\r\nhello\r\n0\r\n\r\n", headers=CHUNKED, sized=False)

    assert connections_of(handler).connections == 1


def test_closed_where_the_server_says_so() -> None:
    answer = Answer(body=b"sized", headers={"connection": "close"})
    assert connections_of(script(answer)).connections == 3


def test_a_request_that_a_closing_connection_swallowed_is_sent_again() -> None:
    server = connections_of(script(SIZED, DROP, SIZED), calls=2)
    assert (server.connections, len(server.requests)) == (2, 3)


def test_not_sent_again_where_that_is_not_wanted() -> None:
    with pytest.raises(ConnectionBroken):
        connections_of(script(SIZED, DROP, SIZED), calls=2, replay=False)
