"""DynamoDB client against a server with the faults of networks and of DynamoDB."""

import asyncio
import socket
import time
import zlib
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any, TypeVar

import msgspec
import pytest

from seawall.aws import Credentials, EnvironmentSource
from seawall.aws.credential_cache import CredentialCache
from seawall.aws.dynamodb import CallLimits, DynamoDBClient
from seawall.aws.dynamodb_batches import batch_delete, batch_get, batch_put
from seawall.aws.dynamodb_calls import (
    GET,
    QUERY,
    UPDATE,
    AccessDenied,
    ConditionFailed,
    Contended,
    DynamoDBError,
    Get,
    GetOutput,
    InvalidCall,
    Item,
    NoSuchTable,
    Put,
    Query,
    TableInUse,
    Throttled,
    TransactionCancelled,
    Unavailable,
    Update,
)
from seawall.resilience import RetryBudget
from seawall.transport.http_client import HttpClient
from tests.faulty_server import (
    DROP,
    HANG,
    Answer,
    FaultyServer,
    Handler,
    Request,
    script,
    serving,
)

T = TypeVar("T")
KEY: Item = {"pk": {"S": "a"}}
ITEM: Item = {"pk": {"S": "a"}, "n": {"N": "1"}}
FOUND = Answer(body=msgspec.json.encode({"Item": ITEM}))
GET_IT = Get(table_name="sessions", key=KEY)
KEYS = EnvironmentSource({"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret"})

# A crowd of tests shares two processors: waits are short, deadlines are not.
PROMPT = CallLimits(
    backoff_seconds=0.002, throttled_backoff_seconds=0.002, attempt_seconds=20.0, connections=8
)


def refusal(code: str, status: int = 400, **more: object) -> Answer:
    document = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "said", **more}
    return Answer(status, msgspec.json.encode(document))


def cancelled(*codes: str) -> Answer:
    reasons = [{"Code": code} for code in codes]
    return refusal("TransactionCanceledException", CancellationReasons=reasons)


async def against(
    handler: Handler,
    scene: Callable[[DynamoDBClient, FaultyServer], Awaitable[T]],
    **options: Any,
) -> T:
    """Run a scene with a client of a server that behaves as the handler says."""

    async with serving(handler) as server:
        http = HttpClient()
        cache = CredentialCache(options.pop("source", KEYS), cooldown=0.0)
        client = DynamoDBClient(
            http,
            cache,
            region="eu-west-1",
            endpoint=options.pop("endpoint", server.url),
            limits=options.pop("limits", PROMPT),
            **options,
        )
        try:
            return await scene(client, server)
        finally:
            await cache.close()
            await http.close()


def soon(seconds: float = 20.0) -> float:
    return asyncio.get_running_loop().time() + seconds


async def get(client: DynamoDBClient, seconds: float = 20.0) -> GetOutput[Item]:
    return await client.call(GET, GET_IT, deadline=soon(seconds))


async def failing(call: Awaitable[object], kind: type[DynamoDBError]) -> DynamoDBError:
    with pytest.raises(kind) as caught:
        await call
    assert type(caught.value) is kind
    return caught.value


async def test_request_format() -> None:
    async def scene(client: DynamoDBClient, server: FaultyServer) -> None:
        await get(client)
        (sent,) = server.requests
        assert (sent.method, sent.target) == ("POST", "/")
        assert sent.headers["x-amz-target"] == "DynamoDB_20120810.GetItem"
        assert sent.headers["content-type"] == "application/x-amz-json-1.0"
        assert sent.document == {"TableName": "sessions", "Key": KEY}
        assert client.traffic.round_trips == client.traffic.calls == 1
        assert client.traffic.bytes_sent == len(sent.body)
        assert client.traffic.bytes_received == len(FOUND.body)

    await against(script(FOUND), scene)


@pytest.mark.parametrize(
    "fault",
    [
        refusal("ProvisionedThroughputExceededException"),
        refusal("ThrottlingException"),
        refusal("RequestLimitExceeded"),
        refusal("TransactionInProgressException"),
        refusal("TransactionConflictException"),
        refusal("InternalServerError", 500),
        Answer(503, b"<html>a proxy's page</html>"),
        DROP,
        Answer(cut=10),
        Answer(body=b'{"Item": {"pk"', headers={}),
        Answer(body=FOUND.body, headers={"x-amz-crc32": "1"}),
        Answer(body=FOUND.body, cut=60),
    ],
    ids=[
        *("throughput", "throttling", "limit", "in-progress", "conflict", "500", "503"),
        *("dropped", "cut-in-head", "half-json", "checksum", "cut-in-body"),
    ],
)
async def test_transient_faults_are_retried(fault: Answer) -> None:
    async def scene(client: DynamoDBClient, server: FaultyServer) -> None:
        got = await get(client)
        assert got.item == ITEM
        assert len(server.requests) == 3
        assert client.traffic.retries == 2
        assert client.traffic.failures == 0

    await against(script(fault, fault, FOUND), scene)


@pytest.mark.parametrize(
    ("fault", "kind", "uncertain"),
    [
        (refusal("ThrottlingException"), Throttled, False),
        (refusal("TransactionConflictException"), Contended, False),
        (refusal("InternalServerError", 500), Unavailable, True),
        (DROP, Unavailable, True),
        (Answer(body=b"nonsense"), Unavailable, True),
    ],
)
async def test_attempts_are_bounded(
    fault: Answer, kind: type[DynamoDBError], uncertain: bool
) -> None:
    async def scene(client: DynamoDBClient, server: FaultyServer) -> None:
        error = await failing(get(client), kind)
        assert error.uncertain is uncertain
        assert len(server.requests) == PROMPT.attempts
        assert client.traffic.failures == 1

    await against(script(fault), scene)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refusal("ValidationException"), InvalidCall),
        (refusal("SerializationException"), InvalidCall),
        (refusal("IdempotentParameterMismatchException"), InvalidCall),
        (refusal("ItemCollectionSizeLimitExceededException"), InvalidCall),
        (refusal("AccessDeniedException"), AccessDenied),
        (refusal("UnrecognizedClientException"), AccessDenied),
        (Answer(403, b"<html>"), AccessDenied),
        (Answer(404, b"<html>"), InvalidCall),
        (refusal("ResourceNotFoundException"), NoSuchTable),
        (refusal("ResourceInUseException"), TableInUse),
        (refusal("ConditionalCheckFailedException"), ConditionFailed),
    ],
)
async def test_final_answers_are_not_retried(answer: Answer, kind: type[DynamoDBError]) -> None:
    async def scene(client: DynamoDBClient, server: FaultyServer) -> None:
        error = await failing(get(client), kind)
        assert error.uncertain is False
        assert len(server.requests) == 1

    await against(script(answer), scene)


async def test_an_unexpected_answer_is_not_retried() -> None:
    async def scene(client: DynamoDBClient, server: FaultyServer) -> None:
        error = await failing(get(client), InvalidCall)
        assert error.uncertain is True  # DynamoDB applied the write
        assert len(server.requests) == 1

    await against(script(Answer(body=b'{"Item": [1]}')), scene)


async def test_a_condition_that_fails_after_a_lost_answer_is_uncertain() -> None:
    failed = refusal("ConditionalCheckFailedException", Item=ITEM)

    async def scene(client: DynamoDBClient, _: FaultyServer) -> None:
        update = Update(
            table_name="sessions",
            key=KEY,
            update_expression="SET owner = :me",
            return_values_on_condition_check_failure="ALL_OLD",
        )
        error = await failing(client.call(UPDATE, update, deadline=soon()), ConditionFailed)
        assert isinstance(error, ConditionFailed)
        assert error.item == ITEM
        assert error.uncertain is True

    await against(script(DROP, failed), scene)


async def test_a_lost_answer_on_a_reused_connection_is_not_replayed_silently() -> None:
    async def scene(client: DynamoDBClient, server: FaultyServer) -> None:
        await get(client)
        error = await failing(get(client), Unavailable)
        assert error.uncertain is True
        assert len(server.requests) == 2

    await against(script(FOUND, DROP), scene, limits=CallLimits(attempts=1))


async def test_transactions_carry_one_token_through_all_attempts() -> None:
    async def scene(client: DynamoDBClient, server: FaultyServer) -> None:
        part = Put(table_name="sessions", item=ITEM)
        await client.transact_write([part], deadline=soon())
        documents = [each.document for each in server.requests]
        assert documents[0]["TransactItems"] == [{"Put": {"TableName": "sessions", "Item": ITEM}}]
        tokens = {str(each["ClientRequestToken"]) for each in documents}
        assert len(documents) == 3
        assert len(tokens) == 1
        assert 1 <= len(tokens.pop()) <= 36
        await client.transact_write([part], token="mine", deadline=soon())
        assert server.requests[-1].document["ClientRequestToken"] == "mine"

    await against(script(DROP, cancelled("TransactionConflict"), Answer()), scene)


@pytest.mark.parametrize(
    ("codes", "kind", "attempts"),
    [
        (("None", "ThrottlingError"), Throttled, 4),
        (("ProvisionedThroughputExceeded", "ThrottlingError"), Throttled, 4),
        (("TransactionConflict", "ThrottlingError"), Contended, 4),
        (("ConditionalCheckFailed", "TransactionConflict"), TransactionCancelled, 1),
        (("None", "ConditionalCheckFailed"), TransactionCancelled, 1),
        (("ItemCollectionSizeLimitExceeded",), TransactionCancelled, 1),
    ],
)
async def test_cancelled_transactions(
    codes: tuple[str, ...], kind: type[DynamoDBError], attempts: int
) -> None:
    async def scene(client: DynamoDBClient, server: FaultyServer) -> None:
        part = Put(table_name="sessions", item=ITEM)
        error = await failing(client.transact_write([part], deadline=soon()), kind)
        assert len(server.requests) == attempts
        if isinstance(error, TransactionCancelled):
            assert tuple(each.code for each in error.reasons) == codes

    await against(script(cancelled(*codes)), scene)


async def test_reasons_are_also_found_in_the_message_alone() -> None:
    message = "Transaction cancelled, please refer cancellation reasons for specific reasons "
    answer = refusal(
        "TransactionCanceledException", message=message + "[None, ConditionalCheckFailed]"
    )

    async def scene(client: DynamoDBClient, _: FaultyServer) -> None:
        call = client.transact_write([Put(table_name="sessions", item=ITEM)], deadline=soon())
        error = await failing(call, TransactionCancelled)
        assert isinstance(error, TransactionCancelled)
        assert [each.code for each in error.reasons] == ["None", "ConditionalCheckFailed"]

    await against(script(answer), scene)


async def test_one_attempt_that_hangs_does_not_use_up_the_deadline() -> None:
    async def scene(client: DynamoDBClient, server: FaultyServer) -> None:
        assert (await get(client)).item == ITEM
        assert len(server.requests) == 2

    await against(script(HANG, FOUND), scene, limits=CallLimits(attempt_seconds=0.3))


async def test_hanging_parts_meet_the_deadline() -> None:
    async def scene(client: DynamoDBClient, _: FaultyServer) -> None:
        began = time.monotonic()
        error = await failing(get(client, 0.3), Unavailable)
        assert error.uncertain is True
        assert time.monotonic() - began < 10  # that is, not the attempts' twenty seconds

    await against(script(HANG), scene)


async def test_no_wait_is_begun_that_ends_after_the_deadline() -> None:
    async def scene(client: DynamoDBClient, server: FaultyServer) -> None:
        began = time.monotonic()
        await failing(get(client, 50.0), Throttled)
        assert time.monotonic() - began < 40
        assert len(server.requests) == 1

    patient = CallLimits(throttled_backoff_seconds=100.0, max_backoff_seconds=100.0)
    await against(script(refusal("ThrottlingException")), scene, limits=patient, chance=lambda: 0.9)


async def test_an_unreachable_server_fails_soon() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]

    async def scene(client: DynamoDBClient, _: FaultyServer) -> None:
        error = await failing(get(client, 3_600.0), Unavailable)
        assert error.uncertain is False
        assert client.traffic.round_trips == PROMPT.attempts

    await against(script(FOUND), scene, endpoint=f"http://127.0.0.1:{port}")


async def test_the_retry_budget_is_shared_and_refills() -> None:
    down = True

    def handler(_: Request) -> Answer:
        return refusal("InternalServerError", 500) if down else FOUND

    async def scene(client: DynamoDBClient, server: FaultyServer) -> None:
        nonlocal down
        await asyncio.gather(*[failing(get(client), Unavailable) for _ in range(20)])
        assert client.traffic.retries == 3  # 42 // 14
        assert len(server.requests) == 23
        down = False
        for _ in range(14):
            await get(client)
        down = True
        await failing(get(client), Unavailable)
        assert client.traffic.retries == 4

    await against(handler, scene, budget=RetryBudget(capacity=42.0, refill_per_second=0.0))


class Issuer:
    """A source with new credentials each time."""

    def __init__(self, limit: int = 1_000) -> None:
        self.issued = 0
        self.limit = limit

    async def fetch(self, *, deadline: float) -> Credentials:
        assert deadline
        self.issued = min(self.limit, self.issued + 1)
        return Credentials(f"AKID{self.issued}", "secret", "token", time.time() + 86_400)


async def test_expired_credentials_are_renewed_once_for_all() -> None:
    issuer = Issuer()

    def handler(request: Request) -> Answer:
        old = "Credential=AKID1/" in request.headers["authorization"]
        return refusal("ExpiredTokenException") if old else FOUND

    async def scene(client: DynamoDBClient, server: FaultyServer) -> None:
        found = await asyncio.gather(*[get(client) for _ in range(20)])
        assert all(each.item == ITEM for each in found)
        assert issuer.issued == 2
        assert client.traffic.retries == 0
        assert server.requests[-1].headers["x-amz-security-token"] == "token"

    await against(handler, scene, source=issuer)


@pytest.mark.parametrize("limit", [1, 1_000])
async def test_credentials_that_stay_expired_are_denied(limit: int) -> None:
    async def scene(client: DynamoDBClient, server: FaultyServer) -> None:
        await failing(get(client), AccessDenied)
        assert len(server.requests) == (1 if limit == 1 else 2)

    await against(script(refusal("ExpiredTokenException")), scene, source=Issuer(limit))


async def test_missing_credentials_are_denied_without_a_request() -> None:
    async def scene(client: DynamoDBClient, server: FaultyServer) -> None:
        await failing(get(client), AccessDenied)
        assert not server.requests

    await against(script(FOUND), scene, source=EnvironmentSource({}))


async def test_a_wrong_clock_is_corrected_by_the_servers() -> None:
    theirs = 1_800_000_000

    def handler(request: Request) -> Answer:
        if request.headers["x-amz-date"].startswith("20270115T08"):
            return FOUND
        said = refusal("InvalidSignatureException", message="Signature expired: ...")
        return Answer(400, said.body, {"date": formatdate(theirs, usegmt=True)})

    async def scene(client: DynamoDBClient, server: FaultyServer) -> None:
        assert (await get(client)).item == ITEM
        assert (await get(client)).item == ITEM
        assert len(server.requests) == 3

    await against(handler, scene, clock=lambda: theirs - 3_600.0)


@pytest.mark.parametrize("date", ["now", "", "nonsense"])
async def test_a_signature_that_is_wrong_for_another_reason_is_denied(date: str) -> None:
    said = refusal("InvalidSignatureException")
    date = formatdate(time.time(), usegmt=True) if date == "now" else date

    async def scene(client: DynamoDBClient, server: FaultyServer) -> None:
        await failing(get(client), AccessDenied)
        assert len(server.requests) == 1

    await against(script(Answer(400, said.body, {"date": date})), scene)


async def test_a_right_checksum_passes() -> None:
    checksum = {"x-amz-crc32": str(zlib.crc32(FOUND.body))}

    async def scene(client: DynamoDBClient, _: FaultyServer) -> None:
        assert (await get(client)).item == ITEM

    await against(script(Answer(body=FOUND.body, headers=checksum)), scene)


async def test_an_endless_answer_is_cut_off() -> None:
    async def scene(client: DynamoDBClient, _: FaultyServer) -> None:
        await failing(get(client), Unavailable)

    limits = CallLimits(attempts=1, max_response_bytes=1_000)
    await against(script(Answer(body=b" " * 2_000)), scene, limits=limits)


async def test_connections_are_bounded_and_reused() -> None:
    running = peak = 0

    async def slowly() -> Answer:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.005)
        running -= 1
        return FOUND

    async def scene(client: DynamoDBClient, server: FaultyServer) -> None:
        await asyncio.gather(*[get(client) for _ in range(100)])
        assert peak == server.connections == PROMPT.connections

    await against(lambda _: slowly(), scene)


async def test_waiting_for_a_connection_ends_with_the_deadline() -> None:
    async def scene(client: DynamoDBClient, server: FaultyServer) -> None:
        async with asyncio.TaskGroup() as group:
            hanging = group.create_task(failing(get(client, 2.0), Unavailable))
            await asyncio.sleep(0.2)
            error = await failing(get(client, 0.2), Unavailable)
            assert error.uncertain is False
            assert not hanging.done()
        assert len(server.requests) == 1

    await against(
        script(HANG), scene, limits=CallLimits(attempts=1, connections=1, attempt_seconds=9.0)
    )


async def test_a_cancelled_call_releases_its_connection() -> None:
    async def scene(client: DynamoDBClient, server: FaultyServer) -> None:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await get(client)
        assert (await get(client)).item == ITEM
        assert len(server.requests) == 4

    one = CallLimits(connections=1, attempt_seconds=20.0)
    await against(script(HANG, HANG, HANG, FOUND), scene, limits=one)


async def test_capacity_is_requested_and_summed() -> None:
    used = {"TableName": "sessions", "CapacityUnits": 1.5}

    def handler(request: Request) -> Answer:
        assert request.document["ReturnConsumedCapacity"] == "TOTAL"
        many = request.headers["x-amz-target"].endswith("TransactWriteItems")
        answer = {"ConsumedCapacity": [used, used] if many else used}
        return Answer(body=msgspec.json.encode(answer))

    async def scene(client: DynamoDBClient, _: FaultyServer) -> None:
        got = await get(client)
        assert got.consumed_capacity is not None
        assert got.consumed_capacity.capacity_units == 1.5
        query = Query(table_name="sessions", key_condition_expression="pk = :p")
        await client.call(QUERY, query, deadline=soon())
        await client.transact_write([Put(table_name="sessions", item=ITEM)], deadline=soon())
        assert client.traffic.capacity_units == 6.0

    await against(handler, scene, capacity=True)


async def test_unprocessed_parts_of_batches_are_retried() -> None:
    stored: dict[str, Item] = {}

    def handler(request: Request) -> Answer:
        """Processes only the first four."""
        (asked,) = request.document["RequestItems"].values()  # type: ignore[attr-defined]
        if request.headers["x-amz-target"].endswith("BatchGetItem"):
            keys = asked["Keys"]
            assert len(keys) <= 100
            found = [stored[key["pk"]["S"]] for key in keys[:4] if key["pk"]["S"] in stored]
            left = {"sessions": {"Keys": keys[4:]}} if keys[4:] else {}
            answer = {"Responses": {"sessions": found}, "UnprocessedKeys": left}
            return Answer(body=msgspec.json.encode(answer))
        assert len(asked) <= 25
        for each in asked[:4]:
            if put := each.get("PutRequest"):
                stored[put["Item"]["pk"]["S"]] = put["Item"]
            else:
                del stored[each["DeleteRequest"]["Key"]["pk"]["S"]]
        unprocessed = {"sessions": asked[4:]} if asked[4:] else {}
        return Answer(body=msgspec.json.encode({"UnprocessedItems": unprocessed}))

    items: list[Item] = [{"pk": {"S": str(n)}, "n": {"N": str(n)}} for n in range(26)]
    keys: list[Item] = [{"pk": {"S": str(n)}} for n in range(30)]

    async def scene(client: DynamoDBClient, _: FaultyServer) -> None:
        no_wait: Any = {"deadline": soon(), "chance": lambda: 0.0}
        await batch_put(client, "sessions", items, **no_wait)
        assert len(stored) == 26
        found = await batch_get(client, "sessions", keys, **no_wait)
        assert sorted(found, key=lambda item: int(item["n"]["N"])) == items
        await batch_delete(client, "sessions", keys[:26], **no_wait)
        assert not stored

    await against(handler, scene)


async def test_a_batch_without_progress_is_abandoned() -> None:
    def handler(request: Request) -> Answer:
        return Answer(
            body=msgspec.json.encode({"UnprocessedItems": request.document["RequestItems"]})
        )

    async def scene(client: DynamoDBClient, server: FaultyServer) -> None:
        call = batch_put(client, "sessions", [ITEM], deadline=soon(), chance=lambda: 0.0)
        await failing(call, Throttled)
        assert len(server.requests) == 8

    await against(handler, scene)


async def test_warming_opens_connections_and_fetches_credentials() -> None:
    async def scene(client: DynamoDBClient, server: FaultyServer) -> None:
        await client.warm(2, deadline=soon())
        await get(client)
        await asyncio.sleep(0)
        assert server.connections == 2

    await against(script(FOUND), scene)
