"""DynamoDB client: signed calls over the shared HTTP client, with bounded retries.

Requests, answers and errors are in `dynamodb_calls`.
docs/decisions/002-dynamodb-client.md has the figures behind a client of our own.

An attempt whose answer is lost is repeated, so any write may reach DynamoDB twice. Transactions
carry a token by which DynamoDB recognises the repetition (for ten minutes). A single conditional
write may fail because of its own first attempt: request the item with
`return_values_on_condition_check_failure="ALL_OLD"`, and check whether it is as intended.
"""

import asyncio
import os
import random
import time
import zlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from msgspec import Struct

from seawall.aws import Credentials, CredentialsError, ServerClock, Signer, endpoint_url
from seawall.aws.credential_cache import CredentialCache
from seawall.aws.dynamodb_calls import (
    EXPIRED_TOKEN_CODES,
    TRANSACT_GET,
    TRANSACT_WRITE,
    AccessDenied,
    ConditionCheck,
    Delete,
    DynamoDBError,
    Get,
    InvalidCall,
    Item,
    Operation,
    Put,
    RetryableFailure,
    TransactGetOutput,
    TransactWriteOutput,
    Unavailable,
    Update,
    classify_refusal,
    parse_refusal,
)
from seawall.resilience import RetryBudget, full_jitter
from seawall.transport.connection import ConnectFailed, TransportError
from seawall.transport.http_client import BufferedResponse, Endpoint, HttpClient

__all__ = ["CallLimits", "ClientStats", "DynamoDBClient"]

T = TypeVar("T")

_CONTENT_TYPE = "application/x-amz-json-1.0"

# What a retry costs of the budget; see `RetryBudget`.
_COST = 14.0
_THROTTLED_COST = 5.0


class CallLimits(Struct, frozen=True):
    """Limits of attempts, time and concurrency.

    Attempts and backoff are those of botocore's standard mode for DynamoDB
    (botocore/retries/standard.py, 1.43), except that throttling waits a fifth of its second,
    because a client waits for the turn.

    Attributes:
        attempts: For one call, the first included.
        attempt_seconds: Of one attempt, so that one that hangs does not use up the deadline.
        connections: Concurrent calls; the HTTP client must allow as many connections.
        backoff_seconds: Longest wait after a first attempt that failed; doubles with each one.
        throttled_backoff_seconds: The same after one that was throttled.
        max_backoff_seconds: Longest wait of all.
        max_response_bytes: Longer responses are errors.
    """

    attempts: int = 4
    attempt_seconds: float = 2.0
    connections: int = 128
    backoff_seconds: float = 0.025
    throttled_backoff_seconds: float = 0.2
    max_backoff_seconds: float = 5.0
    max_response_bytes: int = 24 << 20


class ClientStats(Struct):
    """Counts of a client; capacity only where the client requests it."""

    calls: int = 0
    round_trips: int = 0
    retries: int = 0
    throttled: int = 0
    failures: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    capacity_units: float = 0.0


class _Progress:
    """State of one call: attempts, cost of the last retry, repairs that were tried."""

    __slots__ = ("attempts", "paid", "renewed", "signed_again", "signed_at", "uncertain")

    def __init__(self) -> None:
        self.attempts = 1
        self.paid = 1.0
        self.uncertain = False
        self.renewed = False
        self.signed_again = False
        self.signed_at = 0.0


class DynamoDBClient:
    """Calls DynamoDB in one region."""

    def __init__(
        self,
        http: HttpClient,
        credentials: CredentialCache,
        *,
        region: str,
        endpoint: str = "",
        limits: CallLimits | None = None,
        budget: RetryBudget | None = None,
        capacity: bool = False,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Create the client; opens nothing.

        Args:
            http: Owns the connections.
            credentials: Sign the requests.
            region: AWS region.
            endpoint: Another than the region's public one, such as a VPC endpoint.
            limits: Of attempts, time and concurrency.
            budget: Retry budget; shared by clients of the same service.
            capacity: Request what each call consumes.
            clock: Unix time in seconds.
            chance: Random numbers in [0, 1), for the jitter.
        """
        self._http = http
        self._credentials = credentials
        self._endpoint = Endpoint.parse(endpoint or endpoint_url("dynamodb", region))
        self._host = self._endpoint.authority.decode("ascii")
        self._signer = Signer(region, "dynamodb")
        self._limits = limits or CallLimits()
        self._budget = budget or RetryBudget()
        self._capacity = capacity
        self._time = ServerClock(clock)
        self._chance = chance
        self._permits = asyncio.Semaphore(self._limits.connections)
        self._encode = msgspec.json.Encoder().encode
        self.traffic = ClientStats()

    @property
    def skew(self) -> float:
        """Seconds by which DynamoDB's clock is ahead of ours; 0 until it refused a signature."""
        return self._time.skew

    async def call(self, operation: Operation[T], request: object, *, deadline: float) -> T:
        """Send a request, with retries; return its answer.

        Args:
            operation: Which call.
            request: One of `dynamodb_calls`, another object that encodes to the JSON of the API,
                or that JSON as bytes.
            deadline: On the event loop's clock.

        Raises:
            DynamoDBError: See its subclasses.
        """
        body = request if isinstance(request, bytes) else self._encode(request)
        if self._capacity and operation.counted:
            body = body[:-1] + b',"ReturnConsumedCapacity":"TOTAL"}'
        self.traffic.calls += 1
        progress = _Progress()
        while True:
            try:
                credentials = self._credentials.current()
                if credentials is None:
                    credentials = await self._credentials.get(deadline=deadline)
                answer = await self._attempt(operation, body, credentials, progress, deadline)
                if answer.status == 200:
                    decoded = self._decode(operation, answer)
                    self._budget.deposit(progress.paid, at=asyncio.get_running_loop().time())
                    return decoded
                await self._prepare_retry(answer, credentials, progress, deadline)
            except CredentialsError as error:
                raise self._final(AccessDenied(str(error)), progress) from error
            except DynamoDBError as error:
                raise self._final(error, progress) from error.__cause__
            except RetryableFailure as failure:
                pause = self._retry_delay(failure, progress, deadline)
                if pause is None:
                    raise self._final(failure.final, progress) from failure.__cause__
                await asyncio.sleep(pause)

    async def transact_write(
        self,
        parts: Sequence[Put | Update | Delete | ConditionCheck],
        *,
        deadline: float,
        token: str = "",
    ) -> TransactWriteOutput:
        """Do all of the writes or none.

        Args:
            parts: At most 100, each on another item.
            deadline: On the event loop's clock.
            token: 1 to 36 characters by which DynamoDB recognises a repetition; generated if
                empty. Pass the same one when a transaction is repeated after an uncertain failure.

        Raises:
            TransactionCancelled: A condition is not met; `reasons` says which.
            DynamoDBError: See its subclasses.
        """
        request = {
            "TransactItems": [{type(part).__name__: part} for part in parts],
            "ClientRequestToken": token or os.urandom(16).hex(),
        }
        return await self.call(TRANSACT_WRITE, request, deadline=deadline)

    async def transact_get(
        self, parts: Sequence[Get], *, deadline: float
    ) -> TransactGetOutput[Item]:
        """Read at most 100 items as they are at one moment.

        Raises:
            DynamoDBError: See its subclasses.
        """
        request = {"TransactItems": [{"Get": part} for part in parts]}
        return await self.call(TRANSACT_GET, request, deadline=deadline)

    async def warm(self, connections: int = 1, *, deadline: float) -> None:
        """Fetch credentials and open connections before the first call.

        Raises:
            AccessDenied: There are no credentials.
            Unavailable: No connection could be made.
        """
        try:
            await self._credentials.get(deadline=deadline)
            await self._http.warm(self._endpoint, connections, deadline=deadline)
        except CredentialsError as error:
            raise AccessDenied(str(error)) from error
        except TransportError as error:
            raise Unavailable(f"DynamoDB cannot be reached: {error}") from error

    async def _attempt(
        self,
        operation: Operation[T],
        body: bytes,
        credentials: Credentials,
        progress: _Progress,
        deadline: float,
    ) -> BufferedResponse:
        if self._permits.locked():
            try:
                async with asyncio.timeout_at(deadline):
                    await self._permits.acquire()
            except TimeoutError as error:
                raise Unavailable("no connection to DynamoDB became free in time") from error
        else:
            await self._permits.acquire()  # does not wait
        try:
            return await self._exchange(operation, body, credentials, progress, deadline)
        finally:
            self._permits.release()

    async def _exchange(
        self,
        operation: Operation[T],
        body: bytes,
        credentials: Credentials,
        progress: _Progress,
        deadline: float,
    ) -> BufferedResponse:
        headers = (
            ("content-type", _CONTENT_TYPE),
            ("host", self._host),
            ("x-amz-target", operation.target),
        )
        progress.signed_at = self._time.now()
        signed = self._signer.sign(
            credentials, method="POST", headers=headers, body=body, at=progress.signed_at
        )
        signed.append((b"content-type", _CONTENT_TYPE.encode()))
        signed.append((b"x-amz-target", operation.target.encode()))
        traffic = self.traffic
        traffic.round_trips += 1
        traffic.bytes_sent += len(body)
        limit = asyncio.get_running_loop().time() + self._limits.attempt_seconds
        try:
            answer = await self._http.request(
                "POST",
                self._endpoint,
                headers=signed,
                body=body,
                deadline=min(deadline, limit),
                limit=self._limits.max_response_bytes,
                replay=False,
            )
        except TransportError as error:
            failed = Unavailable(f"DynamoDB, {operation.name}: {error}")
            failed.uncertain = not isinstance(error, ConnectFailed)
            raise RetryableFailure(failed) from error
        traffic.bytes_received += len(answer.body)
        checksum = answer.headers.get("x-amz-crc32", "")
        if checksum and checksum != str(zlib.crc32(answer.body)):
            failed = Unavailable(f"DynamoDB, {operation.name}: the answer's checksum is wrong")
            failed.uncertain = True
            raise RetryableFailure(failed)
        return answer

    def _decode(self, operation: Operation[T], answer: BufferedResponse) -> T:
        try:
            decoded = operation.decode(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if isinstance(error, msgspec.ValidationError):
                # JSON, but not of the expected type: no retry changes that.
                unexpected = InvalidCall(f"{operation.name}: unexpected answer: {error}")
                unexpected.uncertain = True
                raise unexpected from error
            failed = Unavailable(f"DynamoDB, {operation.name}: the answer is not JSON")
            failed.uncertain = True
            raise RetryableFailure(failed) from error
        if self._capacity:
            used = getattr(decoded, "consumed_capacity", None)
            for each in used if isinstance(used, list) else [used]:
                self.traffic.capacity_units += each.capacity_units if each is not None else 0.0
        return decoded

    async def _prepare_retry(
        self,
        answer: BufferedResponse,
        credentials: Credentials,
        progress: _Progress,
        deadline: float,
    ) -> None:
        """Renew credentials or correct the clock if a retry may succeed; else raise the refusal."""
        refusal = parse_refusal(answer.status, answer.body)
        if refusal.code in EXPIRED_TOKEN_CODES and not progress.renewed:
            progress.renewed = True
            await self._credentials.renew(credentials, deadline=deadline)
        elif not progress.signed_again and self._time.should_sign_again(
            refusal.code,
            refusal.message,
            answer.headers.get("date", ""),
            signed_at=progress.signed_at,
        ):
            progress.signed_again = True
        else:
            raise classify_refusal(refusal)

    def _retry_delay(
        self, failure: RetryableFailure, progress: _Progress, deadline: float
    ) -> float | None:
        """Return the seconds until the next attempt; None if there is none."""
        throttled = failure.throttled
        self.traffic.throttled += throttled
        progress.uncertain = progress.uncertain or failure.final.uncertain
        limits = self._limits
        if progress.attempts >= limits.attempts:
            return None
        pause = full_jitter(
            progress.attempts,
            base=limits.throttled_backoff_seconds if throttled else limits.backoff_seconds,
            cap=limits.max_backoff_seconds,
            chance=self._chance(),
        )
        cost = _THROTTLED_COST if throttled else _COST
        now = asyncio.get_running_loop().time()
        if now + pause >= deadline or not self._budget.spend(cost, at=now):
            return None
        progress.attempts += 1
        progress.paid = cost
        self.traffic.retries += 1
        return pause

    def _final(self, error: DynamoDBError, progress: _Progress) -> DynamoDBError:
        self.traffic.failures += 1
        error.uncertain = error.uncertain or progress.uncertain
        return error
