"""The local Lambda under AWS's own runtime client, called by AWS's own SDK."""

import asyncio
import gc
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from botocore.config import Config
from botocore.session import Session

from seawall.lab.local_lambda.function import LocalFunction, PayloadTooLarge, Throttled
from seawall.lab.local_lambda.invocation import FunctionError
from seawall.lab.local_lambda.server import front
from seawall.lab.local_lambda.settings import PAYLOAD_BYTES, FunctionSettings
from tests.servers import ROOT


def settings_of(handler: str = "echo", **changed: Any) -> FunctionSettings:
    name = f"tests.lab.lambda_handlers.{handler}"
    return FunctionSettings(
        command=(sys.executable, "-m", "awslambdaric", name),
        handler=name,
        folder=str(ROOT),
        **changed,
    )


@asynccontextmanager
async def running(handler: str = "echo", **changed: Any) -> AsyncIterator[LocalFunction]:
    async with LocalFunction(settings_of(handler, **changed), log=lambda _: None) as function:
        yield function


async def call(function: LocalFunction, event: object) -> Any:
    return json.loads(await function.invoke(json.dumps(event).encode()).whole())


async def failure(function: LocalFunction, event: object) -> dict[str, Any]:
    with pytest.raises(FunctionError) as caught:
        await call(function, event)
    body: dict[str, Any] = json.loads(caught.value.body)
    return body


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - other processes have no event to wait for
            await asyncio.sleep(0.01)


def process_state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def test_a_handler_gets_what_lambda_provides() -> None:
    async with running(memory_mb=256, timeout_seconds=20) as function:
        result = await call(function, {"a": [1, "ü"]})
    assert result["event"] == {"a": [1, "ü"]}
    assert result["arn"] == function.settings.arn
    assert 10_000 < result["left"] <= 20_000
    assert result["memory"] == "256"
    assert result["trace"].startswith("Root=1-")
    assert result["kind"] == "on-demand"


async def test_an_idle_environment_is_frozen_and_reused() -> None:
    async with running() as function:
        first = await call(function, 1)
        await until(lambda: process_state(first["pid"]) == "T")
        second = await call(function, 2)
        assert (second["pid"], second["calls"]) == (first["pid"], 2)
        assert first["request"] != second["request"]
        assert function.stats().started == 1


async def test_each_invocation_has_its_environment_and_idle_ones_are_reclaimed() -> None:
    async with running("work", idle_seconds=0.3) as function:
        event = {"do": "sleep", "seconds": 0.3}
        result = await asyncio.gather(*(call(function, event) for _ in range(3)))
        assert len({each["pid"] for each in result}) == 3
        await until(lambda: not function.environments)
        await until(lambda: not any(Path(f"/proc/{each['pid']}").exists() for each in result))


async def test_past_its_concurrency_and_scaling_rate_it_throttles() -> None:
    async with running("work", concurrency=1) as function:
        running_one = asyncio.create_task(call(function, {"do": "sleep", "seconds": 0.2}))
        await asyncio.sleep(0.01)
        with pytest.raises(Throttled, match="ReservedFunctionConcurrent"):
            await call(function, {})
        await running_one
    async with running("work", scaling_per_10s=1) as function:
        running_one = asyncio.create_task(call(function, {"do": "sleep", "seconds": 0.2}))
        await asyncio.sleep(0.01)
        with pytest.raises(Throttled, match="InvocationRateLimit"):
            await call(function, {})
        await running_one


async def test_failures_have_the_errors_of_aws_and_the_next_invocation_works() -> None:
    async with running("work", memory_mb=128) as function:
        raised = await failure(function, {"do": "raise"})
        assert raised["errorType"] == "KeyError"
        assert raised["stackTrace"]
        gone = await failure(function, {"do": "exit", "status": 3})
        assert gone["errorType"] == "Runtime.ExitError"
        assert gone["errorMessage"].endswith("Error: Runtime exited with error: exit status 3")
        grown = await failure(function, {"do": "grow", "megabytes": 200})
        assert grown["errorType"] == "Runtime.OutOfMemory"
        assert (await call(function, {"do": ""}))["calls"] == 1
        assert function.stats().started == 3


async def test_past_its_timeout_an_invocation_fails_and_the_next_one_works() -> None:
    async with running("work", timeout_seconds=1) as function:
        late = await failure(function, {"do": "sleep", "seconds": 30})
        assert late["errorType"] == "Sandbox.Timedout"
        assert "Task timed out after 1.00 seconds" in late["errorMessage"]
        assert (await call(function, {"do": ""}))["calls"] == 1
        assert function.stats().started == 2


async def test_a_killed_environment_fails_its_invocations() -> None:
    async with running("work") as function:
        sleeping = function.invoke(json.dumps({"do": "sleep", "seconds": 30}).encode())
        await until(lambda: bool(function.environments))
        await function.environments[0].kill()
        with pytest.raises(FunctionError, match="signal: killed"):
            await sleeping.whole()
        assert (await call(function, {"do": ""}))["calls"] == 1


async def test_payloads_at_and_over_the_limit() -> None:
    async with running("work", concurrency=1) as function:
        limit = PAYLOAD_BYTES + 100
        exact = await function.invoke(b'{"do":"answer","characters":%d}' % (limit - 2)).whole()
        assert len(exact) == limit
        over = await failure(function, {"do": "answer", "characters": limit - 1})
        assert over["errorType"] == "Function.ResponseSizeTooLarge"
        assert f"({limit} bytes)" in over["errorMessage"]
        room = PAYLOAD_BYTES - len('{"do":"measure","filling":""}')
        largest = b'{"do":"measure","filling":"%b"}' % (b"x" * room)
        assert int(await function.invoke(largest).whole()) == room
        with pytest.raises(PayloadTooLarge):
            function.invoke(largest + b" ")


async def test_an_initialisation_that_times_out_is_retried(tmp_path: Path) -> None:
    slow = {"SLOW_ONCE": str(tmp_path / "slow")}
    async with running(init_seconds=0.6, environment=slow) as function:
        assert (await call(function, 1))["calls"] == 1
        assert function.stats().started == 2


async def test_a_failed_initialisation_fails_the_invocation() -> None:
    async with running(environment={"FAIL_AT_INIT": "1"}) as function:
        result = await failure(function, 1)
        assert result["errorType"] == "RuntimeError"
        assert result["errorMessage"] == "no configuration"
        assert function.stats().environments == 0


async def test_snapstart_stops_after_init_and_is_restored_when_invoked() -> None:
    async with running(snapstart=True) as function:
        prepared = function.stats()
        assert (prepared.started, prepared.environments, prepared.frozen) == (1, 0, 1)
        result = await call(function, 1)
        assert result["kind"] == "snap-start"
        assert function.stats().restored == 1


async def test_a_managed_instance_takes_many_at_once_and_is_not_frozen() -> None:
    async with running("work", max_concurrency=3, provisioned=1, concurrency=1) as function:
        await until(lambda: function.environments[0].free)
        event = {"do": "sleep", "seconds": 0.5}
        result = await asyncio.gather(*(call(function, event) for _ in range(3)))
        assert len({each["pid"] for each in result}) == 3  # AWS's client: a process for each
        assert {each["kind"] for each in result} == {"lambda-managed-instances"}
        assert function.stats().started == 1
        assert process_state(function.environments[0].pid) != "T"


@pytest.fixture(scope="module")
def sdk() -> Callable[[str], Any]:
    session = Session()

    def made(url: str) -> Any:
        return session.create_client(
            "lambda",
            region_name="us-east-1",
            endpoint_url=url,
            aws_access_key_id="local",
            aws_secret_access_key="local",
            config=Config(retries={"total_max_attempts": 1}, read_timeout=20),
        )

    return made


# The SDK leaves the connection of an event stream to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_the_sdk_invokes_the_function(sdk: Callable[[str], Any]) -> None:
    async with running("work", concurrency=1) as function, front(function) as url:

        def use() -> None:
            client = sdk(url)
            good = client.invoke(FunctionName="local", Payload=b'{"do":""}')
            assert good["StatusCode"] == 200
            assert json.loads(good["Payload"].read())["event"] == {"do": ""}
            bad = client.invoke(FunctionName="local", Payload=b'{"do":"raise"}')
            assert bad["FunctionError"] == "Unhandled"
            assert json.loads(bad["Payload"].read())["errorType"] == "KeyError"
            stream = client.invoke_with_response_stream(FunctionName="local", Payload=b'{"do":""}')
            events = list(stream["EventStream"])
            stream["EventStream"].close()
            whole = b"".join(
                each["PayloadChunk"]["Payload"] for each in events if "PayloadChunk" in each
            )
            assert json.loads(whole)["event"] == {"do": ""}
            assert "ErrorCode" not in events[-1]["InvokeComplete"]
            with pytest.raises(client.exceptions.RequestTooLargeException):
                client.invoke(FunctionName="local", Payload=b" " * (PAYLOAD_BYTES + 1))
            with pytest.raises(client.exceptions.ResourceNotFoundException):
                client.invoke(FunctionName="other", Payload=b"{}")
            late = client.invoke(
                FunctionName="local", InvocationType="Event", Payload=b'{"do":"sleep","seconds":1}'
            )
            assert late["StatusCode"] == 202
            with pytest.raises(client.exceptions.TooManyRequestsException) as refused:
                client.invoke(FunctionName="local", Payload=b'{"do":""}')
            reason = refused.value.response["Reason"]
            assert reason == "ReservedFunctionConcurrentInvocationLimitExceeded"
            client.close()

        await asyncio.to_thread(use)
        gc.collect()


async def test_the_function_url() -> None:
    async with running("work") as function, front(function) as url, httpx2.AsyncClient() as client:
        made = await client.post(f"{url}/a%20b?x=1&x=2", json={"do": "http"})
        # the event is the request, without a "do"
        assert made.status_code == 502
    async with running("echo") as function, front(function) as url, httpx2.AsyncClient() as client:
        result = await client.post(
            f"{url}/a%20b?x=1&x=2&y=", content=b"\x00\xff", headers=[("cookie", "a=1; b=2")]
        )
        event = result.json()["event"]
        assert event["version"] == "2.0"
        assert event["rawPath"] == "/a%20b"
        assert event["rawQueryString"] == "x=1&x=2&y="
        assert event["queryStringParameters"] == {"x": "1,2", "y": ""}
        assert event["cookies"] == ["a=1", "b=2"]
        assert (event["isBase64Encoded"], event["body"]) == (True, "AP8=")
        assert event["requestContext"]["http"]["method"] == "POST"
