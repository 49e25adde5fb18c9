"""The clients of the harness: conversations whose turns are retried, observed or abandoned.

A turn with a key is sent again under the same key, at either server, until it is answered. A
background turn is accepted and then followed, on whichever server has its events. A turn without a
key is sent once. Where a client does not learn what became of a turn, its user asks in the next
one, and wants done what was not.
"""

import asyncio
import json
import random
import time
from collections.abc import Callable
from typing import Any

import httpx2
from bench.effects.check import Attempt, Turn
from bench.effects.wishes import TOOLS, Operation, Wish, render
from msgspec import Struct

__all__ = ["Clients", "read_back"]

_REQUEST_SECONDS = 3.0  # less than a process that stops itself is stopped
_TURN_SECONDS = 120.0
_PAUSE_SECONDS = (0.05, 0.3)  # before a turn is sent again
_THINK_SECONDS = (0.5, 3.0)  # before the next turn
_ASKS_AFTER_SECONDS = (0.3, 1.5)  # before the user asks what became of a turn
_RETRIED = {
    "overloaded",
    "server-stopping",
    "session-busy",
    "session-conflict",
    "store-unavailable",
    "commit-unknown",
    "turn-postponed",
    "turn-not-found",
    "deadline-exceeded",
    "upstream-unavailable",
    "upstream-throttled",
    "connection",
    "not-ready",
}


class _Answer(Struct):
    """The end of one request: acknowledged, or the code of a problem."""

    code: str
    turn: str = ""
    session: str = ""
    text: str = ""


class Clients:
    """All clients of a run.

    Args:
        urls: Of the servers.
        turns: How many turns with refunds are sent.
        chance: Decides what users want.
        modes: Weights of the modes of a turn.
    """

    def __init__(
        self,
        urls: list[str],
        *,
        turns: int,
        chance: random.Random,
        modes: dict[str, float],
        on_turn: Callable[[Turn], None] = lambda _: None,
    ) -> None:
        self.turns: list[Turn] = []
        self._urls = urls
        self._left = turns
        self._chance = chance
        self._modes = modes
        self._on_turn = on_turn
        self._numbers = iter(range(1, 1 << 40))
        self._http = httpx2.AsyncClient(
            timeout=_REQUEST_SECONDS, limits=httpx2.Limits(max_keepalive_connections=0)
        )

    async def run(self, count: int) -> None:
        """Run `count` clients at once until all turns are sent and answered."""
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._converse_on())

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def _converse_on(self) -> None:
        while self._left > 0:
            await self._converse()

    async def _converse(self) -> None:
        """One session: perhaps a greeting, then a few turns."""
        chance = self._chance
        session = ""
        if chance.random() < 0.8:
            session = await self.greet()
        for _ in range(chance.randint(2, 5)):
            if self._left <= 0:
                return
            self._left -= 1
            await asyncio.sleep(chance.uniform(*_THINK_SECONDS))
            turn = self._new_turn(session)
            session = await self.send(turn) or session
            self._on_turn(turn)
            if turn.turn or turn.wish is None:
                continue
            if not session:
                return  # it was never opened, as far as the client knows
            await asyncio.sleep(chance.uniform(*_ASKS_AFTER_SECONDS))
            await self.ask_again(turn.wish, session)

    async def ask_again(self, wish: Wish, session: str) -> None:
        """A turn that asks what became of the operations, and wants done what was not."""
        wish = Wish(operations=wish.operations, asks=True)
        turn = Turn(
            wish=wish,
            text=render(wish),
            mode="keyed",
            within=session,
            session=session,
            key=self._key(),
        )
        await self.send(turn)

    def _new_turn(self, session: str) -> Turn:
        chance = self._chance
        names = list(self._modes)
        (mode,) = chance.choices(names, [self._modes[each] for each in names])
        if not session and mode in ("unkeyed", "leaves", "fails"):
            mode = "keyed"  # its client would not know the session to ask again in
        operations = tuple(
            Operation(
                op=f"op-{(number := next(self._numbers))}",
                order=f"O-{number}",
                amount=float(chance.choice([7, 12.5, 100, 19.99])),
                tool=chance.choice(TOOLS),
            )
            for _ in range(chance.choice([1, 1, 2]))
        )
        fails = mode == "fails"
        if fails:
            mode = chance.choice(["keyed", "background"])
        wish = Wish(operations=operations, fails=fails)
        return Turn(
            wish=wish,
            text=render(wish),
            mode=mode,
            within=session,
            session=session,
            key=self._key() if mode in ("keyed", "background") else None,
        )

    def _key(self) -> str:
        return f"key-{next(self._numbers)}"

    async def send(self, turn: Turn) -> str:
        """Send a turn as often as its mode allows; its session, empty if that is not known."""
        self.turns.append(turn)
        latest = time.time() + _TURN_SECONDS
        while True:
            code = await self.attempt(turn, self._chance.choice(self._urls))
            if code == "acknowledged":
                return turn.session
            if turn.key is None or code not in _RETRIED:
                turn.problem = code
                return turn.session
            if time.time() > latest:
                turn.problem = "gave-up"
                return turn.session
            await asyncio.sleep(self._chance.uniform(*_PAUSE_SECONDS))

    async def attempt(self, turn: Turn, url: str) -> str:
        """Send a turn once; "acknowledged", or the code of what went wrong."""
        began = time.time()
        answer = await self._ask(url, turn)
        turn.attempts.append(Attempt(self._urls.index(url), began, time.time(), answer.code))
        turn.session = answer.session or turn.session
        if answer.code == "acknowledged":
            turn.turn, turn.answer = answer.turn, answer.text
        return answer.code

    async def greet(self) -> str:
        """Open a session."""
        text = f"Hello {next(self._numbers)}."
        return await self.send(Turn(wish=None, text=text, mode="keyed", key=self._key()))

    async def _ask(self, url: str, turn: Turn) -> _Answer:
        try:
            if turn.mode == "background":
                return await self._in_background(url, turn)
            if turn.mode == "keyed":
                return await self._whole(url, turn)
            return await self._streamed(url, turn)
        except httpx2.HTTPError:
            return _Answer("connection")

    async def _whole(self, url: str, turn: Turn) -> _Answer:
        response = await self._http.post(
            f"{url}/v1/turns", json=_body(turn), headers=_headers(turn)
        )
        if response.status_code != 200:
            return _Answer(_code(response))
        document = response.json()
        return _Answer("acknowledged", document["turn"], document["session"], document["text"])

    async def _in_background(self, url: str, turn: Turn) -> _Answer:
        body = _body(turn) | {"background": True, "stream": False}
        response = await self._http.post(f"{url}/v1/turns", json=body, headers=_headers(turn))
        if response.status_code != 202:
            return _Answer(_code(response))
        accepted = response.json()
        answer = _Answer("connection")
        position = 0
        text: list[str] = []
        latest = time.time() + _TURN_SECONDS
        while time.time() < latest:
            server = self._chance.choice(self._urls)
            try:
                async with self._http.stream(
                    "GET",
                    f"{server}{accepted['events']}",
                    headers={"last-event-id": str(position)},
                ) as events:
                    if events.status_code != 200:
                        await events.aread()
                        answer = _Answer(_code(events))
                    else:
                        position, answer = await _read(events, position, text)
            except httpx2.HTTPError:
                answer = _Answer("connection")
            if answer.code == "turn-not-found" or answer.code not in _RETRIED:
                break
            await asyncio.sleep(self._chance.uniform(*_PAUSE_SECONDS))
        answer.turn, answer.session = accepted["turn"], accepted["session"]
        if (
            answer.code == "acknowledged"
        ):  # the text of an attempt that was killed is not the answer
            whole = await self._read_again(accepted["events"])
            answer.text = whole if whole is not None else "".join(text)
        return answer

    async def _read_again(self, events: str) -> str | None:
        """The text of a turn that is done, from its first event on."""
        for _ in range(100):
            try:
                async with self._http.stream(
                    "GET", f"{self._chance.choice(self._urls)}{events}"
                ) as response:
                    text: list[str] = []
                    if response.status_code == 200:
                        _, answer = await _read(response, 0, text)
                        if answer.code == "acknowledged":
                            return "".join(text)
                    else:
                        await response.aread()
            except httpx2.HTTPError:
                pass
            await asyncio.sleep(0.3)
        return None

    async def _streamed(self, url: str, turn: Turn) -> _Answer:
        body = _body(turn) | {"stream": True}
        leaves = self._chance.choice(["tool.called", "tool.returned"])
        text: list[str] = []
        async with self._http.stream(
            "POST", f"{url}/v1/turns", json=body, headers=_headers(turn)
        ) as events:
            if events.status_code != 200:
                await events.aread()
                return _Answer(_code(events))
            until = leaves if turn.mode == "leaves" else ""
            _, answer = await _read(events, 0, text, until=until)
        answer.text = "".join(text)
        return answer


async def _read(
    events: httpx2.Response, position: int, text: list[str], *, until: str = ""
) -> tuple[int, _Answer]:
    """Read events to the end, or to the first one named `until`; the last position."""
    name, number = "", position
    answer = _Answer("connection")
    async for line in events.aiter_lines():
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("id: "):
            number = int(line[4:])
        elif line.startswith("data: "):
            data = json.loads(line[6:])
            position = number
            if name == "turn.started":
                answer.session = data["session"]
            elif name == "text.delta":
                text.append(data["text"])
            elif name == "turn.completed":
                answer.code, answer.turn = "acknowledged", data["turn"]
                answer.session = data["session"]
            elif name == "turn.failed":
                answer.code = data["problem"]["code"]
            if name == until:
                answer.code = "left"
                break
    return position, answer


def _body(turn: Turn) -> dict[str, object]:
    body: dict[str, object] = {"text": turn.text}
    if turn.within:
        body["session"] = turn.within
    return body


def _headers(turn: Turn) -> dict[str, str]:
    return {} if turn.key is None else {"idempotency-key": turn.key}


def _code(response: httpx2.Response) -> str:
    try:
        return str(response.json()["code"])
    except (ValueError, KeyError, TypeError):
        return f"status-{response.status_code}"


async def read_back(
    url: str, turns: list[Turn]
) -> tuple[dict[str, list[dict[str, Any]]], list[dict[str, Any]] | None]:
    """All sessions by the public API, oldest turn first; and the effects, where they are listed.

    An effect leads to its session, which a client that has only seen a problem does not know.
    """
    sessions: dict[str, list[dict[str, Any]]] = {}
    async with httpx2.AsyncClient(base_url=url, timeout=30) as client:
        effects = await _effects(client)
        names = [each.session for each in turns if each.session]
        names += [each["session"] for each in effects or ()]
        for session in dict.fromkeys(names):
            found: list[dict[str, Any]] = []
            cursor: str | None = None
            while True:
                query = {"limit": "200"} | ({"cursor": cursor} if cursor else {})
                response = await client.get(f"/v1/sessions/{session}", params=query)
                if response.status_code == 404:
                    break
                page = response.raise_for_status().json()
                found += page["turns"]
                cursor = page["cursor"]
                if cursor is None:
                    break
            sessions[session] = found[::-1]
        return sessions, effects


async def _effects(client: httpx2.AsyncClient) -> list[dict[str, Any]] | None:
    listed: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        response = await client.get("/v1/effects", params={"cursor": cursor} if cursor else {})
        if response.status_code == 404:
            return None
        page = response.raise_for_status().json()
        listed += page["effects"]
        cursor = page.get("cursor")
        if cursor is None:
            return listed
