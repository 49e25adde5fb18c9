"""The store on DynamoDB Local behind a proxy that throttles, drops answers and shows old copies."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from msgspec import Struct, field

from seawall.aws.dynamodb_calls import Item, Operation, Page
from seawall.errors import (
    CommitUnknown,
    InvalidField,
    SessionConflict,
    SessionNotFound,
    StoreUnavailable,
    TurnLimitReached,
)
from seawall.storage.dynamodb.store import DynamoDBStore
from seawall.storage.port import Snapshot
from seawall.storage.values import write_cursor
from seawall.transport.http_client import Endpoint, HttpClient
from seawall.turn import Principal
from tests.faulty_server import DROP, Answer, Request, serving
from tests.storage.calls import KEY, NOW, begin, commit, look
from tests.storage.stores import dynamodb_store, new_location

ADA = Principal("acme", "ada")
THROTTLED = Answer(400, b'{"__type":"x#ProvisionedThroughputExceededException","message":"m"}')
CONTENDED = Answer(
    400,
    b'{"__type":"x#TransactionCanceledException","message":"m",'
    b'"CancellationReasons":[{"Code":"TransactionConflict"},{"Code":"None"}]}',
)

Fault = Callable[[dict[str, Any]], Awaitable[Answer | None]]


class Proxy(Struct):
    """`faults` by operation replace the real answer; `lost` answers are dropped, once each.

    Those of `mute` operations are dropped each time; what they asked for is done.
    """

    url: str
    http: HttpClient
    faults: dict[str, Fault] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    mute: set[str] = field(default_factory=set)
    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def handle(self, request: Request) -> Answer:
        name = request.headers["x-amz-target"].partition(".")[2]
        document = msgspec.json.decode(request.body)
        self.seen.append((name, document))
        if (fault := self.faults.get(name)) and (answer := await fault(document)):
            return answer
        real = await self.http.request(
            "POST",
            Endpoint.parse(self.url),
            headers=[
                (each.encode(), request.headers[each].encode())
                for each in ("content-type", "x-amz-target", "x-amz-date", "authorization")
            ],
            body=request.body,
            deadline=asyncio.get_running_loop().time() + 20,
            limit=32 << 20,
        )
        if name in self.mute:
            return DROP
        if name in self.lost:
            self.lost.remove(name)
            return DROP
        if name == "Query" and "stale" in self.lost and not document.get("ConsistentRead"):
            page = msgspec.json.decode(real.body)
            page["Items"] = page["Items"][1:]
            return Answer(200, msgspec.json.encode(page))
        return Answer(real.status, real.body)

    def count(self, name: str) -> int:
        return sum(each == name for each, _ in self.seen)


@asynccontextmanager
async def behind_proxy(url: str) -> AsyncGenerator[tuple[DynamoDBStore, Proxy], None]:
    """A store behind a proxy."""
    proxy = Proxy(url, HttpClient())
    async with asyncio.timeout(60), serving(proxy.handle) as server:
        store = dynamodb_store(server.url, new_location("dynamodb"), lambda: NOW)
        try:
            await store.open()
            yield store, proxy
        finally:
            await store.close()
            await proxy.http.close()


async def everything(store: DynamoDBStore) -> list[Item]:
    scan = Operation("Scan", Page[Item])
    asked = {"TableName": store.table.name, "ConsistentRead": True}
    return (await store.table.client.call(scan, asked, deadline=store.table.deadline())).items


async def throttle(_: dict[str, Any]) -> Answer:
    return THROTTLED


async def test_a_stale_replica_is_detected(dynamodb: str) -> None:
    async with behind_proxy(dynamodb) as (store, proxy):
        for version in range(4):
            await store.commit(commit(KEY, version))
        await store.begin(begin(KEY, "one", turns=3))
        assert proxy.count("Query") == 1
        proxy.lost.add("stale")
        found = await store.begin(begin(KEY, "one", turns=3))
        assert [each.number for each in found.turns] == [2, 3, 4]
        asked = [document for name, document in proxy.seen if name == "Query"]
        consistent = [bool(each.get("ConsistentRead")) for each in asked]
        assert (consistent[:2], consistent[-1]) == ([False, False], True)


async def test_throttling_is_retried_or_reported(dynamodb: str) -> None:
    async with behind_proxy(dynamodb) as (store, proxy):
        left = [THROTTLED, THROTTLED]

        async def twice(_: dict[str, Any]) -> Answer | None:
            return left.pop() if left else None

        proxy.faults["TransactWriteItems"] = twice
        await store.commit(commit(KEY, 0))
        assert proxy.count("TransactWriteItems") == 3
        proxy.faults["TransactWriteItems"] = throttle
        with pytest.raises(StoreUnavailable) as raised:
            await store.commit(commit(KEY, 1))
        assert raised.value.retry_after is not None
        del proxy.faults["TransactWriteItems"]
        found = await store.load(KEY, turns=5)
        assert [each.number for each in found.turns] == [1]


@pytest.mark.parametrize("lost", ["UpdateItem", "TransactWriteItems"])
async def test_a_lost_answer_changes_nothing(dynamodb: str, lost: str) -> None:
    async with behind_proxy(dynamodb) as (store, proxy):
        await store.commit(commit(KEY, 0))
        proxy.lost.add(lost)
        found = await store.begin(begin(KEY, "one", idempotency_key="k"))
        assert (found.session_lease, found.key_lease) == (None, None)
        await store.commit(commit(KEY, 1, by="one", idempotency_key="k", fingerprint="f"))
        assert not proxy.lost
        found = await store.load(KEY, turns=5)
        assert [each.id for each in found.turns] == ["t1-hello", "one"]


async def test_losing_to_another_transaction_is_a_conflict(dynamodb: str) -> None:
    """DynamoDB Local never says so; DynamoDB does when two commits meet."""
    async with behind_proxy(dynamodb) as (store, proxy):

        async def contended(_: dict[str, Any]) -> Answer:
            return CONTENDED

        proxy.faults["TransactWriteItems"] = contended
        with pytest.raises(SessionConflict):
            await store.commit(commit(KEY, 0))


@pytest.mark.parametrize("how", ["delete", "erase"])
async def test_an_interrupted_deletion_can_be_repeated(dynamodb: str, how: str) -> None:
    async with behind_proxy(dynamodb) as (store, proxy):
        for version in range(3):
            await store.commit(commit(KEY, version, idempotency_key=f"k{version}", fingerprint="f"))
        proxy.faults["BatchWriteItem"] = throttle
        with pytest.raises(StoreUnavailable):
            await (store.delete(KEY) if how == "delete" else store.erase(ADA))
        del proxy.faults["BatchWriteItem"]
        assert await look(store, KEY, 5, "k0") == Snapshot(None)
        assert (await store.sessions(ADA, limit=5)).sessions == ()
        if how == "delete":
            await store.delete(KEY)
            assert {each["sk"]["S"][0] for each in await everything(store)} == {"K"}
        await store.erase(ADA)
        assert await everything(store) == []
        with pytest.raises(SessionNotFound):
            await store.delete(KEY)


@pytest.mark.parametrize("version", [0, 1])
async def test_a_turn_that_ends_while_its_session_is_removed(dynamodb: str, version: int) -> None:
    """It is refused; a new session of the name, though, is not touched."""
    async with behind_proxy(dynamodb) as (store, proxy):
        await store.commit(commit(KEY, 0))
        later = dynamodb_store(dynamodb, store.table.name, lambda: NOW + 1)
        outcomes: list[bool] = []

        async def meanwhile(_: dict[str, Any]) -> None:
            del proxy.faults["BatchWriteItem"]  # facts are deleted by another one
            try:
                await later.commit(commit(KEY, version, "late"))
            except SessionConflict:
                outcomes.append(False)
            else:
                outcomes.append(True)

        proxy.faults["BatchWriteItem"] = meanwhile
        assert await store.erase(ADA) == 1
        assert outcomes == [version == 0]
        heads = [each for each in await everything(store) if each["sk"]["S"].startswith("S#")]
        assert len(heads) == (1 if version == 0 else 0)
        await later.close()


async def test_heads_outlive_their_turns(dynamodb: str) -> None:
    """Otherwise erasing a subject after the session's expiry would leave turns behind."""
    async with behind_proxy(dynamodb) as (store, _):
        await store.commit(commit(KEY, 0, idempotency_key="k", fingerprint="f"))
        await store.commit(commit(KEY, 1, expires_at=NOW + 5_000))
        ends: dict[str, list[int]] = {}
        for item in await everything(store):
            kind = item["pk"]["S"][0] + item["sk"]["S"][0]
            ends.setdefault(kind, []).append(int(item["ttl"]["N"]))
        assert max(ends["T0"]) < min(ends["OS"])
        assert min(ends["OK"]) > NOW + store._keep_seconds


async def test_invalid_requests_are_distinguished_from_outages(dynamodb: str) -> None:
    async with behind_proxy(dynamodb) as (store, _):
        for cursor in (write_cursor("z" * 2_000), write_cursor("é" * 600)):
            with pytest.raises(InvalidField):
                await store.sessions(ADA, limit=3, cursor=cursor)
        with pytest.raises(InvalidField):
            await store.archives(limit=3, cursor=write_cursor(("", "")))
        with pytest.raises(TurnLimitReached):
            await store.commit(commit(KEY, 0, state={"n": "x" * 500_000}))


@pytest.mark.parametrize("keyed", [{}, {"idempotency_key": "k", "fingerprint": "f"}])
async def test_a_commit_whose_answers_are_all_lost_is_unknown(
    dynamodb: str, keyed: dict[str, str]
) -> None:
    """Regression: "nothing was stored", when it was."""
    async with behind_proxy(dynamodb) as (store, proxy):
        proxy.mute.add("TransactWriteItems")
        with pytest.raises(CommitUnknown) as unknown:
            await store.commit(commit(KEY, 0, **keyed))
        assert (unknown.value.status, unknown.value.code) == (503, "commit-unknown")
        proxy.mute.clear()
        found = await store.load(KEY, turns=5)
        assert [each.number for each in found.turns] == [1]
        await store.commit(commit(KEY, 0, **keyed))
        assert found.session is not None
        await store.commit(commit(KEY, 1, opened_at=found.session.created_at))


async def test_a_commit_refused_by_its_own_lost_attempt_is_found(
    dynamodb: str,
) -> None:
    """If that read fails as well, the commit is unknown."""
    async with behind_proxy(dynamodb) as (store, proxy):

        async def refuse(_: dict[str, Any]) -> Answer | None:
            if proxy.count("TransactWriteItems") == 1:
                return None
            reasons = [{"Code": "ConditionalCheckFailed"}, {"Code": "None"}]
            said = {"__type": "x#TransactionCanceledException", "CancellationReasons": reasons}
            return Answer(400, msgspec.json.encode(said))

        async def down(_: dict[str, Any]) -> Answer:
            return Answer(500)

        proxy.faults["TransactWriteItems"] = refuse
        proxy.faults["GetItem"] = down
        proxy.lost.add("TransactWriteItems")
        with pytest.raises(CommitUnknown):
            await store.commit(commit(KEY, 0))
        del proxy.faults["GetItem"]
        proxy.seen.clear()
        proxy.lost.add("TransactWriteItems")
        await store.commit(commit(KEY, 0))


async def test_an_unreachable_store_has_stored_nothing() -> None:
    store = dynamodb_store("http://127.0.0.1:9", "sessions")
    try:
        with pytest.raises(StoreUnavailable):
            await store.commit(commit(KEY, 0))
    finally:
        await store.close()
