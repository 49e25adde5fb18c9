"""The demo: a conversation with an approval, then a crowd."""

import asyncio
import re
from typing import Any

import httpx2

from seawall.lab.demo import Demo, DemoResult, run_demo
from tests.servers import ROOT


async def surge_from_the_console(url: str) -> dict[str, Any]:
    """A surge that is started from the page, once it has ended."""
    async with httpx2.AsyncClient(base_url=f"{url}api", timeout=20) as client:
        token = (await client.get("/me")).json()["token"]
        asked = {"x-console-token": token}
        started = await client.post("/surge", json={"people": 4}, headers=asked)
        assert started.status_code == 200, started.text
        async with asyncio.timeout(60):
            while True:
                found: dict[str, Any] = (await client.get("/surge")).json()["surge"]
                if found["state"] in ("ended", "broken"):
                    return found
                await asyncio.sleep(0.1)


async def test_the_conversation_pauses_for_an_approval_and_goes_on() -> None:
    shown: list[str] = []
    surges: list[dict[str, Any]] = []

    async def keep(_: DemoResult) -> None:
        address = re.search(r"browser: (\S+)", "".join(shown))
        assert address is not None
        surges.append(await surge_from_the_console(address[1]))

    result = await run_demo(
        Demo(
            example=ROOT / "examples/store",
            turns=3,
            seed=0,
            write_line=lambda line: shown.append(line + "\n"),
            write=shown.append,
            progress=lambda _: None,
            keep=keep,
        )
    )
    text = "".join(shown)
    expected = (
        "User:      Oh, I ordered that by mistake. Please cancel it.",
        "· cancel_pending_order {",
        "· waits for approval by the customer: cancel_pending_order",
        "· paused",
        "· approved",
        "· answered: {",
        "Done: order #W1005754 is cancelled.",
        "· durable as turn 2 of its session",
        "User:      Then cancel #W1000274 as well, please.",
        "· refused: The order is 'delivered'",
        "· durable as turn 3 of its session",
    )
    position = 0
    for each in expected:
        position = text.index(each, position) + len(each)
    assert text.count("waits for approval") == 1
    assert (result.turns, result.completed, result.durable) == (3, 3, 3)
    processes = (result.server_cpu_ms_a_turn, result.model_cpu_ms_a_turn)
    assert min(*processes, result.driver_cpu_ms_a_turn) > 0
    (surge,) = surges
    assert surge["figures"]["good"] is True, surge
    assert surge["figures"]["headline"].startswith("4 of 4 turns completed")
