"""The DynamoDB table of a fleet: created before anything starts, deleted with the fleet."""

import asyncio
import os
from contextlib import suppress

from msgspec import structs

from seawall.aws import CredentialsError, find_region
from seawall.aws.credential_cache import CredentialCache, default_chain
from seawall.aws.dynamodb import DynamoDBClient
from seawall.aws.dynamodb_calls import DELETE_TABLE, DynamoDBError, NoSuchTable
from seawall.errors import ConfigError, SeawallError
from seawall.settings import SessionSettings
from seawall.storage.open import open_store
from seawall.transport.http_client import HttpClient

__all__ = ["delete_table", "make_table", "table_credentials", "table_region"]

_REGION = "us-east-1"
_DELETE_SECONDS = 10.0


def table_credentials() -> dict[str, str]:
    """The credentials of the environment, or dummy ones for DynamoDB Local."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    return {name: os.environ.get(name, "local") for name in names}


def table_region() -> str:
    """The region of the environment, or us-east-1 for DynamoDB Local.

    Raises:
        ConfigError: The region of the environment is invalid.
    """
    try:
        return find_region(os.environ) or _REGION
    except (ValueError, CredentialsError) as error:
        raise ConfigError(f"store: the region of the environment: {error}") from error


async def make_table(sessions: SessionSettings) -> None:
    """Create the table that the settings name.

    Raises:
        ConfigError: The settings are wrong.
        SeawallError: DynamoDB cannot be reached.
    """
    wanted = structs.replace(sessions, create_table=True)
    store = await open_store(wanted, os.environ | table_credentials())
    await store.close()


async def delete_table(endpoint: str, table: str, region: str) -> None:
    """Delete a table, if it exists.

    Raises:
        SeawallError: It could not be deleted; the message names it.
    """
    http = HttpClient()
    environment = os.environ | table_credentials()
    credentials = CredentialCache(default_chain(environment, http, region=region))
    try:
        client = DynamoDBClient(http, credentials, region=region, endpoint=endpoint)
        deadline = asyncio.get_running_loop().time() + _DELETE_SECONDS
        with suppress(NoSuchTable):
            await client.call(DELETE_TABLE, {"TableName": table}, deadline=deadline)
    except (DynamoDBError, ValueError) as error:
        raise SeawallError(
            f"the table {table} at {endpoint} could not be deleted: {error}"
        ) from error
    finally:
        await credentials.close()
        await http.close()
