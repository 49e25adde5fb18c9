"""One client doing one thing: `python client.py NAME import|CALL PORT COUNT CONCURRENCY`.

Prints the CPU microseconds that each call took, or, for `import`, nothing: the process's own
life is what is measured then, from start to a client that is ready.
"""

# Peers are imported where they are measured, and have their own idea of types.
# mypy: ignore-errors
# ruff: noqa: ANN001, D102, D103, PLC0415

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

REGION = "eu-west-1"
KEY_ID, SECRET = "AKIDEXAMPLE", "secret"

Calls = dict[str, Callable[[], Awaitable[object]]]


class Seawall:
    """This project's client: plain dictionaries as attribute values, bytes as bytes."""

    def __init__(self, port: int) -> None:
        from seawall.aws.credential_cache import CredentialCache, default_chain
        from seawall.aws.dynamodb import DynamoDBClient
        from seawall.transport.http_client import HttpClient

        self.http = HttpClient()
        environment = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
        chain = default_chain(environment, self.http, region=REGION)
        endpoint = f"http://127.0.0.1:{port}"
        self.client = DynamoDBClient(
            self.http, CredentialCache(chain), region=REGION, endpoint=endpoint
        )

    async def calls(self) -> Calls:
        from cases import TABLE, TEXT

        from seawall.aws.dynamodb_calls import GET, QUERY, Get, Put, Query, Update

        call, clock = self.client.call, asyncio.get_running_loop().time
        key = {"pk": {"S": "acme#ada#s1"}, "sk": {"S": "T#00000000"}}
        blob = TEXT.encode()
        return {
            "get": lambda: call(
                GET, Get(table_name=TABLE, key=key, consistent_read=True), deadline=clock() + 10
            ),
            "query": lambda: call(
                QUERY,
                Query(
                    table_name=TABLE,
                    key_condition_expression="pk = :p",
                    expression_attribute_values={":p": {"S": "acme#ada#s1"}},
                    scan_index_forward=False,
                    limit=10,
                ),
                deadline=clock() + 10,
            ),
            "transact": lambda: self.client.transact_write(
                [
                    Put(
                        table_name=TABLE,
                        item=key | {"turn": {"B": blob}, "expires_at": {"N": "1700086400"}},
                        condition_expression="attribute_not_exists(pk)",
                    ),
                    Update(
                        table_name=TABLE,
                        key=key | {"sk": {"S": "HEAD"}},
                        update_expression="SET version = :new",
                        condition_expression="version = :old",
                        expression_attribute_values={":new": {"N": "8"}, ":old": {"N": "7"}},
                    ),
                    Put(
                        table_name=TABLE,
                        item={"pk": {"S": "acme#ada"}, "sk": {"S": "K#key"}, "n": {"N": "8"}},
                        condition_expression="attribute_not_exists(pk)",
                    ),
                ],
                deadline=clock() + 10,
            ),
        }

    async def close(self) -> None:
        await self.http.close()


def low_level_requests() -> dict[str, dict[str, object]]:
    """The same for botocore's two faces; bytes as bytes."""
    from cases import TABLE, TEXT

    key = {"pk": {"S": "acme#ada#s1"}, "sk": {"S": "T#00000000"}}
    return {
        "get": {"TableName": TABLE, "Key": key, "ConsistentRead": True},
        "query": {
            "TableName": TABLE,
            "KeyConditionExpression": "pk = :p",
            "ExpressionAttributeValues": {":p": {"S": "acme#ada#s1"}},
            "ScanIndexForward": False,
            "Limit": 10,
        },
        "transact": {
            "TransactItems": [
                {
                    "Put": {
                        "TableName": TABLE,
                        "Item": key
                        | {"turn": {"B": TEXT.encode()}, "expires_at": {"N": "1700086400"}},
                        "ConditionExpression": "attribute_not_exists(pk)",
                    }
                },
                {
                    "Update": {
                        "TableName": TABLE,
                        "Key": key | {"sk": {"S": "HEAD"}},
                        "UpdateExpression": "SET version = :new",
                        "ConditionExpression": "version = :old",
                        "ExpressionAttributeValues": {":new": {"N": "8"}, ":old": {"N": "7"}},
                    }
                },
                {
                    "Put": {
                        "TableName": TABLE,
                        "Item": {"pk": {"S": "acme#ada"}, "sk": {"S": "K#key"}, "n": {"N": "8"}},
                        "ConditionExpression": "attribute_not_exists(pk)",
                    }
                },
            ]
        },
    }


class Boto3:
    """boto3's low-level client, each call in a thread."""

    def __init__(self, port: int) -> None:
        import boto3
        from botocore.config import Config

        self.client = boto3.client(
            "dynamodb",
            region_name=REGION,
            endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET,
            config=Config(max_pool_connections=64),
        )

    async def calls(self) -> Calls:
        client, asked, thread = self.client, low_level_requests(), asyncio.to_thread
        return {
            "get": lambda: thread(client.get_item, **asked["get"]),
            "query": lambda: thread(client.query, **asked["query"]),
            "transact": lambda: thread(client.transact_write_items, **asked["transact"]),
        }

    async def close(self) -> None:
        self.client.close()


class Aiobotocore:
    """aiobotocore's client."""

    def __init__(self, port: int) -> None:
        from aiobotocore.config import AioConfig
        from aiobotocore.session import get_session

        self.context = get_session().create_client(
            "dynamodb",
            region_name=REGION,
            endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET,
            config=AioConfig(max_pool_connections=64),
        )

    async def calls(self) -> Calls:
        client = self.client = await self.context.__aenter__()
        asked = low_level_requests()
        return {
            "get": lambda: client.get_item(**asked["get"]),
            "query": lambda: client.query(**asked["query"]),
            "transact": lambda: client.transact_write_items(**asked["transact"]),
        }

    async def close(self) -> None:
        await self.context.__aexit__(None, None, None)


class Aiodynamo:
    """aiodynamo over aiohttp. Its values are Python's: it has no other form."""

    def __init__(self, port: int) -> None:
        import aiohttp  # noqa: F401 - a part of being ready
        from aiodynamo.credentials import Key, StaticCredentials
        from yarl import URL

        self.url = URL(f"http://127.0.0.1:{port}")
        self.credentials = StaticCredentials(Key(KEY_ID, SECRET))

    async def calls(self) -> Calls:
        import aiohttp
        from aiodynamo.client import Client
        from aiodynamo.expressions import F, HashKey
        from aiodynamo.http.aiohttp import AIOHTTP
        from aiodynamo.operations import Put, Update
        from cases import TABLE, TEXT

        self.session = aiohttp.ClientSession()
        client = Client(AIOHTTP(self.session), self.credentials, REGION, self.url)
        key = {"pk": "acme#ada#s1", "sk": "T#00000000"}
        blob = TEXT.encode()
        return {
            "get": lambda: client.get_item(TABLE, key, consistent_read=True),
            "query": lambda: client.query_single_page(
                TABLE, HashKey("pk", "acme#ada#s1"), scan_forward=False, limit=10
            ),
            "transact": lambda: client.transact_write_items(
                [
                    Put(
                        TABLE,
                        key | {"turn": blob, "expires_at": 1700086400},
                        F("pk").does_not_exist(),
                    ),
                    Update(
                        TABLE,
                        key | {"sk": "HEAD"},
                        F("version").set(8),
                        F("version").equals(7),
                    ),
                    Put(
                        TABLE,
                        {"pk": "acme#ada", "sk": "K#key", "n": 8},
                        F("pk").does_not_exist(),
                    ),
                ],
                request_token="0123456789abcdef",
            ),
        }

    async def close(self) -> None:
        await self.session.close()


CLIENTS = {
    "seawall": Seawall,
    "aiodynamo": Aiodynamo,
    "aiobotocore": Aiobotocore,
    "boto3": Boto3,
}


async def measure(client, name: str, count: int, concurrency: int) -> float:
    """CPU microseconds of this process, all threads, per call."""
    call = (await client.calls())[name]

    async def work(times: int) -> None:
        for _ in range(times):
            await call()

    async def crowd(times: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work(times // concurrency))

    await crowd(max(concurrency, count // 10))
    began = time.process_time()
    await crowd(count)
    spent = time.process_time() - began
    await client.close()
    return spent / (count // concurrency * concurrency) * 1e6


async def ready(client) -> None:
    """The work before the first call that the import did not do."""
    await client.calls()
    await client.close()


if __name__ == "__main__":
    client, what, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if what == "import":
        made = CLIENTS[client](port)
        asyncio.run(ready(made))
    else:
        import uvloop

        async def start() -> float:
            return await measure(CLIENTS[client](port), what, int(sys.argv[4]), int(sys.argv[5]))

        sys.stdout.write(f"{uvloop.run(start()):.2f}\n")
