"""Reads completed turns back from their sessions, to check that they are durable."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import quote

import msgspec
from msgspec import Struct

from seawall.lab.surge.outcome import Durability, Outcome
from seawall.lab.surge.scenario import Open, Scenario, digest_of
from seawall.transport.connection import (
    ConnectFailed,
    ConnectionBroken,
    TransportError,
    TransportTimeout,
)
from seawall.transport.http_client import BufferedResponse, Endpoint, HttpClient

__all__ = ["read_back"]

_READERS = 32
_REQUEST_SECONDS = 10.0
_TURN_SECONDS = 30.0
_ALL_SECONDS = 180.0
_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 4.0
_PAGE_BYTES = 1 << 24
_SHOWN = 10
# Overload, and a balancer without a server behind it.
_RETRYABLE_STATUSES = (429, 502, 503, 504)


class _Message(Struct):
    role: str
    text: str = ""


class _Turn(Struct):
    id: str
    messages: list[_Message]


class _Page(Struct):
    """A page of `GET /v1/sessions/{id}` (docs/http-api.md); only the fields that are used."""

    turns: list[_Turn]
    cursor: str | None = None


_decode_page = msgspec.json.Decoder(_Page).decode


class _UnreadError(Exception):
    """A session could not be read; the message is the reason."""


async def read_back(
    scenario: Scenario, outcomes: Sequence[Outcome], sign: Callable[[str], str] | None = None
) -> Durability:
    """Read completed turns back by `GET /v1/sessions/{id}`.

    Turns are sampled evenly over the run. Each must be in its session, with its question and the
    streamed answer. Refused and failed requests are retried for 30 s; after 180 s the remaining
    turns count as unread.

    Args:
        scenario: The scenario that was run; `read_back` is the number of turns.
        outcomes: Its outcomes.
        sign: Signs a token for a subject, in place of the scenario's tokens.
    """
    completed = [each for each in outcomes if not each.error]
    wanted = min(scenario.read_back, len(completed))
    line = iter([completed[each * len(completed) // wanted] for each in range(wanted)])
    missing: list[str] = []
    why_unread: list[str] = []
    found = looked_up = 0
    client = HttpClient()
    over = asyncio.get_running_loop().time() + _ALL_SECONDS

    async def reader(line: Iterator[Outcome]) -> None:
        nonlocal found, looked_up
        for outcome in line:
            session = _Session(client, scenario, outcome, _token(scenario, outcome, sign), over)
            try:
                reason = await session.mismatch()
            except _UnreadError as error:
                if len(why_unread) < _SHOWN:
                    why_unread.append(f"{outcome.turn}: {error}")
                continue
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
    return Durability(looked_up, found, missing, wanted - looked_up, why_unread)


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


class _Session:
    """Reads the session of one turn. over: the deadline of the whole read-back."""

    def __init__(
        self, client: HttpClient, scenario: Scenario, outcome: Outcome, token: str, over: float
    ) -> None:
        self._client = client
        self._scenario = scenario
        self._outcome = outcome
        self._headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
        self._over = min(over, asyncio.get_running_loop().time() + _TURN_SECONDS)

    async def mismatch(self) -> str:
        """How the stored turn differs from the streamed one; empty if it does not.

        Raises:
            _UnreadError: The session could not be read.
        """
        cursor: str | None = ""
        while cursor is not None:
            page = await self._page(cursor)
            if page is None:
                return "its session does not exist"
            turn = next((each for each in page.turns if each.id == self._outcome.turn), None)
            if turn is not None:
                return self._difference(turn)
            cursor = page.cursor
        return "it is not in its session"

    def _difference(self, turn: _Turn) -> str:
        if not turn.messages or turn.messages[0].text != self._scenario.question(
            self._outcome.number
        ):
            return "its session has another question"
        text = "".join(each.text for each in turn.messages if each.role == "assistant")
        return "" if digest_of(text) == self._outcome.digest else "its session has another answer"

    async def _page(self, cursor: str) -> _Page | None:
        """A page of the session; None if the session does not exist."""
        position = f"&cursor={quote(cursor, safe='')}" if cursor else ""
        session = quote(self._outcome.session, safe="")
        answer = await self._get(f"{self._scenario.url}/v1/sessions/{session}?limit=200{position}")
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise _UnreadError(f"its session cannot be read: status {answer.status}")
        try:
            return _decode_page(answer.body)
        except (ValueError, RecursionError) as error:
            raise _UnreadError(f"its session cannot be read: unexpected body: {error}") from None

    async def _get(self, url: str) -> BufferedResponse:
        """The response, after retries of transient failures."""
        loop = asyncio.get_running_loop()
        endpoint = Endpoint.parse(url)
        pause, why = _FIRST_PAUSE, "no time left"
        while loop.time() < self._over:
            try:
                answer = await self._client.request(
                    "GET",
                    endpoint,
                    headers=self._headers,
                    deadline=min(self._over, loop.time() + _REQUEST_SECONDS),
                    limit=_PAGE_BYTES,
                )
            except TransportError as error:
                why = str(error)
                if not isinstance(error, ConnectFailed | ConnectionBroken | TransportTimeout):
                    break
            else:
                if answer.status not in _RETRYABLE_STATUSES:
                    return answer
                why = f"status {answer.status}"
            await asyncio.sleep(min(pause, max(0.0, self._over - loop.time())))
            pause = min(2 * pause, _LONGEST_PAUSE)
        raise _UnreadError(f"its session cannot be read: {why}")
