"""The stores that the contract is tried on."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from seawall.aws.credential_cache import CredentialCache, default_chain
from seawall.aws.dynamodb import DynamoDBClient
from seawall.storage.dynamodb.store import DynamoDBStore
from seawall.storage.port import SessionStore
from seawall.storage.sqlite.store import SqliteStore
from seawall.transport.http_client import HttpClient
from tests.dynamodb_local import ENVIRONMENT

NAMES = ("dynamodb", "sqlite")

Clock = Callable[[], float]


def new_location(name: str) -> str:
    """A new, empty location: a folder, or the name of a table."""
    if name == "dynamodb":
        return f"sessions-{os.urandom(6).hex()}"
    return tempfile.mkdtemp(prefix="seawall-contract-")


def make_store(name: str, location: str, endpoint: str, clock: Clock = time.time) -> SessionStore:
    """A store of that kind at that location; to be opened in an event loop."""
    if name == "dynamodb":
        return dynamodb_store(endpoint, location, clock)
    return SqliteStore(Path(location) / "sessions.db", clock=clock)


class LocalClient(DynamoDBClient):
    """A client of DynamoDB Local that owns what it stands on."""

    def __init__(self, endpoint: str, *, capacity: bool = False, clock: Clock = time.time) -> None:
        self._own_http = HttpClient()
        region = ENVIRONMENT["AWS_REGION"]
        self._own_cache = CredentialCache(default_chain(ENVIRONMENT, self._own_http, region=region))
        super().__init__(
            self._own_http,
            self._own_cache,
            region=region,
            endpoint=endpoint,
            capacity=capacity,
            clock=clock,
        )

    async def close(self) -> None:
        """Close connections and credentials."""
        await self._own_cache.close()
        await self._own_http.close()


def dynamodb_store(endpoint: str, table: str, clock: Clock = time.time) -> DynamoDBStore:
    """A store on DynamoDB Local, with a client of its own, which is closed with it."""
    client = LocalClient(endpoint)
    return DynamoDBStore(client, table, create=True, clock=clock, closing=client.close)
