"""Prism plays the services of real documents and checks each request that reaches it."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
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

_MOST_SAMPLES = 50  # for one operation: not every sample can be sent
PROGRAM = Path(__file__).with_name("prism.mjs")
AUTH: dict[str, dict[str, Any]] = {
    "adyen_checkout_v72.yaml": {"header": "x-api-key", "scheme": ""},
    "paypal_checkout_orders_v2.json": {},
    "paypal_customer_disputes_v1.json": {},
    "paypal_shipment_tracking_v1.json": {},
    "petstore.yaml": {},
}


@pytest.fixture(scope="module")
def played() -> Iterator[dict[str, str]]:
    """The addresses of the services; a request that its document does not allow is an error."""
    require(missing_openapi())
    documents = [str(data_file(f"openapi/{name}")) for name in AUTH]
    process = subprocess.Popen(
        ["node", str(PROGRAM), str(OPENAPI / "node_modules/"), *documents], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        ports = json.loads(process.stdout.readline())
        yield {
            name: f"http://127.0.0.1:{ports[document]}"
            for name, document in zip(AUTH, documents, strict=True)
        }
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize(
    ("name", "calls"), sampled([(name, calls) for name in AUTH for calls in (2, 5)], 2)
)
async def test_every_operation_is_called_as_its_document_says(
    played: dict[str, str], name: str, calls: int
) -> None:
    document = data_file(f"openapi/{name}")
    auth = {"kind": "static", "secret_env": "SECRET", **AUTH[name]}
    limits = {"attempts": 1, "min_calls": 10_000, "answer_seconds": 60}
    headers = {"api_key": "k"} if name == "petstore.yaml" else {}  # beside OAuth
    random = Random(name)
    async with opened(
        openapi=str(document), base_url=played[name], auth=auth, limits=limits, headers=headers
    ) as tools:
        for tool in tools.values():
            assert isinstance(tool, RemoteTool)
            came = 0
            for _ in range(_MOST_SAMPLES):
                if came == calls:
                    break
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
