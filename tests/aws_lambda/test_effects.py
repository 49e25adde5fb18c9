"""Turns that pause and continue on Lambda, whose environments are frozen between invocations."""

import hashlib
import json
from pathlib import Path
from typing import Any

import httpx2

from tests.aws_lambda.running import Site, running
from tests.servers import running as running_server

APP = "tests.hosts.effects_app:app"
KEY = "sw_ann"


def _variables(folder: Path) -> dict[str, str]:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    return {
        "SEAWALL_SESSIONS__PATH": str(folder / "sessions.db"),
        "SEAWALL_IDENTITY__API_KEYS": f'[{{sha256 = "{digest}", tenant = "a", subject = "ann"}}]',
        "SEAWALL_LAMBDA_DIRECT": "true",
        "SEAWALL_LAMBDA_AUTHORIZER": "true",
        "SEAWALL_LAMBDA_QUEUE": "true",
    }


def _script(order: str) -> str:
    return json.dumps([[["refund", {"order": order, "amount": 50}]], "done"])


async def _decide(site: Site, paused: dict[str, Any], decision: str = "approve") -> dict[str, Any]:
    answer = await site.client.post(
        paused["approvals"][0]["decide"],
        json={"decision": decision},
        headers={"authorization": f"Bearer {KEY}"},
    )
    assert answer.status_code == 200, answer.text
    decided: dict[str, Any] = answer.json()
    return decided


async def _turn(site: Site, paused: dict[str, Any]) -> dict[str, Any]:
    answer = await site.client.get(
        f"/v1/sessions/{paused['session']}", headers={"authorization": f"Bearer {KEY}"}
    )
    turn: dict[str, Any] = answer.json()["turns"][0]
    return turn


async def test_a_decided_turn_is_done_within_the_invocation_of_the_decision(
    tmp_path: Path,
) -> None:
    async with running(APP, environment=_variables(tmp_path)) as site:
        answer = await site.client.post(
            "/v1/turns",
            json={"text": _script("o1")},
            headers={"authorization": f"Bearer {KEY}"},
        )
        paused = answer.json()
        assert (answer.status_code, paused["status"]) == (202, "paused")
        assert (await _turn(site, paused))["status"] == "paused"
        await _decide(site, paused)
        # The environment has one slot: it takes the next invocation when the turn is done.
        turn = await _turn(site, paused)
        assert (turn["status"], turn["effects"][0]["status"]) == ("completed", "done")
        assert site.function.stats().started == 1


async def test_a_turn_that_paused_in_a_pod_goes_on_on_lambda(tmp_path: Path) -> None:
    variables = _variables(tmp_path)
    pod = {"SEAWALL_SERVER__PORT": "0", "SEAWALL_SERVER__WORKERS": "1", **variables}
    with running_server("serve", APP, "--json", environment=pod) as server:
        answer = httpx2.post(
            f"{server.url}/v1/turns",
            json={"text": _script("o1")},
            headers={"authorization": f"Bearer {KEY}"},
            timeout=20,
        )
        paused = answer.json()
        assert (answer.status_code, paused["status"]) == (202, "paused")
    async with running(APP, environment=variables) as site:
        await _decide(site, paused)
        turn = await _turn(site, paused)
        assert (turn["status"], turn["effects"][0]["status"]) == ("completed", "done")


async def test_a_direct_turn_and_a_message_of_a_queue_pause(tmp_path: Path) -> None:
    async with running(APP, environment=_variables(tmp_path)) as site:
        principal = {"tenant": "a", "subject": "ann"}
        paused = await site.invoke({"text": _script("o2"), "principal": principal})
        assert paused["status"] == "paused"
        await _decide(site, paused)
        assert (await _turn(site, paused))["status"] == "completed"
        record = {
            "messageId": "m-1",
            "body": json.dumps({"text": _script("o3"), "principal": principal}),
            "eventSource": "aws:sqs",
        }
        assert await site.invoke({"Records": [record]}) == {"batchItemFailures": []}


async def test_roles_of_an_authorizer_decide(tmp_path: Path) -> None:
    async with running(APP, environment=_variables(tmp_path)) as site:
        script = json.dumps([[["grant", {"order": "o4"}]], "done"])
        principal = {"tenant": "a", "subject": "ann"}
        paused = await site.invoke({"text": script, "principal": principal})

        def event(roles: str) -> dict[str, Any]:
            return {
                "version": "2.0",
                "rawPath": f"/prod{paused['approvals'][0]['decide']}",
                "headers": {"content-type": "application/json"},
                "requestContext": {
                    "domainName": "a.execute-api.eu-west-1.amazonaws.com",
                    "stage": "prod",
                    "http": {"method": "POST", "sourceIp": "192.0.2.1"},
                    "authorizer": {
                        "jwt": {"claims": {"tenant": "a", "sub": "meg", "roles": roles}}
                    },
                },
                "body": json.dumps({"decision": "approve"}),
                "isBase64Encoded": False,
            }

        assert (await site.invoke(event("[clerk other]")))["statusCode"] == 404
        assert (await site.invoke(event("[clerk manager]")))["statusCode"] == 200
        assert (await _turn(site, paused))["status"] == "completed"
