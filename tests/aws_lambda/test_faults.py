"""What callers receive for each failure, as AWS documents it; the next invocation works.

docs.aws.amazon.com/lambda/latest/dg: runtimes-api, runtimes-custom, gettingstarted-limits,
configuration-response-streaming, lambda-runtime-environment.
"""

import asyncio
import json
import signal
from collections.abc import Callable

import pytest

from seawall.lab.local_lambda.function import PayloadTooLarge
from seawall.lab.local_lambda.invocation import FunctionError
from seawall.lab.local_lambda.settings import PAYLOAD_BYTES
from tests.aws_lambda.running import Site, running

APPS = "tests.aws_lambda.apps"


async def streamed(site: Site, event: object) -> tuple[bytes, FunctionError | None]:
    """What came of a stream, and how it broke off."""
    invocation = site.function.invoke(json.dumps(event).encode())
    received = b""
    try:
        await invocation.head()
        async for piece in invocation.pieces():
            received += piece
    except FunctionError as error:
        return received, error
    return received, None


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - another process has no event to wait for
            await asyncio.sleep(0.01)


async def test_raising_before_and_in_the_middle_of_a_stream() -> None:
    async with running(f"{APPS}.slow_stream") as site:
        for fail, came in ((0, b""), (2, b"01")):
            received, error = await streamed(site, {"fail": fail, "pause": 0.01})
            assert received == came
            assert error is not None
            assert error.kind == "ValueError"
            body = json.loads(error.body)
            assert (body["errorType"], body["errorMessage"]) == ("ValueError", f"at piece {fail}")
            assert body["stackTrace"]
        assert await streamed(site, {"count": 2, "pause": 0.01}) == (b"01", None)
        assert site.function.stats().started == 1


async def test_an_application_that_raises_before_its_response() -> None:
    async with running(f"{APPS}:mute") as site:
        for _ in range(2):
            assert (await site.client.get("/")).status_code == 502
        assert [each["errorType"] for each in site.logged()] == ["LookupError", "LookupError"]
        assert site.function.stats().started == 1


async def test_the_deadline_passes_before_and_in_the_middle_of_a_stream() -> None:
    async with running(f"{APPS}.slow_stream", timeout_seconds=1) as site:
        for event, came in (({"pause": 9}, b"0"), ({"count": 99, "pause": 0.3}, b"012")):
            received, error = await streamed(site, event)
            assert came.startswith(received[:1])
            assert error is not None
            assert error.kind == "Seawall.DeadlineExceeded"
        assert await streamed(site, {"count": 2, "pause": 0.01}) == (b"01", None)
        assert site.function.stats().started == 1


async def test_payloads_exactly_at_the_limit_and_one_byte_over() -> None:
    async with running(f"{APPS}.sized", concurrency=1) as site:
        limit = site.function.settings.response_bytes
        exact = await site.function.invoke(b'{"bytes":%d}' % limit).whole()
        assert len(exact) == limit
        over = await site.failure({"bytes": limit + 1})
        assert over["errorType"] == "Function.ResponseSizeTooLarge"
        room = PAYLOAD_BYTES - len('{"filling":""}')
        largest = b'{"filling":"%b"}' % (b"x" * room)
        assert int(await site.function.invoke(largest).whole()) == room
        with pytest.raises(PayloadTooLarge):
            site.function.invoke(largest + b" ")
        assert await site.invoke({"filling": "x"}) == 1
        assert site.function.stats().started == 1


async def test_an_environment_that_is_killed_in_the_middle_of_a_stream() -> None:
    async with running(f"{APPS}.slow_stream") as site:
        streaming = asyncio.create_task(streamed(site, {"count": 99}))
        await wait_until(lambda: any(each.assigned for each in site.function.environments))
        await asyncio.sleep(0.3)
        site.function.environments[0]._signal(signal.SIGKILL)
        received, error = await streaming
        assert received.startswith(b"0")
        assert error is not None
        assert error.kind in ("Runtime.ExitError", "Runtime.TruncatedResponse")
        assert await streamed(site, {"count": 2, "pause": 0.01}) == (b"01", None)
        assert site.function.stats().started == 2
