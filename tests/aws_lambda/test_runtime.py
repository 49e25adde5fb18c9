"""A plain Starlette application, and plain functions, served by our runtime on the local Lambda."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

import seawall.hosts.aws_lambda
from seawall.lab.local_lambda.function import LocalFunction
from seawall.lab.local_lambda.invocation import FunctionError
from seawall.lab.local_lambda.runtime_api import InitFailed
from seawall.lab.local_lambda.settings import PAYLOAD_BYTES, FunctionSettings
from tests.aws_lambda.running import running
from tests.servers import ROOT

APP = "tests.aws_lambda.apps:app"
SCRIPTS = Path(seawall.hosts.aws_lambda.__file__).parent


async def test_a_request_and_its_response() -> None:
    async with running(APP, forked=False) as site:
        answer = await site.client.post(
            "/echo/a%20b/ü?x=1&x=2&y=",
            content=b"\x00\xff",
            headers={"cookie": "a=1; b=2", "x-own": "value"},
        )
        assert answer.headers["x-kind"] == "echo"
        result = answer.json()
        assert (result["method"], result["path"]) == ("POST", "/echo/a b/ü")
        assert result["query"] == "x=1&x=2&y="
        assert result["cookies"] == {"a": "1", "b": "2"}
        assert ["x-own", "value"] in result["headers"]
        assert result["body"] == "\x00ÿ"
        assert result["request"] == answer.headers["x-amzn-requestid"]
        assert result["client"] == "127.0.0.1"
        assert dict(result["headers"])["x-amzn-trace-id"].startswith("Root=1-")
        head = await site.client.head("/echo/x")
        assert (head.status_code, head.content) == (200, b"")
        assert (await site.client.get("/nothing")).status_code == 404


async def test_a_stream_is_delivered_as_it_is_written() -> None:
    async with (
        running(APP) as site,
        site.client.stream("GET", "/stream?count=2&pause=0.5") as answer,
    ):
        assert answer.status_code == 203
        assert answer.headers.get_list("set-cookie") == [
            "a=1; Path=/; SameSite=lax",
            "b=2; Path=/; SameSite=lax",
        ]
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"piece 0\n"
        assert site.function.environments[0].assigned == 1  # it is still being answered
        assert b"".join([each async for each in pieces]) == b"piece 1\n"


async def test_buffered_where_the_url_is() -> None:
    never = {"SEAWALL_LAMBDA_STREAM": "never"}
    async with running(APP, invoke_mode="BUFFERED", environment=never) as site:
        answer = await site.client.get("/stream")
        assert (answer.status_code, answer.text) == (203, "piece 0\npiece 1\npiece 2\n")
        assert len(answer.headers.get_list("set-cookie")) == 2
        assert "content-length" in answer.headers


async def test_one_loop_and_one_lifespan_for_all_invocations() -> None:
    async with running(APP) as site:
        result = [(await site.client.get("/echo/")).json() for _ in range(3)]
    assert len({each["pid"] for each in result}) == 1
    assert all(each["starts"] == 1 and each["same_loop"] for each in result)


async def test_many_in_flight_in_one_process() -> None:
    async with running(APP, max_concurrency=16, concurrency=1) as site:
        # Each is answered when all are there.
        met = await asyncio.gather(*(site.client.get("/meet?many=16") for _ in range(16)))
        assert [each.text for each in met] == ["met"] * 16
        result = await asyncio.gather(*(site.client.get("/echo/") for _ in range(16)))
        assert len({each.json()["pid"] for each in result}) == 1
        assert len({each.json()["request"] for each in result}) == 16
        assert site.function.stats().started == 1


async def test_other_integrations_on_the_same_function() -> None:
    rest = {
        "resource": "/{proxy+}",
        "path": "/mounted/echo/x",
        "httpMethod": "GET",
        "headers": {"host": "a.example"},
        "requestContext": {"stage": "prod", "path": "/prod/mounted/echo/x"},
        "body": None,
        "isBase64Encoded": False,
    }
    balancer = rest | {"requestContext": {"elb": {"targetGroupArn": "arn"}}}
    staged = {
        "version": "2.0",
        "rawPath": "/prod/echo/x",
        "rawQueryString": "a=b",
        "headers": {"host": "a.example"},
        "requestContext": {
            "domainName": "a.execute-api.eu-west-1.amazonaws.com",
            "stage": "prod",
            "http": {"method": "GET", "sourceIp": "192.0.2.1"},
        },
    }
    async with running(APP) as site:
        answer = await site.invoke(rest)
        assert answer["statusCode"] == 200
        assert answer["multiValueHeaders"]["x-kind"] == ["echo"]
        assert json.loads(answer["body"])["path"] == "/mounted/echo/x"
        answer = await site.invoke(balancer)
        assert (answer["statusDescription"], answer["headers"]["x-kind"]) == ("200 OK", "echo")
        answer = await site.invoke(staged)
        assert json.loads(answer["body"])["path"] == "/prod/echo/x"  # routed below its root
        unknown = await site.failure({"text": "hello"})
        assert unknown["errorType"] == "Seawall.UnknownEvent"


async def test_an_application_without_lifespan_and_plain_functions() -> None:
    async with running("tests.aws_lambda.apps.bare") as site:
        assert (await site.client.get("/")).text == "bare"
    async with running("tests.aws_lambda.apps.plain") as site:
        assert (await site.invoke({"a": 1}))["event"] == {"a": 1}
    async with running("tests.aws_lambda.apps.awaited", timeout_seconds=5) as site:
        assert 3_000 < (await site.invoke({"a": 1}))["left"] <= 5_000
    async with running("tests.aws_lambda.apps.streamed") as site:
        assert await site.function.invoke(b"{}").whole() == b"012"


async def test_restored_from_a_snapshot() -> None:
    async with running(APP, snapstart=True) as site:
        assert site.function.stats().frozen == 1
        result = (await site.client.get("/echo/")).json()
        assert result["same_loop"]
        assert site.function.stats().restored == 1


async def test_a_shutdown_during_a_snapshot_ends_at_once() -> None:
    async with running(APP, snapstart=True, shutdown_seconds=20) as site:
        snapshot = site.function._snapshots[0]
        process = snapshot._process
        await snapshot.stop()
        assert process is not None
        assert process.returncode == 0  # by itself: -9 where it had to be killed


async def test_hooks_of_the_aws_library_are_run() -> None:
    async with running("tests.aws_lambda.hooks.handler", snapstart=True) as site:
        assert await site.invoke({}) == ["second before", "first before", "first after"]


async def test_hooks_that_fail() -> None:
    with pytest.raises(InitFailed) as before:
        async with running(
            "tests.aws_lambda.hooks.handler", snapstart=True, environment={"FAIL": "before"}
        ):
            pass
    assert before.value.kind == "Runtime.BeforeSnapshotError"
    async with running(
        "tests.aws_lambda.hooks.handler", snapstart=True, environment={"FAIL": "after"}
    ) as site:
        with pytest.raises(FunctionError) as after:
            await site.invoke({})
        assert after.value.kind == "Runtime.AfterRestoreError"


async def test_failures_before_and_in_the_middle() -> None:
    async with running(APP) as site:
        before = await site.client.get("/fail")
        assert before.status_code == 500  # Starlette's own answer, given before it raises
        with pytest.raises(httpx2.RemoteProtocolError):
            await site.client.get("/stream?count=4&fail=2")
        assert [each["errorType"] for each in site.logged()] == ["LookupError", "ValueError"]
        assert all(each["requestId"] and each["stackTrace"] for each in site.logged())
        assert (await site.client.get("/echo/")).json()["starts"] == 1


async def test_errors_are_reported_in_the_format_of_aws() -> None:
    async with running("tests.aws_lambda.apps.raising") as site:
        assert (await site.client.get("/")).status_code == 502
        result = await site.failure({})
        assert (result["errorType"], result["errorMessage"]) == ("KeyError", "'x'")
        assert site.function.stats().started == 1


async def test_the_timeout_ends_the_invocation_not_the_environment() -> None:
    async with running(APP, timeout_seconds=1) as site:
        late = await site.client.get("/sleep?seconds=20")
        assert late.status_code == 502
        with pytest.raises(httpx2.RemoteProtocolError):
            await site.client.get("/stream?count=99")
        assert (await site.client.get("/echo/")).json()["starts"] == 1
        assert site.function.stats().started == 1


async def test_a_blocked_environment_is_ended_at_the_timeout() -> None:
    async with running("tests.aws_lambda.apps.blocked", timeout_seconds=1) as site:
        result = await site.failure({"block": 20})
        assert result["errorType"] == "Sandbox.Timedout"
        assert await site.invoke({"block": 0}) == "done"
        assert site.function.stats().started == 2


async def test_an_environment_that_dies() -> None:
    async with running(APP) as site:
        assert (await site.client.get("/die")).status_code == 502
        assert (await site.client.get("/echo/")).json()["starts"] == 1


async def test_answers_at_and_over_the_limit() -> None:
    async with running(APP, streamed_bytes=8 << 20, bandwidth=1 << 40) as site:
        large = await site.client.get(f"/large?bytes={PAYLOAD_BYTES + 1_000}")
        assert len(large.content) == PAYLOAD_BYTES + 1_000  # streamed, so 6 MB are no limit
        with pytest.raises(httpx2.RemoteProtocolError):
            await site.client.get(f"/large?bytes={9 << 20}")
        event = await site.client.post("/echo/", content=b"\xff" * PAYLOAD_BYTES)
        assert event.status_code == 413
        assert (await site.client.get("/echo/")).json()["starts"] == 1
    never = {"SEAWALL_LAMBDA_STREAM": "never"}
    async with running(APP, invoke_mode="BUFFERED", environment=never) as site:
        room = PAYLOAD_BYTES - 1_000
        assert len((await site.client.get(f"/large?bytes={room}")).content) == room
        over = await site.client.get(f"/large?bytes={PAYLOAD_BYTES + 200}")
        assert over.status_code == 502
        assert (await site.client.get("/echo/")).json()["starts"] == 1


async def test_sigterm_lets_invocations_in_flight_finish() -> None:
    async with running(APP, max_concurrency=4, shutdown_seconds=5) as site:
        request = asyncio.create_task(site.client.get("/stream?count=4&pause=0.2"))
        await asyncio.sleep(0.3)
        environment = site.function.environments[0]
        process = environment._process
        await environment.stop()
        assert process is not None
        assert process.returncode == 0
        assert (await request).text == "piece 0\npiece 1\npiece 2\npiece 3\n"


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        ("tests.aws_lambda.apps:nothing", "ConfigError"),
        ("tests.aws_lambda.missing:app", "ModuleNotFoundError"),
        ("nonsense", "ConfigError"),
        ("tests.aws_lambda.apps:failing", "RuntimeError"),
    ],
)
async def test_a_failed_start_is_reported(handler: str, kind: str) -> None:
    async with running(handler) as site:
        assert (await site.failure({}))["errorType"] == kind


async def test_a_wrong_setting_is_named() -> None:
    async with running(APP, environment={"SEAWALL_LAMBDA_STREAM": "maybe"}) as site:
        result = await site.failure({})
        assert result["errorType"] == "ConfigError"
        assert "stream" in result["errorMessage"]


def started_by(script: str, *arguments: str, **environment: str) -> FunctionSettings:
    return FunctionSettings(
        command=(str(SCRIPTS / script), *arguments),
        handler=APP,
        folder=str(ROOT),
        environment=environment,
    )


@pytest.mark.parametrize(
    "settings",
    [
        started_by("bootstrap", SEAWALL_PYTHON=sys.executable),
        started_by("exec-wrapper", sys.executable, "/var/runtime/bootstrap.py"),
    ],
    ids=["bootstrap", "exec-wrapper"],
)
async def test_as_custom_runtime_and_by_the_exec_wrapper(settings: FunctionSettings) -> None:
    async with LocalFunction(settings, log=print) as function:
        event: dict[str, Any] = {
            "rawPath": "/echo/x",
            "headers": {},
            "requestContext": {"http": {"method": "GET"}},
        }
        answer = json.loads(await function.invoke(json.dumps(event).encode()).whole())
        assert answer["statusCode"] == 200


def test_the_command_starts_it(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "seawall", "lab", "lambda", APP, "--port", "0", "--json"],
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
        )
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        assert httpx2.get(f"{url}/echo/", timeout=20).json()["starts"] == 1
        assert httpx2.get(f"{url}/.lambda/stats", timeout=20).json()["started"] == 1
        process.terminate()
        assert process.wait(10) == 0
        process.stdout.close()
    finally:
        process.kill()
