"""A store of each kind, with a clock that tests set."""

from collections.abc import AsyncGenerator

import pytest

from seawall.storage.port import SessionStore
from tests.storage.calls import Clock
from tests.storage.stores import NAMES, make_store, new_location


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=NAMES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def endpoint(kind: str, request: pytest.FixtureRequest) -> str:
    """Where DynamoDB Local is; empty for other stores."""
    return str(request.getfixturevalue("dynamodb")) if kind == "dynamodb" else ""


@pytest.fixture
async def store(kind: str, endpoint: str, clock: Clock) -> AsyncGenerator[SessionStore, None]:
    """A new store, open; each test that uses it is run on every kind."""
    made = make_store(kind, new_location(kind), endpoint, clock)
    await made.open()
    try:
        yield made
    finally:
        await made.close()
