"""`/metrics`: one scrape at a time, reused for a second."""

import asyncio
import threading
import time

import httpx2

from seawall.config import Settings
from seawall.hosts.http.app import HttpApplication
from seawall.orchestrator import Orchestrator
from tests.hosts.conftest import Pair


async def test_concurrent_requests_share_a_scrape() -> None:
    made: list[float] = []
    under_way = most = 0

    async def scrape() -> tuple[bytes, bytes]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            await asyncio.sleep(0.05)
        finally:
            under_way -= 1
        made.append(time.monotonic())
        return b"text/plain", b"%d" % len(made)

    application = HttpApplication(Orchestrator(Settings()), scrape=scrape)
    transport = httpx2.ASGITransport(app=application)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        first = await asyncio.gather(*(client.get("/metrics") for _ in range(30)))
        assert {each.content for each in first} == {b"1"}
        impatient = asyncio.create_task(client.get("/metrics"))
        await asyncio.sleep(1.05)
        impatient.cancel()
        gone = asyncio.create_task(client.get("/metrics"))
        await asyncio.sleep(0.01)
        gone.cancel()  # in the middle of its scrape: the next one makes it
        then = await asyncio.gather(*(client.get("/metrics") for _ in range(30)))
        assert len({each.content for each in then}) == 1
        assert then[0].content != b"1"
    assert most == 1
    assert len(made) <= 3


def test_many_scrapers_do_not_delay_turns(pair: Pair) -> None:
    until = time.monotonic() + 2.0
    scraped: list[int] = []

    def scrape() -> None:
        with httpx2.Client(base_url=pair.url) as client:
            while time.monotonic() < until:
                scraped.append(client.get("/metrics").status_code)

    crowd = [threading.Thread(target=scrape) for _ in range(4)]
    for each in crowd:
        each.start()
    with pair.client() as client:
        while time.monotonic() < until:
            assert client.post("/v1/turns", json={"text": "hi"}, timeout=5).status_code == 200
    for each in crowd:
        each.join()
    assert set(scraped) == {200}
