"""Whether completed turns are durable: their sessions are read again, as their owners may."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from seawall.lab.surge.outcome import Durability, Outcome
from seawall.lab.surge.scenario import Open, Scenario, digest_of
from seawall.transport.endpoint import Endpoint
from seawall.transport.errors import TransportError
from seawall.transport.http_client import HttpClient

__all__ = ["read_back"]

_READERS = 32
_SECONDS = 30.0
_SHOWN = 10


async def read_back(
    scenario: Scenario, outcomes: Sequence[Outcome], sign: Callable[[str], str] | None = None
) -> Durability:
    """Look up the completed turns by `GET /v1/sessions/{id}`, so many as the scenario says.

    Each must stand in its session, with the question that was asked and the answer that was
    streamed.
    """
    completed = [each for each in outcomes if not each.error]
    step = max(1, len(completed) // scenario.read_back)
    line = iter(completed[::step][: scenario.read_back])
    missing: list[str] = []
    found = looked_up = 0
    client = HttpClient()

    async def reader(line: Iterator[Outcome]) -> None:
        nonlocal found, looked_up
        for outcome in line:
            reason = await _look_up(client, scenario, outcome, _token(scenario, outcome, sign))
            looked_up += 1
            if not reason:
                found += 1
            elif len(missing) < _SHOWN:
                missing.append(f"{outcome.turn}: {reason}")

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(_READERS):
                group.create_task(reader(line))
    finally:
        await client.close()
    return Durability(looked_up, found, missing)


def _token(scenario: Scenario, outcome: Outcome, sign: Callable[[str], str] | None) -> str:
    load = scenario.load
    if isinstance(load, Open):
        subject, number = f"customer-{outcome.number}", outcome.number
        tokens = next((each.tokens for each in load.crowds if each.name == outcome.crowd), [])
    else:
        subject, tokens = outcome.crowd, load.tokens
        number = int(outcome.crowd.rpartition("-")[2])
    if sign is not None:
        return sign(subject)
    return tokens[number % len(tokens)] if tokens else ""


async def _look_up(client: HttpClient, scenario: Scenario, outcome: Outcome, token: str) -> str:
    """Why the turn is not as it should be; empty if it is."""
    endpoint = Endpoint.parse(f"{scenario.url}/v1/sessions/{outcome.session}?limit=200")
    headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
    deadline = asyncio.get_running_loop().time() + _SECONDS
    try:
        answer = await client.request("GET", endpoint, headers=headers, deadline=deadline)
    except TransportError as error:
        return f"its session cannot be read: {error}"
    if answer.status != 200:
        return f"its session cannot be read: status {answer.status}"
    turns: list[dict[str, Any]] = msgspec.json.decode(answer.body)["turns"]
    turn = next((each for each in turns if each["id"] == outcome.turn), None)
    if turn is None:
        return "it is not in its session"
    if turn["messages"][0]["text"] != scenario.question(outcome.number):
        return "another question stands there"
    said = "".join(each.get("text", "") for each in turn["messages"] if each["role"] == "assistant")
    return "" if digest_of(said) == outcome.digest else "another answer stands there"
