"""A steady crowd: customers who ask, read the answer to its end, and ask again.

Closed loop: there are always so many turns in flight, less those who think. Each turn comes on a
connection of its own, and its answer must be the one that the simulated model gives to it.
"""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct

from seawall.lab.sim_reply import ReplyPlan, SimTimes, plan_reply
from seawall.lab.visit import Outcome, Visit
from seawall.transport.endpoint import Endpoint

__all__ = ["SteadyCrowd"]

_TOKEN_SECONDS = 1_200.0

Heard = Callable[[Outcome, ReplyPlan], None]


class SteadyCrowd(Struct, frozen=True, kw_only=True):
    """Whom to drive at a server, and how.

    url: of the server's root. customers: how many. token: signs for a subject.
    turns: of one session; then its customer opens another. think: seconds between answer and next
    question, at most. seconds: the longest that a turn may take. seed, times: of the simulated
    model.
    """

    url: str
    customers: int
    token: Callable[[str], str]
    turns: int = 1
    think: float = 0.0
    seconds: float = 60.0
    seed: int = 0
    times: SimTimes = SimTimes()

    async def ask(self, heard: Heard, until: asyncio.Event) -> None:
        """Have all of them ask until the event is set, and wait for the last answers.

        heard: told of every turn, with what was due.
        """
        async with asyncio.TaskGroup() as group:
            for number in range(self.customers):
                group.create_task(self._customer(number, heard, until))

    async def _customer(self, number: int, heard: Heard, until: asyncio.Event) -> None:
        subject = f"customer-{number}"
        chance = random.Random(number)  # noqa: S311 - a simulation, not a secret
        token, signed_at = self.token(subject), time.monotonic()
        session, left = "", 0
        count = 0
        await _pause(chance.random() * min(2.0, self.times.duration[1]), until)
        while not until.is_set():
            if time.monotonic() - signed_at > _TOKEN_SECONDS:
                token, signed_at = self.token(subject), time.monotonic()
            text = f"Where is my order? I am {subject}, this is question {count}."
            count += 1
            plan = plan_reply(self.seed, text, self.times)
            outcome = await self._turn(text, session if left else "", token, plan.text)
            heard(outcome, plan)
            left = left - 1 if left else self.turns - 1
            if outcome.error:
                left = 0
            session = outcome.session
            if self.think:
                await _pause(chance.random() * self.think, until)

    async def _turn(self, text: str, session: str, token: str, expected: str) -> Outcome:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[None] = loop.create_future()

        def report(_: Visit) -> None:
            if not answered.done():
                answered.set_result(None)

        endpoint = Endpoint.parse(self.url + "/v1/turns")
        visit = Visit(
            _request(endpoint, text, session, token),
            api="turns",
            arrived=loop.time(),
            expected=expected,
            report=report,
        )
        try:
            async with asyncio.timeout(self.seconds):
                await _connect(loop, visit, endpoint)
                await answered
        except TimeoutError:
            visit.fail("no answer in time")
        except OSError as error:
            visit.fail(f"cannot connect: {error.strerror or error}")
        return visit.outcome


def _connect(
    loop: asyncio.AbstractEventLoop, visit: Visit, endpoint: Endpoint
) -> Coroutine[Any, Any, object]:
    origin = endpoint.origin
    return loop.create_connection(partial(_itself, visit), origin.host, origin.port)


def _itself(visit: Visit) -> Visit:
    return visit


async def _pause(seconds: float, until: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await until.wait()
    except TimeoutError:
        return


def _request(endpoint: Endpoint, text: str, session: str, token: str) -> bytes:
    body: dict[str, object] = {"text": text, "stream": True}
    if session:
        body["session"] = session
    data = msgspec.json.encode(body)
    head = (
        f"POST {endpoint.target.decode()} HTTP/1.1\r\nhost: {endpoint.authority.decode()}\r\n"
        f"content-type: application/json\r\nauthorization: Bearer {token}\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data
