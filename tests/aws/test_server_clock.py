"""Signatures refused because of their time: signed again once, for DynamoDB and Bedrock."""

import asyncio
from email.utils import formatdate

import msgspec
import pytest

from seawall.aws import ServerClock
from seawall.aws.dynamodb import DynamoDBClient
from seawall.aws.dynamodb_calls import AccessDenied
from seawall.errors import UpstreamRefused
from seawall.models import Finish, ModelRequest, Prompt, Text
from seawall.models.bedrock import BedrockModel, BedrockSettings
from seawall.transport.http_client import HttpClient
from seawall.turn import UserMessage
from tests.aws.test_dynamodb_faults import FOUND, ITEM, against, failing, get, soon
from tests.faulty_server import Answer, FaultyServer, Request, serving
from tests.models.wire import BedrockWire, Given

NOW = 1_800_000_000.0
EXPIRED = "Signature expired: 20270115T075500Z is now earlier than 20270115T075501Z (… - 5 min.)"
WRONG = "The request signature we calculated does not match the signature you provided."


class Clock:
    """Our clock; jumps after the process was frozen."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def dynamodb_says(message: str, date: float | None, code: str = "") -> Answer:
    code = code or "InvalidSignatureException"
    body = msgspec.json.encode({"__type": f"com.amazon.coral.service#{code}", "message": message})
    return Answer(400, body, {} if date is None else {"date": formatdate(date, usegmt=True)})


def bedrock_says(message: str, date: float | None) -> Answer:
    headers = {"x-amzn-errortype": "InvalidSignatureException:http://internal.amazon.com/"}
    if date is not None:
        headers["date"] = formatdate(date, usegmt=True)
    return Answer(403, msgspec.json.encode({"message": message}), headers)


@pytest.mark.parametrize("date", [NOW, None])
@pytest.mark.parametrize("message", [EXPIRED, EXPIRED.replace("expired", "not yet current")])
async def test_dynamodb_signs_again_where_the_clocks_agree(
    message: str, date: float | None
) -> None:
    """aws-sdk-js-v3#7605: the process was frozen between signing and sending."""
    signatures: list[str] = []

    def handler(request: Request) -> Answer:
        signatures.append(request.headers["authorization"])
        return dynamodb_says(message, date) if len(signatures) == 1 else FOUND

    clock = Clock()

    async def scene(client: DynamoDBClient, server: FaultyServer) -> None:
        clock.now += 1.0
        assert (await get(client)).item == ITEM
        assert client.skew == 0.0
        assert len(server.requests) == 2

    await against(handler, scene, clock=clock)


async def test_dynamodb_signs_again_once_only() -> None:
    async def scene(client: DynamoDBClient, server: FaultyServer) -> None:
        await failing(get(client), AccessDenied)
        assert len(server.requests) == 2

    await against(lambda _: dynamodb_says(EXPIRED, NOW), scene, clock=Clock())


@pytest.mark.parametrize("code", ["", "AccessDeniedException"])
async def test_dynamodb_does_not_sign_again_for_other_errors(code: str) -> None:
    async def scene(client: DynamoDBClient, server: FaultyServer) -> None:
        await failing(get(client), AccessDenied)
        assert len(server.requests) == 1

    await against(lambda _: dynamodb_says(WRONG, NOW, code), scene, clock=Clock())


async def test_a_frozen_process_does_not_trust_an_old_date() -> None:
    """The response took an hour of our clock: its date is old."""
    clock = Clock()
    seen: list[str] = []

    def handler(request: Request) -> Answer:
        seen.append(request.headers["x-amz-date"])
        if len(seen) == 1:
            clock.now += 3_600.0
            return dynamodb_says(EXPIRED, NOW)
        return FOUND

    async def scene(client: DynamoDBClient, server: FaultyServer) -> None:
        assert (await get(client)).item == ITEM
        assert client.skew == 0.0
        assert seen == ["20270115T080000Z", "20270115T090000Z"]
        del server

    await against(handler, scene, clock=clock)


ASKED = ModelRequest(Prompt("Help."), (UserMessage("Hello."),))


async def ask_bedrock(answers: list[Answer], clock: Clock) -> tuple[str, list[Request]]:
    async with asyncio.timeout(20), serving(lambda _: answers.pop(0)) as server:
        client = HttpClient()
        settings = BedrockSettings(model="m", region="eu-west-1", base_url=server.url)
        model = BedrockModel("test", settings, client, Given(), clock)
        text, finished = "", False
        try:
            async for event in model.stream(ASKED, deadline=soon()):
                text += event.text if isinstance(event, Text) else ""
                finished = finished or isinstance(event, Finish)
        finally:
            await client.close()
        assert finished
        return text, server.requests


def answered() -> Answer:
    return Answer(200, b"".join(BedrockWire().answer(["Hello", "!"])))


@pytest.mark.parametrize(
    ("date", "signed"), [(NOW, "20270115T080000Z"), (NOW + 3_600, "20270115T090000Z")]
)
async def test_bedrock_signs_again(date: float, signed: str) -> None:
    """By our clock where it agrees with the server's, else by the server's."""
    text, requests = await ask_bedrock([bedrock_says(EXPIRED, date), answered()], Clock())
    assert text == "Hello!"
    assert [each.headers["x-amz-date"] for each in requests] == ["20270115T080000Z", signed]
    assert requests[0].body == requests[1].body


@pytest.mark.parametrize("message", [EXPIRED, WRONG])
async def test_bedrock_signs_again_once_only(message: str) -> None:
    answers = [bedrock_says(message, NOW) for _ in range(3)]
    with pytest.raises(UpstreamRefused):
        await ask_bedrock(answers, Clock())
    assert len(answers) == (1 if message == EXPIRED else 2)


def test_clock_correction() -> None:
    clock = Clock()
    server = ServerClock(clock)
    ahead = formatdate(NOW + 7_200, usegmt=True)
    assert not server.should_sign_again("ValidationException", EXPIRED, ahead, signed_at=NOW)
    assert server.should_sign_again("SignatureDoesNotMatch", WRONG, ahead, signed_at=NOW)
    assert server.now() == NOW + 7_200
    assert not server.should_sign_again(
        "SignatureDoesNotMatch", WRONG, ahead, signed_at=server.now()
    )
    assert server.should_sign_again("RequestTimeTooSkewed", "", "nonsense", signed_at=server.now())
    back = formatdate(NOW, usegmt=True)  # our clock was set right
    assert server.should_sign_again(
        "InvalidSignatureException", EXPIRED, back, signed_at=server.now()
    )
    assert server.skew == 0.0
