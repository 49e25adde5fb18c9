"""DynamoDB client against Amazon's DynamoDB Local."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable

import pytest
from msgspec import Struct

from seawall.aws import EnvironmentSource
from seawall.aws.credential_cache import CredentialCache
from seawall.aws.dynamodb import DynamoDBClient
from seawall.aws.dynamodb_batches import batch_delete, batch_get, batch_put
from seawall.aws.dynamodb_calls import (
    CREATE_TABLE,
    DELETE,
    DELETE_TABLE,
    DESCRIBE_TABLE,
    DESCRIBE_TTL,
    GET,
    PUT,
    QUERY,
    UPDATE,
    UPDATE_TTL,
    ConditionCheck,
    ConditionFailed,
    Delete,
    Get,
    GetOutput,
    InvalidCall,
    Item,
    NoSuchTable,
    Operation,
    Put,
    Query,
    Table,
    TableInUse,
    TransactionCancelled,
    Update,
)
from seawall.transport.http_client import HttpClient
from tests.dynamodb_local import ENVIRONMENT

Scene = Callable[[DynamoDBClient, str], Awaitable[None]]


def key(sort: str, partition: str = "a") -> Item:
    return {"pk": {"S": partition}, "sk": {"S": sort}}


def soon() -> float:
    return asyncio.get_running_loop().time() + 30.0


async def play(url: str, scene: Scene) -> None:
    """A scene with a client and the name of an empty table of its own."""

    http = HttpClient()
    cache = CredentialCache(EnvironmentSource(ENVIRONMENT))
    client = DynamoDBClient(http, cache, region="eu-west-1", endpoint=url, capacity=True)
    name = f"test-{uuid.uuid4()}"
    table = Table(
        table_name=name,
        attribute_definitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        key_schema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
        billing_mode="PAY_PER_REQUEST",
    )
    try:
        created = await client.call(CREATE_TABLE, table, deadline=soon())
        assert created.table.table_name == name
        await scene(client, name)
        with pytest.raises(TableInUse):
            await client.call(CREATE_TABLE, table, deadline=soon())
        await client.call(DELETE_TABLE, {"TableName": name}, deadline=soon())
    finally:
        await cache.close()
        await http.close()


async def test_single_items(dynamodb: str) -> None:
    async def scene(client: DynamoDBClient, name: str) -> None:
        item = key("1") | {"n": {"N": "1"}, "blob": {"B": b"\x00\xff"}, "l": {"L": [{"S": "x"}]}}
        new = "attribute_not_exists(pk)"
        put = Put(table_name=name, item=item, condition_expression=new)
        await client.call(PUT, put, deadline=soon())
        with pytest.raises(ConditionFailed) as failed:
            await client.call(PUT, put, deadline=soon())
        assert failed.value.item is None
        put.return_values_on_condition_check_failure = "ALL_OLD"
        with pytest.raises(ConditionFailed) as failed:
            await client.call(PUT, put, deadline=soon())
        assert failed.value.item is not None
        assert failed.value.item["n"] == {"N": "1"}

        get = Get(table_name=name, key=key("1"), consistent_read=True)
        got = await client.call(GET, get, deadline=soon())
        assert got.item == item | {"blob": {"B": "AP8="}}
        assert got.consumed_capacity is not None
        assert got.consumed_capacity.capacity_units == 1.0
        eventual = await client.call(GET, Get(table_name=name, key=key("1")), deadline=soon())
        assert eventual.consumed_capacity is not None
        assert eventual.consumed_capacity.capacity_units == 0.5
        nothing = await client.call(GET, Get(table_name=name, key=key("9")), deadline=soon())
        assert nothing.item is None

        update = Update(
            table_name=name,
            key=key("1"),
            update_expression="SET n = n + :one",
            condition_expression="n = :old",
            expression_attribute_values={":one": {"N": "1"}, ":old": {"N": "1"}},
            return_values="UPDATED_NEW",
        )
        updated = await client.call(UPDATE, update, deadline=soon())
        assert updated.attributes == {"n": {"N": "2"}}
        with pytest.raises(ConditionFailed):
            await client.call(UPDATE, update, deadline=soon())

        delete = Delete(table_name=name, key=key("1"), return_values="ALL_OLD")
        deleted = await client.call(DELETE, delete, deadline=soon())
        assert deleted.attributes is not None
        assert deleted.attributes["n"] == {"N": "2"}

    await play(dynamodb, scene)


async def test_typed_items(dynamodb: str) -> None:
    class Blob(Struct):
        B: bytes

    class Row(Struct):
        blob: Blob

    async def scene(client: DynamoDBClient, name: str) -> None:
        item = key("1") | {"blob": {"B": b"\x00\xff"}}
        await client.call(PUT, Put(table_name=name, item=item), deadline=soon())
        operation = Operation("GetItem", GetOutput[Row])
        got = await client.call(operation, Get(table_name=name, key=key("1")), deadline=soon())
        assert got.item == Row(Blob(b"\x00\xff"))

    await play(dynamodb, scene)


async def test_pages(dynamodb: str) -> None:
    async def scene(client: DynamoDBClient, name: str) -> None:
        items = [key(f"{n:03}") for n in range(30)]
        await batch_put(client, name, [*items, key("000", "b")], deadline=soon())
        query = Query(
            table_name=name,
            key_condition_expression="pk = :p",
            expression_attribute_values={":p": {"S": "a"}},
            scan_index_forward=False,
            consistent_read=True,
            limit=12,
        )
        seen: list[str] = []
        while True:
            page = await client.call(QUERY, query, deadline=soon())
            seen += [item["sk"]["S"] for item in page.items]
            if page.last_evaluated_key is None:
                break
            query.exclusive_start_key = page.last_evaluated_key
        assert seen == [f"{n:03}" for n in range(29, -1, -1)]

        found = await batch_get(client, name, [*items, key("999")], deadline=soon())
        assert len(found) == 30
        await batch_delete(client, name, items, deadline=soon())
        assert await batch_get(client, name, items, deadline=soon()) == []

    await play(dynamodb, scene)


async def test_transactions(dynamodb: str) -> None:
    async def scene(client: DynamoDBClient, name: str) -> None:
        head = Put(
            table_name=name, item=key("head"), condition_expression="attribute_not_exists(pk)"
        )
        turn = Update(
            table_name=name,
            key=key("turn"),
            update_expression="ADD n :one",
            expression_attribute_values={":one": {"N": "1"}},
        )
        other = ConditionCheck(
            table_name=name, key=key("other"), condition_expression="attribute_not_exists(pk)"
        )
        written = await client.transact_write([head, turn, other], deadline=soon(), token="one")
        assert written.consumed_capacity is not None
        # Recognised by its token: done once, whatever the condition says by now.
        await client.transact_write([head, turn, other], deadline=soon(), token="one")
        both = [Get(table_name=name, key=key("turn")), Get(table_name=name, key=key("other"))]
        got = await client.transact_get(both, deadline=soon())
        assert [each.item for each in got.responses] == [key("turn") | {"n": {"N": "1"}}, None]
        with pytest.raises(InvalidCall, match="IdempotentParameterMismatch"):
            await client.transact_write([turn], deadline=soon(), token="one")

        head.return_values_on_condition_check_failure = "ALL_OLD"
        with pytest.raises(TransactionCancelled) as cancelled:
            await client.transact_write([turn, head, other], deadline=soon())
        reasons = cancelled.value.reasons
        assert [each.code for each in reasons] == ["None", "ConditionalCheckFailed", "None"]
        assert reasons[1].item == key("head")
        got = await client.transact_get(both[:1], deadline=soon())
        assert got.responses[0].item == key("turn") | {"n": {"N": "1"}}

    await play(dynamodb, scene)


async def test_tables(dynamodb: str) -> None:
    async def scene(client: DynamoDBClient, name: str) -> None:
        described = await client.call(DESCRIBE_TABLE, {"TableName": name}, deadline=soon())
        assert described.table.table_status == "ACTIVE"
        assert [each["AttributeName"] for each in described.table.key_schema] == ["pk", "sk"]
        asked = {"TableName": name}
        before = await client.call(DESCRIBE_TTL, asked, deadline=soon())
        assert before.time_to_live_description.time_to_live_status == "DISABLED"
        wanted = {"AttributeName": "expires_at", "Enabled": True}
        await client.call(UPDATE_TTL, asked | {"TimeToLiveSpecification": wanted}, deadline=soon())
        after = await client.call(DESCRIBE_TTL, asked, deadline=soon())
        assert after.time_to_live_description.attribute_name == "expires_at"
        with pytest.raises(NoSuchTable):
            await client.call(DESCRIBE_TABLE, {"TableName": "nowhere"}, deadline=soon())
        with pytest.raises(InvalidCall):
            await client.call(GET, Get(table_name=name, key={"pk": {"S": ""}}), deadline=soon())

    await play(dynamodb, scene)
