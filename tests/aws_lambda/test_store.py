"""The store example on the local Lambda, in all three modes, asked by OpenAI's own client."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from seawall.config import load_settings
from seawall.intents import IntentDefinition
from seawall.intents.cascade import build_detector
from tests.aws_lambda.running import Site, running
from tests.hosts.conftest import API_KEY, identity
from tests.issuer import Issuer
from tests.servers import ROOT, ServerProcess, running_model

if TYPE_CHECKING:  # slow to import
    import openai

STORE = "examples/store/seawall.toml"
QUESTION = "Where is my order #W1005754?"
MODES: dict[str, dict[str, Any]] = {
    "classic": {},
    "snapstart": {"snapstart": True},
    "in-flight": {"max_concurrency": 16, "provisioned": 2},
}


KINDS = {
    "classic": "on-demand",
    "snapstart": "snap-start",
    "in-flight": "lambda-managed-instances",
}


@pytest.fixture(scope="module")
def model() -> Iterator[ServerProcess]:
    script = str(ROOT / "examples/store/conversation.json")
    with running_model("--first-token", "0.02", "--duration", "0.4", "--script", script) as made:
        yield made


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    issuer = Issuer()
    issuer.add("one")
    return issuer


@pytest.fixture(scope="module", autouse=True)
def _trained(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The classifier, as it is trained when a function is built: beside every test's folder."""
    build_detector(
        [
            IntentDefinition(name, each.description, each.examples, each.patterns)
            for name, each in load_settings(ROOT / STORE).intents.items()
        ],
        cache=tmp_path_factory.getbasetemp() / "classifier.npz",
    )


@asynccontextmanager
async def store(
    folder: Path,
    model: ServerProcess,
    issuer: Issuer,
    *,
    variables: dict[str, str] | None = None,
    **mode: Any,
) -> AsyncIterator[Site]:
    settings = {
        "MODELS__DEFAULT__BASE_URL": model.url,
        "SESSIONS__PATH": str(folder / "sessions.db"),
        "TOOLS__STORE__DATABASE": str(folder / "store.db"),
        "IDENTITY__ANONYMOUS": "false",
        "ROUTING__CLASSIFIER_CACHE": str(folder.parent / "classifier.npz"),
        **identity(folder, issuer),
    }
    environment = {f"SEAWALL_{name}": value for name, value in settings.items()}
    async with running(STORE, environment=environment | (variables or {}), **mode) as site:
        yield site


def client_of(site: Site, key: str) -> "openai.AsyncOpenAI":
    import openai  # noqa: PLC0415 - slow to import

    url = f"{site.client.base_url}".rstrip("/") + "/v1"
    return openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0)


@pytest.mark.parametrize("mode", MODES)
async def test_it_answers_streams_keeps_its_session_and_drains(
    mode: str, tmp_path: Path, model: ServerProcess, issuer: Issuer
) -> None:
    import openai  # noqa: PLC0415 - slow to import

    async with (
        store(tmp_path, model, issuer, shutdown_seconds=5, **MODES[mode]) as site,
        client_of(site, issuer.token("ada")) as client,
    ):
        first = await client.chat.completions.with_raw_response.create(
            model="auto", messages=[{"role": "user", "content": "I need help, please"}]
        )
        session = first.headers["seawall-session"]
        kinds = {each.kind for each in site.function.stats().usage}
        assert kinds == {KINDS[mode]}
        assert site.function.stats().restored == (1 if mode == "snapstart" else 0)
        assert first.parse().choices[0].message.content
        stream = await client.chat.completions.create(
            model="auto",
            messages=[{"role": "user", "content": "and a second question"}],
            metadata={"session": session},
            stream=True,
        )
        pieces = 0
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                pieces += 1
            if pieces == 1:  # the model goes on writing for 0.4 s
                assert any(each.assigned for each in site.function.environments)
        assert pieces >= 2  # however many the machine had the time for
        shown = await client.get(f"/sessions/{session}", cast_to=dict[str, object])
        assert shown["version"] == 2
        async with client_of(site, "wrong") as other:
            with pytest.raises(openai.AuthenticationError):
                await other.models.list()
        # A turn in flight is finished, and durable, when the environment is to end.
        running_turn = asyncio.create_task(
            client.chat.completions.create(
                model="auto",
                messages=[{"role": "user", "content": "one more"}],
                metadata={"session": session},
            )
        )
        await asyncio.sleep(0.2)
        environment = next(each for each in site.function.environments if each.assigned)
        await environment.stop()
        assert (await running_turn).choices[0].message.content
        again = await client.get(f"/sessions/{session}", cast_to=dict[str, object])
        assert again["version"] == 3
        assert site.logged() == []


@pytest.mark.parametrize(("mode", "connections"), [("classic", 1), ("in-flight", 2 * 2)])
async def test_no_more_connections_to_the_model_than_invocations_at_once(
    mode: str, connections: int, tmp_path: Path, model: ServerProcess, issuer: Issuer
) -> None:
    """`warm_connections` is 2: a thousand environments would open 2,000 and use half of them."""
    before = accepted_connections(model)
    async with store(tmp_path, model, issuer, **MODES[mode]) as site:
        bearer = {"authorization": f"Bearer {issuer.token('ada')}"}
        result = await site.client.post("/v1/turns", json={"text": "hello"}, headers=bearer)
        assert result.status_code == 200
    assert accepted_connections(model) - before - 1 == connections


def accepted_connections(model: ServerProcess) -> int:
    """Connections that the model's server has accepted, the one that asks included."""
    result = httpx2.get(f"{model.url.removesuffix('/v1')}/sim/stats")
    return int(result.json()["accepted"])


async def test_a_background_turn_is_completed_before_the_environment_is_frozen(
    tmp_path: Path, model: ServerProcess, issuer: Issuer
) -> None:
    async with store(tmp_path, model, issuer) as site:
        bearer = {"authorization": f"Bearer {issuer.token('ada')}"}
        accepted = await site.client.post(
            "/v1/turns", json={"text": "Take your time", "background": True}, headers=bearer
        )
        assert accepted.status_code == 202
        result = await site.client.get(accepted.json()["events"], headers=bearer)
        assert "turn.completed" in result.text
        assert site.function.stats().started == 1


async def test_a_turn_that_exceeds_the_functions_timeout(tmp_path: Path, issuer: Issuer) -> None:
    with running_model("--first-token", "30", "--duration", "31") as slow:
        async with store(tmp_path, slow, issuer, timeout_seconds=2) as site:
            bearer = {"authorization": f"Bearer {issuer.token('ada')}"}
            late = await site.client.post("/v1/turns", json={"text": "hello"}, headers=bearer)
            assert (late.status_code, late.json()["code"]) == (504, "deadline-exceeded")
            assert (await site.client.get("/livez")).status_code == 200
            assert site.function.stats().started == 1


async def test_many_turns_at_once_in_one_environment(
    tmp_path: Path, model: ServerProcess, issuer: Issuer
) -> None:
    async with (
        store(tmp_path, model, issuer, max_concurrency=16, concurrency=1) as site,
        client_of(site, API_KEY) as client,
    ):
        answers = await asyncio.gather(
            *(
                client.chat.completions.with_raw_response.create(
                    model="auto", messages=[{"role": "user", "content": f"question {number}"}]
                )
                for number in range(16)
            )
        )
        assert len({each.headers["seawall-session"] for each in answers}) == 16
        assert site.function.stats().started == 1


async def test_a_direct_turn(tmp_path: Path, model: ServerProcess, issuer: Issuer) -> None:
    turn = {"text": QUESTION, "principal": {"tenant": "acme", "subject": "ada"}}
    admitted = {"SEAWALL_LAMBDA_DIRECT": "true"}
    async with store(tmp_path, model, issuer, variables=admitted) as site:
        result = await site.invoke(turn)
        assert result["text"]
        next_result = await site.invoke(
            turn | {"session": result["session"], "idempotency_key": "k"}
        )
        assert next_result["version"] == 2
        replayed = await site.invoke(turn | {"session": result["session"], "idempotency_key": "k"})
        assert (replayed["turn"], replayed["replayed"]) == (next_result["turn"], True)
        for wrong, kind in [
            (turn | {"session": "ses_nobody"}, "session-not-found"),
            (turn | {"principal": {"tenant": "", "subject": "x"}}, "invalid-field"),
            ({"text": "hello"}, "invalid-field"),
            (turn | {"text": " "}, "invalid-field"),
        ]:
            assert (await site.failure(wrong))["errorType"] == kind
    async with store(tmp_path, model, issuer) as site:
        assert (await site.failure(turn))["errorType"] == "Seawall.UnknownEvent"


def record(number: int, body: object, **more: Any) -> dict[str, Any]:
    return {
        "messageId": f"m-{number}",
        "receiptHandle": "r",
        "body": body if isinstance(body, str) else json.dumps(body),
        "attributes": more,
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:eu-west-1:000000000000:turns" + (".fifo" if more else ""),
    }


async def test_a_batch_of_turns_from_sqs(
    tmp_path: Path, model: ServerProcess, issuer: Issuer
) -> None:
    principal = {"tenant": "acme", "subject": "ada"}
    good = {"text": QUESTION, "principal": principal}
    async with store(tmp_path, model, issuer, variables={"SEAWALL_LAMBDA_QUEUE": "1"}) as site:
        batch = {
            "Records": [
                record(1, good),
                record(2, "not JSON"),
                record(3, good | {"session": "ses_nobody"}),
                record(4, good),
            ]
        }
        result = await site.invoke(batch)
        failed = {each["itemIdentifier"] for each in result["batchItemFailures"]}
        assert failed == {"m-2", "m-3"}
        await site.invoke({"Records": [record(1, good)]})  # SQS delivers at least once
        listed = await site.client.get(
            "/v1/sessions", headers={"authorization": f"Bearer {issuer.token('ada')}"}
        )
        assert len(listed.json()["sessions"]) == 2
        fifo = {
            "Records": [
                record(5, good, MessageGroupId="a"),
                record(6, good | {"agent": "unknown"}, MessageGroupId="a"),
                record(7, good, MessageGroupId="a"),
                record(8, good, MessageGroupId="b"),
            ]
        }
        result = await site.invoke(fifo)
        failed = {each["itemIdentifier"] for each in result["batchItemFailures"]}
        assert failed == {"m-6", "m-7"}


async def test_the_claims_of_an_authorizer_identify_the_caller(
    tmp_path: Path, model: ServerProcess, issuer: Issuer
) -> None:
    def event(**claims: str) -> dict[str, Any]:
        return {
            "version": "2.0",
            "rawPath": "/prod/v1/turns",
            "headers": {"content-type": "application/json"},
            "requestContext": {
                "domainName": "a.execute-api.eu-west-1.amazonaws.com",
                "stage": "prod",
                "http": {"method": "POST", "sourceIp": "192.0.2.1"},
                "authorizer": {"jwt": {"claims": claims}},
            },
            "body": json.dumps({"text": QUESTION}),
            "isBase64Encoded": False,
        }

    trusted = {"SEAWALL_LAMBDA_AUTHORIZER": "true", "SEAWALL_LAMBDA_TENANT_CLAIM": "shop"}
    async with store(tmp_path, model, issuer, variables=trusted) as site:
        answer = await site.invoke(event(shop="acme", sub="ada"))
        assert (answer["statusCode"], json.loads(answer["body"])["version"]) == (200, 1)
        listed = await site.client.get(
            "/v1/sessions", headers={"authorization": f"Bearer {issuer.token('ada')}"}
        )
        assert len(listed.json()["sessions"]) == 1
        assert (await site.invoke(event(sub="ada")))["statusCode"] == 401
    async with store(tmp_path, model, issuer) as site:
        assert (await site.invoke(event(shop="acme", sub="ada")))["statusCode"] == 401


async def test_a_stream_says_that_the_turn_waits_for_the_models_quota(
    tmp_path: Path, model: ServerProcess, issuer: Issuer
) -> None:
    quota = {
        "SEAWALL_MODELS__DEFAULT__QUOTA": "account",
        "SEAWALL_QUOTAS__ACCOUNT__REQUESTS_PER_MINUTE": "8",
        "SEAWALL_QUOTAS__ACCOUNT__WINDOW_SECONDS": "0.1",  # one at a time, every 7.5 s
    }
    at_once = {"max_concurrency": 16, "provisioned": 1}  # both in one environment
    async with store(tmp_path, model, issuer, variables=quota, **at_once) as site:
        headers = {"authorization": f"Bearer {issuer.token('ada')}"}
        asked = {"text": "Hello there", "agent": "concierge", "stream": True}
        answers = await asyncio.gather(
            *(site.client.post("/v1/turns", json=asked, headers=headers) for _ in range(2))
        )
        streams = [
            [line[7:] for line in answer.text.splitlines() if line.startswith("event: ")]
            for answer in answers
        ]
        assert [kinds[-1] for kinds in streams] == ["turn.completed"] * 2
        (waited,) = [kinds for kinds in streams if "turn.queued" in kinds]
        at = [waited.index(kind) for kind in ("turn.started", "turn.queued", "text.delta")]
        assert at == sorted(at)
