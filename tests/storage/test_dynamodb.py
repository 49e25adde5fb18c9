"""Properties of the DynamoDB store: sizes, keys, consistency, round trips, outages."""

import asyncio
import os
import random
from collections.abc import AsyncGenerator

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.aws.dynamodb_calls import DELETE, Delete, Operation
from seawall.errors import ConfigError, StoreUnavailable, TurnLimitReached
from seawall.storage.dynamodb import (
    number,
    owner_partition,
    session_key_of,
    text,
    turn_items,
    turn_partition,
)
from seawall.storage.dynamodb.store import DynamoDBStore
from seawall.turn import Principal, SessionKey, TurnRecord, Usage, UserMessage
from tests.dynamodb_local import ENVIRONMENT
from tests.servers import running_model, running_server
from tests.storage.calls import KEY, NOW, Clock, begin, commit
from tests.storage.stores import LocalClient, dynamodb_store, new_location

names = st.text(min_size=1, max_size=8, alphabet="ab#%23O|/\u00e9")


@pytest.fixture
async def store(dynamodb: str) -> AsyncGenerator[DynamoDBStore, None]:
    made = dynamodb_store(dynamodb, new_location("dynamodb"), lambda: NOW)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


def _large(size: int) -> TurnRecord:
    noise = random.Random(1).randbytes(size).hex()
    return TurnRecord("big", 1, NOW, "a", None, (UserMessage(noise),), Usage())


class _Corrected(LocalClient):
    """It has found that its clock is an hour slow."""

    @property
    def skew(self) -> float:
        return 3_600.0


async def test_a_clock_that_is_known_to_be_wrong_is_corrected(dynamodb: str, clock: Clock) -> None:
    table = new_location("dynamodb")
    right, client = dynamodb_store(dynamodb, table, clock), _Corrected(dynamodb)
    slow = DynamoDBStore(
        client, table, create=True, clock=lambda: clock.now - 3_600.0, closing=client.close
    )
    for each in (right, slow):
        await each.open()
    await right.commit(commit(KEY, 0))
    await right.begin(begin(KEY, "a", until=NOW + 10))
    busy = await slow.begin(begin(KEY, "b", until=NOW - 3_600 + 10))
    assert busy.session_lease is not None
    clock.now = NOW + 11
    free = await slow.begin(begin(KEY, "b", until=NOW - 3_600 + 30))
    assert free.session_lease is None
    clock.now = NOW + 29
    taken = (await right.begin(begin(KEY, "c", until=NOW + 60))).session_lease
    assert (taken and taken.owner) == "b"
    for each in (right, slow):
        await each.close()


async def test_a_turn_larger_than_an_item_is_assembled(store: DynamoDBStore) -> None:
    big = _large(800_000)  # of hexadecimal digits, which compress to half
    await store.commit(commit(KEY, 0, turn=big))
    await store.commit(commit(KEY, 1, "small"))
    snapshot = await store.load(KEY, turns=5)
    assert [each.number for each in snapshot.turns] == [1, 2]
    assert snapshot.turns[0] == big
    page = await store.turns(KEY, limit=1)
    assert (page.turns[0].number, page.cursor is not None) == (2, True)
    assert (await store.turns(KEY, limit=1, cursor=page.cursor)).turns == (big,)
    await store.delete(KEY)


def test_a_turn_larger_than_a_transaction_is_refused() -> None:
    with pytest.raises(TurnLimitReached):
        turn_items(KEY, _large(4_000_000), created_at=NOW, expires_at=NOW)


@given(st.builds(SessionKey, names, names, names), st.builds(SessionKey, names, names, names))
def test_no_two_sessions_share_a_partition(one: SessionKey, other: SessionKey) -> None:
    assert (turn_partition(one) == turn_partition(other)) == (one == other)
    same = (one.tenant, one.subject) == (other.tenant, other.subject)
    assert (owner_partition(one) == owner_partition(other)) == same
    head = {"pk": text(owner_partition(one)), "sk": text(f"S#{one.session}")}
    assert session_key_of(head) == one


@given(st.floats(min_value=0, max_value=1e11))
def test_times_round_trip_exactly(seconds: float) -> None:
    assert float(number(seconds)["N"]) == seconds


async def test_leftovers_of_a_deleted_session_are_never_visible(
    store: DynamoDBStore, dynamodb: str
) -> None:
    """As after a deletion that was cut off between head and turns."""
    await store.commit(commit(KEY, 0, "old"))
    await store.commit(commit(KEY, 1, "old"))
    head = {"pk": text(owner_partition(KEY)), "sk": text("S#s1")}
    asked = Delete(table_name=store.table.name, key=head)
    await store.table.client.call(DELETE, asked, deadline=store.table.deadline())
    later = dynamodb_store(dynamodb, store.table.name, lambda: NOW + 1)
    await later.open()
    assert (await later.load(KEY, turns=5)).session is None
    await later.commit(commit(KEY, 0, "new"))
    assert [each.id for each in (await later.load(KEY, turns=5)).turns] == ["t1-new"]
    await later.commit(commit(KEY, 1, "new"))
    assert [each.id for each in (await later.load(KEY, turns=5)).turns] == ["t1-new", "t2-new"]
    await later.close()


async def test_a_turn_costs_the_same_whatever_the_history(store: DynamoDBStore) -> None:
    traffic = store.table.client.traffic
    costs: list[tuple[int, int]] = []
    opened: float | None = None
    for version in range(60):
        before = traffic.round_trips, traffic.bytes_sent
        if version:
            found = await store.begin(begin(KEY, f"turn{version:02}", turns=20))
            assert found.session is not None
            assert len(found.turns) == min(version, 20)
            opened = found.session.created_at
        await store.commit(commit(KEY, version, by=f"turn{version:02}", opened_at=opened))
        costs.append((traffic.round_trips - before[0], traffic.bytes_sent - before[1]))
    assert costs[0][0] == 1
    assert {requests for requests, _ in costs[1:]} == {
        3
    }  # lease and query concurrently, then commit
    sent = [size for _, size in costs[1:]]
    assert max(sent) - min(sent) < 16  # digits of the version


async def test_a_missing_table_is_a_configuration_error(dynamodb: str) -> None:
    store = dynamodb_store(dynamodb, new_location("dynamodb"))
    store._create = False
    with pytest.raises(ConfigError, match="create_table"):
        await store.open()
    await store.close()


async def test_many_open_a_new_table_at_once(dynamodb: str) -> None:
    table = new_location("dynamodb")
    stores = [dynamodb_store(dynamodb, table) for _ in range(6)]
    await asyncio.gather(*(store.open() for store in stores))
    for store in stores:
        await store.close()


async def test_a_store_that_is_down_fails_fast() -> None:
    store = dynamodb_store("http://127.0.0.1:9", "sessions")
    began = asyncio.get_running_loop().time()
    with pytest.raises(StoreUnavailable):
        await store.begin(begin(KEY, "one"))
    assert asyncio.get_running_loop().time() - began < 5
    await store.close()


def test_a_server_that_loses_its_table_answers_503_and_spends_nothing(
    dynamodb: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The table is deleted under a server: turns get 503, the model is not asked."""
    table = f"sessions-{os.urandom(6).hex()}"
    settings = {
        "SESSIONS__STORE": "dynamodb",
        "SESSIONS__TABLE": table,
        "SESSIONS__ENDPOINT": dynamodb,
        "SESSIONS__REGION": ENVIRONMENT["AWS_REGION"],
        "SESSIONS__CREATE_TABLE": "true",
        "SERVER__WORKERS": "2",
        "IDENTITY__ANONYMOUS": "true",
    }
    environment = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    try:
        with (
            running_model("--first-token", "0.01", "--duration", "0.1") as model,
            running_server(tmp_path_factory.mktemp("down"), model, **settings) as server,
            httpx2.Client(base_url=server.url, timeout=20) as client,
        ):
            session = client.post("/v1/turns", json={"text": "hello"}).json()["session"]
            again = client.post("/v1/turns", json={"text": "and", "session": session}).json()
            assert again["version"] == 2
            asyncio.run(_delete_table(dynamodb, table))
            stats = f"{model.url.removesuffix('/v1')}/sim/stats"
            before = httpx2.get(stats).json()["started"]
            for _ in range(4):
                refused = client.post("/v1/turns", json={"text": "and", "session": session})
                assert refused.status_code == 503
                assert refused.json()["code"] == "store-unavailable"
                assert refused.headers["retry-after"]
            assert httpx2.get(stats).json()["started"] == before
            # A new session has nothing to load; once a process knows of the outage it asks first.
            for _ in range(12):
                assert client.post("/v1/turns", json={"text": "hello"}).status_code == 503
            assert httpx2.get(stats).json()["started"] <= before + 1
    finally:
        for name, value in environment.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


async def _delete_table(endpoint: str, table: str) -> None:
    store = dynamodb_store(endpoint, table)
    gone = Operation("DeleteTable", dict[str, object])
    await store.table.client.call(gone, {"TableName": table}, deadline=store.table.deadline())
    await store.close()


async def test_an_owner_is_listed_in_pages_across_many_sessions(store: DynamoDBStore) -> None:
    for index in range(25):
        await store.commit(commit(SessionKey("acme", "ada", f"s{index:02}"), 0))
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = await store.sessions(Principal("acme", "ada"), limit=4, cursor=cursor)
        seen += [each.key.session for each in page.sessions]
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == [f"s{index:02}" for index in range(24, -1, -1)]
