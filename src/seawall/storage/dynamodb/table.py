"""The session table itself: is it there, and is it ours; making it where that is wished."""

import asyncio

from seawall.aws.dynamodb import DynamoDBClient
from seawall.aws.dynamodb_calls import (
    CREATE_TABLE,
    DESCRIBE_TABLE,
    DESCRIBE_TTL,
    UPDATE_TTL,
    Table,
    TableOutput,
)
from seawall.aws.dynamodb_errors import InvalidCall, NoSuchTable, TableInUse
from seawall.errors import ConfigError

__all__ = ["prepare_table"]

_KEYS = [
    {"AttributeName": "pk", "KeyType": "HASH"},
    {"AttributeName": "sk", "KeyType": "RANGE"},
]
_PAUSE_SECONDS = 0.5


async def prepare_table(
    client: DynamoDBClient, table: str, *, create: bool, seconds: float
) -> None:
    """Check the table, or create it, on demand and with expiry.

    Raises:
        ConfigError: it is not there, or is another kind of table.
        DynamoDBError: DynamoDB cannot be asked.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    try:
        described = await _describe(client, table, deadline)
    except NoSuchTable as error:
        if not create:
            raise ConfigError(
                f"sessions.table: there is no table {table}; create it as in "
                "docs/sessions-dynamodb.md, or set sessions.create_table = true"
            ) from error
        described = await _create(client, table, deadline)
    if described.table.key_schema != _KEYS:
        raise ConfigError(f"sessions.table: {table} is a table, but not one of Seawall's")
    while described.table.table_status == "CREATING":
        await asyncio.sleep(_PAUSE_SECONDS)
        described = await _describe(client, table, deadline)
    if create:
        await _enable_expiry(client, table, deadline)


async def _describe(client: DynamoDBClient, table: str, deadline: float) -> TableOutput:
    return await client.call(DESCRIBE_TABLE, {"TableName": table}, deadline=deadline)


async def _create(client: DynamoDBClient, table: str, deadline: float) -> TableOutput:
    request = Table(
        table_name=table,
        attribute_definitions=[
            {"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")
        ],
        key_schema=_KEYS,
        billing_mode="PAY_PER_REQUEST",
    )
    try:
        return await client.call(CREATE_TABLE, request, deadline=deadline)
    except TableInUse:  # another process was quicker
        return await _describe(client, table, deadline)


async def _enable_expiry(client: DynamoDBClient, table: str, deadline: float) -> None:
    asked = {"TableName": table}
    found = await client.call(DESCRIBE_TTL, asked, deadline=deadline)
    if found.time_to_live_description.time_to_live_status in ("ENABLED", "ENABLING"):
        return
    wanted = {"Enabled": True, "AttributeName": "ttl"}
    try:
        await client.call(
            UPDATE_TTL, asked | {"TimeToLiveSpecification": wanted}, deadline=deadline
        )
    except InvalidCall as error:
        if "already enabled" not in str(error):  # by another process, in this moment
            raise
    except TableInUse:
        return
