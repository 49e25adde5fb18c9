"""A server made with the official SDK, over HTTP and over standard streams."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from seawall.tools.catalog import ToolCatalog
from seawall.tools.settings import McpSettings, SourceLimits
from tests.tools.mcp.harness import HERE, call, context, opened, python_server, until

LIMITS = SourceLimits(list_seconds=60.0, answer_seconds=20.0)
MORE: dict[str, Any] = {
    "trust_annotations": True,
    "resources": True,
    "prompts": True,
    "limits": LIMITS,
}


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    """Of the servers over HTTP, by how they answer."""
    with socket.socket() as first, socket.socket() as second:
        for free in (first, second):
            free.bind(("127.0.0.1", 0))
        ports = [free.getsockname()[1] for free in (first, second)]
    process = subprocess.Popen(
        [sys.executable, str(HERE / "sdk_server.py"), "http", *map(str, ports)],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for port in ports:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                except ConnectionRefusedError:
                    assert process.poll() is None
                    time.sleep(0.05)
                else:
                    break
        yield {
            way: f"http://127.0.0.1:{port}/mcp"
            for way, port in zip(("http", "http json"), ports, strict=True)
        }
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("way", ["stdio", "http", "http json"])
async def test_everything_that_it_offers(way: str, addresses: dict[str, str]) -> None:
    if way == "stdio":
        settings = McpSettings(command=python_server("sdk_server.py", "stdio"), **MORE)
    else:
        settings = McpSettings(mcp=addresses[way], **MORE)
    async with opened(settings) as catalog:
        await _calls(catalog)
        await _resources_and_prompts(catalog)
        if way != "http json":  # answered as JSON, a call does not notice that it is cancelled
            await _cancellation(catalog)
            await _changes(catalog)


async def _calls(catalog: ToolCatalog) -> None:
    effects = {each.name: each.mutating for each in catalog.tools["server"]}
    assert effects["get_order"] is False
    assert effects["cancel_order"] is True
    order = await call(catalog, "get_order", {"number": "7"})
    assert msgspec.json.decode(order.content) == {"number": "7", "total": 12.5}
    first, second = [
        (await call(catalog, "cancel_order", {"number": "7"}, context(key="k"))).content
        for _ in range(2)
    ]
    assert first == "cancelled 7 once for k, 1 calls"
    assert second == "cancelled 7 once for k, 2 calls"  # the server sees that it is the same
    failed = await call(catalog, "fail")
    assert (failed.failed, failed.unknown) == (True, False)
    assert (await call(catalog, "draw")).content.startswith("a picture\n[image image/png, ")
    many = await asyncio.gather(
        *(call(catalog, "get_order", {"number": str(n)}) for n in range(30))
    )
    numbers = [re.findall(r'"number": ?"(\d+)"', each.content) for each in many]
    assert numbers == [[str(n)] for n in range(30)]


async def _resources_and_prompts(catalog: ToolCatalog) -> None:
    listed = (await call(catalog, "list_resources")).content
    assert "shop://terms (terms) text/plain" in listed
    assert "shop://order/{number}" in listed
    terms = await call(catalog, "read_resource", {"uri": "shop://terms"})
    assert terms.content.endswith("No refunds on Sundays.")
    assert (await call(catalog, "read_resource", {"uri": "shop://order/5"})).content.endswith(
        "of 5"
    )
    assert (await call(catalog, "read_resource", {"uri": "shop://nothing"})).failed
    assert "complaint (subject*)" in (await call(catalog, "list_prompts")).content
    wanted = {"name": "complaint", "arguments": {"subject": "tea"}}
    assert (await call(catalog, "get_prompt", wanted)).content == "user: Complain about tea."


async def _cancellation(catalog: ToolCatalog) -> None:
    late = await call(catalog, "slow", {"seconds": 60}, context(seconds=0.3))
    assert late.failed
    task = asyncio.create_task(call(catalog, "slow", {"seconds": 60}))
    await until(lambda: catalog.upstreams["server"].in_flight > 0)
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    while (await call(catalog, "cancellations")).content != "2":  # noqa: ASYNC110 - as it says
        await asyncio.sleep(0.02)


async def _changes(catalog: ToolCatalog) -> None:
    changed = asyncio.Event()
    catalog.start(changed.set)
    while not changed.is_set():  # the stream of changes may not be open yet
        await call(catalog, "grow")
        await asyncio.sleep(0.1)
    assert (await call(catalog, "added")).content == "new"
