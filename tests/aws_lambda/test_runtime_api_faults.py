"""Our runtime where the Runtime API fails: a server that answers as each test has it."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from seawall.lab.local_lambda.http_server import Request, ResponseWriter, serve
from tests.aws_lambda.forked_runtime import ForkedRuntime, start_runtime
from tests.servers import ROOT

Next = Callable[[int], int | str]


class FaultyApi:
    """A Runtime API with scripted faults.

    nexts: what becomes of each request for an invocation, counted from 1: a status, "invoke",
    "close" or "wait". responses: the same of each answer that is given, or "cut": closed after its
    first piece. reports: the same for each reported error.
    """

    def __init__(self, nexts: Next, responses: Next, reports: Next) -> None:
        self._nexts = nexts
        self._responses = responses
        self._reports = reports
        self.asked = 0
        self.given: list[bytes] = []
        self.errors: list[tuple[str, str]] = []

    async def handle(self, request: Request, writer: ResponseWriter) -> None:
        if request.target.endswith("/next"):
            self.asked += 1
            await self._do(self._nexts(self.asked), writer, self._invocation())
            return
        if request.target.endswith("/response") and self._responses(len(self.given) + 1) == "cut":
            self.given.append(await anext(request.pieces()))
            writer.abort()
            return
        body = await request.body(1 << 24)
        assert body is not None
        if request.target.endswith("/error"):
            self.errors.append(
                (request.header("lambda-runtime-function-error-type"), request.target)
            )
            await self._do(self._reports(len(self.errors)), writer, [])
            return
        self.given.append(body)
        await self._do(self._responses(len(self.given)), writer, [])

    def _invocation(self) -> list[tuple[str, str]]:
        return [
            ("lambda-runtime-aws-request-id", f"r-{self.asked}"),
            ("lambda-runtime-deadline-ms", str(int((time.time() + 10) * 1e3))),
            ("lambda-runtime-trace-id", "Root=1-5"),
        ]

    async def _do(
        self, what: int | str, writer: ResponseWriter, headers: list[tuple[str, str]]
    ) -> None:
        match what:
            case "close":
                writer.abort()
            case "wait":
                await asyncio.sleep(60)
            case "invoke":
                await writer.answer(200, b'{"a": 1}', headers)
            case int():
                await writer.answer(what, b'{"errorType":"Reported"}')


@asynccontextmanager
async def runtime(
    nexts: Next,
    responses: Next = lambda _: 202,
    reports: Next = lambda _: 202,
    *,
    slots: int = 1,
    handler: str = "awaited",
) -> AsyncIterator[tuple[FaultyApi, ForkedRuntime]]:
    api = FaultyApi(nexts, responses, reports)
    serving = await serve(api.handle, "127.0.0.1", 0)
    variables = {"AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{serving.port}"}
    if slots > 1:
        variables["AWS_LAMBDA_MAX_CONCURRENCY"] = str(slots)
    process = await start_runtime(f"tests.aws_lambda.apps.{handler}", os.environ | variables, ROOT)
    reading = asyncio.create_task(process.stdout.read())
    try:
        yield api, process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading
        await serving.close()


async def ended(process: ForkedRuntime | asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(10):
        return await process.wait()


@pytest.mark.parametrize(("status", "exits"), [(500, 1), (403, 1), (410, 0)])
async def test_error_statuses_of_next_end_the_environment(status: int, exits: int) -> None:
    async with runtime(lambda number: "invoke" if number == 1 else status) as (api, process):
        assert await ended(process) == exits
        assert json.loads(api.given[0])["event"] == {"a": 1}
        assert api.asked == 2


@pytest.mark.parametrize("fault", ["close", 500])
async def test_managed_instances_poll_again(fault: int | str) -> None:
    def nexts(number: int) -> int | str:
        return fault if number <= 2 else "invoke" if number <= 4 else "wait"

    async with runtime(nexts, slots=2) as (api, process):
        async with asyncio.timeout(10):
            while len(api.given) < 2:  # noqa: ASYNC110 - another process has no event
                await asyncio.sleep(0.01)
        assert process.returncode is None


async def test_a_connection_that_always_closes_ends_the_environment() -> None:
    async with runtime(lambda _: "close") as (api, process):
        assert await ended(process) == 1
        assert api.asked == 5


@pytest.mark.parametrize("handler", ["awaited", "streamed"])
async def test_a_rejected_response_is_lost_and_the_next_invocation_works(handler: str) -> None:
    faults: list[int | str] = ["close", 400, 403, 413, 500]
    # After each answer that is not taken comes one that is.
    taken = [each for fault in faults for each in (fault, 202)]

    def nexts(number: int) -> int | str:
        return "invoke" if number <= len(taken) else 410

    def responses(number: int) -> int | str:
        return taken[number - 1]

    async with runtime(nexts, responses, handler=handler) as (api, process):
        assert await ended(process) == 0
        assert len(api.given) == len(taken)
        assert api.errors == []


async def test_a_connection_closed_in_the_middle_of_a_stream() -> None:
    def nexts(number: int) -> int | str:
        return "invoke" if number <= 2 else 410

    def responses(number: int) -> int | str:
        return "cut" if number == 1 else 202

    async with runtime(nexts, responses, handler="slow_stream") as (api, process):
        assert await ended(process) == 0
        assert api.given == [b"0", b"01234"]
        assert api.errors == []


async def test_a_rejected_error_is_lost_and_the_next_invocation_works() -> None:
    faults: list[int | str] = ["close", 400, 403, 410, 413, 500]

    def nexts(number: int) -> int | str:
        return "invoke" if number <= len(faults) + 1 else 410

    def reports(number: int) -> int | str:
        return [*faults, 202][number - 1]

    async with runtime(nexts, reports=reports, handler="raising") as (api, process):
        assert await ended(process) == 0
        assert [kind for kind, _ in api.errors] == ["KeyError"] * (len(faults) + 1)


async def test_invocations_in_flight_finish_when_lambda_ends_the_environment() -> None:
    def nexts(number: int) -> int | str:
        return "invoke" if number == 1 else 410

    async with runtime(nexts, slots=2, handler="slow") as (api, process):
        assert await ended(process) == 0
        assert [json.loads(each) for each in api.given] == [{"event": {"a": 1}}]
        assert api.asked == 2


async def test_an_unreachable_api() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "seawall.hosts.aws_lambda",
        "tests.aws_lambda.apps.awaited",
        cwd=ROOT,
        env=os.environ | {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9"},
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert await ended(process) == 1
