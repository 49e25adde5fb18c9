"""Prism plays the services of real documents and checks each request that reaches it."""

import asyncio
import json
import socket
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from seawall.tools.remote import RemoteTool
from tests.parts import data_file, require
from tests.parts.tools import OPENAPI, missing_openapi
from tests.properties import sampled
from tests.tools.openapi.documents import sample
from tests.tools.openapi.services import context, opened

_START_SECONDS = 120
AUTH: dict[str, dict[str, Any]] = {
    "adyen_checkout_v72.yaml": {"header": "x-api-key", "scheme": ""},
    "paypal_checkout_orders_v2.json": {},
    "paypal_customer_disputes_v1.json": {},
    "paypal_shipment_tracking_v1.json": {},
    "petstore.yaml": {},
}


@asynccontextmanager
async def played(document: Path) -> AsyncGenerator[str, None]:
    """The address of the service; a request that its document does not allow is an error."""
    require(missing_openapi())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = OPENAPI / "node_modules/.bin/prism"
    process = await asyncio.create_subprocess_exec(
        *("node", str(command), "mock", "--port", str(port), str(document)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_START_SECONDS):
            while b"is listening" not in (line := await process.stdout.readline()):
                assert line, "Prism has ended"
        reading = asyncio.create_task(process.stdout.read())
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()
    await reading


@pytest.mark.parametrize(
    ("name", "calls"), sampled([(name, calls) for name in AUTH for calls in (2, 5)], 2)
)
async def test_every_operation_is_called_as_its_document_says(name: str, calls: int) -> None:
    document = data_file(f"openapi/{name}")
    auth = {"kind": "static", "secret_env": "SECRET", **AUTH[name]}
    limits = {"attempts": 1, "min_calls": 10_000, "answer_seconds": 60}
    headers = {"api_key": "k"} if name == "petstore.yaml" else {}  # beside OAuth
    random = Random(name)
    async with (
        played(document) as address,
        opened(
            openapi=str(document), base_url=address, auth=auth, limits=limits, headers=headers
        ) as tools,
    ):
        for tool in tools.values():
            assert isinstance(tool, RemoteTool)
            came = 0
            for _ in range(calls):
                arguments = sample(tool.operation.schema, random)
                if "" in arguments.values():
                    continue  # to Prism, an empty text in a query is not there
                deadline = asyncio.get_running_loop().time() + 60
                outcome = await tool.call(json.dumps(arguments), context(deadline=deadline))
                if outcome.failed and "must not" in outcome.content:
                    continue
                assert not outcome.failed, (tool.name, arguments, outcome.content)
                came += 1
            assert came, tool.name
