"""What is known of surges and consoles of other workers, while these run, end and start."""

import asyncio
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from seawall.config import parse_settings
from seawall.console.service import open_service
from seawall.console.surge import SurgeFigures, SurgeOrder, Surges
from seawall.errors import Overloaded
from seawall.hosts.http.app import HttpApplication
from seawall.orchestrator import Orchestrator
from seawall.settings import ConsoleSurgeSettings
from tests.console.app import CONFIGURATION, look_up

FIGURES = SurgeFigures(headline="", good=True, interrupted=False, warnings=[], errors={})


async def test_while_it_is_noted_that_one_has_ended_it_is_neither_unknown_nor_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def end(self: Surges, order: SurgeOrder) -> None:
        self._take(FIGURES, order)

    monkeypatch.setattr(Surges, "_drive", end)
    settings = ConsoleSurgeSettings(people=1)
    runs, asked = (Surges(settings, str(tmp_path), tmp_path) for _ in range(2))
    await runs.start("http://127.0.0.1:9", 1, 0.0, "olga")
    seen: Counter[str] = Counter()
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            surge = asked.newest()
            seen[surge.state if surge is not None else "unknown"] += 1

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(500):
            with suppress(Overloaded):  # who asks has the lock for a moment
                await runs.start("http://127.0.0.1:9", 1, 0.0, "olga")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    finally:
        done.set()
        asking.join()
        await runs.close()
    assert set(seen) <= {"running", "ended"}
    assert seen["ended"]


@pytest.mark.parametrize("path", ["/console/", "/console/api/surge", "/console/api/me"])
async def test_a_worker_that_starts_has_no_console_yet_and_none_by_itself(
    tmp_path: Path, path: str
) -> None:
    settings = {
        "SEAWALL_SESSIONS__PATH": str(tmp_path / "sessions.db"),
        "SEAWALL_IDENTITY__ANONYMOUS": "true",
        "SEAWALL_CONSOLE__ENABLED": "true",
    }
    app = Orchestrator(parse_settings(CONFIGURATION, environment=settings))
    app.tool(look_up)
    application = HttpApplication(app, manage_lifespan=False, in_worker=True)
    transport = httpx2.ASGITransport(app=application)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:

        async def refused() -> None:
            answered = await client.get(path)
            assert answered.status_code == 503, answered.text
            assert "not open yet" in answered.json()["detail"]
            assert answered.headers["retry-after"] == "1"

        await refused()
        await app.open()
        try:
            await refused()  # as while it warms up
            application.console_service = open_service(app)
            assert (await client.get(path)).status_code == 200
        finally:
            await app.close()
