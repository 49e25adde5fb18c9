"""The stores that the contract is tried on."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from seawall.aws.credential_cache import CredentialCache
from seawall.aws.credential_chain import default_chain
from seawall.aws.dynamodb import DynamoDBClient
from seawall.sessions.dynamodb import DynamoDBStore
from seawall.sessions.port import SessionStore
from seawall.sessions.sqlite import SqliteStore
from seawall.transport.http_client import HttpClient
from tests.dynamodb_local import ENVIRONMENT

NAMES = ("dynamodb", "sqlite")

Clock = Callable[[], float]


def new_place(name: str) -> str:
    """A place where nothing is yet: a folder, or a table."""
    if name == "dynamodb":
        return f"sessions-{os.urandom(6).hex()}"
    return tempfile.mkdtemp(prefix="seawall-contract-")


def make_store(name: str, place: str, endpoint: str, clock: Clock = time.time) -> SessionStore:
    """A store of that kind at that place; to be opened, within a running event loop."""
    if name == "dynamodb":
        return dynamodb_store(endpoint, place, clock)
    return SqliteStore(Path(place) / "sessions.db", clock=clock)


def dynamodb_store(
    endpoint: str, table: str, clock: Clock = time.time, *, capacity: bool = False
) -> DynamoDBStore:
    """A store on DynamoDB Local, with a client of its own, which is closed with it."""
    http = HttpClient()
    region = ENVIRONMENT["AWS_REGION"]
    cache = CredentialCache(default_chain(ENVIRONMENT, http, region=region))
    client = DynamoDBClient(http, cache, region=region, endpoint=endpoint, capacity=capacity)

    async def close() -> None:
        await cache.close()
        await http.close()

    return DynamoDBStore(client, table, create=True, clock=clock, closing=close)
