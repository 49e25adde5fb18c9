"""Documents of real services load whole, and each operation can be called."""

import time
from random import Random
from urllib.parse import urlsplit

import pytest

from seawall.tools.openapi.document import open_document
from seawall.tools.openapi.operations import Operation, read_operations
from seawall.tools.openapi.request import UnsendableArgument, build_request
from tests.parts import data_file
from tests.tools.openapi.documents import sample

DOCUMENTS = {
    "adyen_checkout_v72.yaml": 28,
    "paypal_checkout_orders_v2.json": 8,
    "paypal_customer_disputes_v1.json": 15,
    "paypal_shipment_tracking_v1.json": 5,
    "petstore.yaml": 19,
}
_SECONDS = 1.0  # of CPU time: the machine may be busy


def operations(name: str) -> tuple[Operation, ...]:
    found = read_operations(open_document(data_file(f"openapi/{name}")), ["*"])
    assert not found.skipped
    return found.usable


@pytest.mark.alone
@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_operation_is_loaded_in_bounded_time(name: str) -> None:
    began = time.process_time()
    found = operations(name)
    assert time.process_time() - began < _SECONDS
    assert len(found) == DOCUMENTS[name]
    assert all(each.server.startswith("https://") for each in found)
    assert not {"Authorization", "api_key", "X-API-Key"} & {
        parameter.name for each in found for parameter in each.parameters
    }


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_request_can_be_built_for_every_operation(name: str) -> None:
    random = Random(name)
    for operation in operations(name):
        built = [build(operation, random) for _ in range(10)]
        assert any(built), operation.reference


def build(operation: Operation, random: Random) -> bool:
    arguments = sample(operation.schema, random)
    try:
        request = build_request(operation, arguments, "key-1")
    except UnsendableArgument:
        return False
    assert urlsplit(request.url).hostname == urlsplit(operation.server).hostname
    assert request.url.isascii()
    assert " " not in request.url
    assert ((b"Idempotency-Key", b"key-1") in request.headers) is operation.changes
    return True
