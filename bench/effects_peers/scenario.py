"""What all drivers share: the model's script, the refund's request and the points of interruption.

The model is the same for all, behind each framework's own model port. It rewords what it asks when
the turn is attempted again: other call ids, order of keys, reason, and order of calls.
"""

import asyncio
import os
import signal
import time
import urllib.request
from collections.abc import Awaitable, Callable
from json import dumps

POINT = os.environ["POINT"]
ATTEMPT = int(os.environ["ATTEMPT"])
KEYED = os.environ["KEYED"] == "1"
RUN = os.environ["RUN"]
QUESTION = "Please refund order 7."
ANSWER = "Order 7 is refunded."
COST = POINT == "cost"
"""Whether turns are measured, without interruption."""


class ModelDied(Exception):
    """The model's provider answered with status 500."""


def interrupt(point: str) -> None:
    """Kill this process at its point, in the first attempt."""
    if ATTEMPT == 1 and point == POINT:
        os.kill(os.getpid(), signal.SIGKILL)


def next_call(done: set[str]) -> tuple[str, str, str] | None:
    """Id, tool and arguments of the next call; None to answer.

    Args:
        done: The tools with an outcome in the messages that the model is shown.
    """
    if "refund_order" in done:
        interrupt("recorded")
        if ATTEMPT == 1 and POINT == "model_dies":
            raise ModelDied
        return None
    if ATTEMPT == 1 and "get_order" not in done:
        return "call_1", "get_order", dumps({"order": "7"})
    if ATTEMPT == 1:
        return "call_2", "refund_order", dumps({"order": "7", "reason": "damaged"})
    return "call_a", "refund_order", dumps({"reason": "arrived broken", "order": "7"})


def refund(reason: str, key: str) -> str:
    """Ask the service for the refund."""
    interrupt("before")
    headers = {"Idempotency-Key": key} if KEYED else {}
    body = dumps({"run": RUN, "reason": reason}).encode()
    request = urllib.request.Request(os.environ["SERVICE"], body, headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        answer = response.read().decode()
    interrupt("made")
    return answer


async def measure(turn: Callable[[str], Awaitable[str]]) -> None:
    """Print the processor time of a turn of this process in milliseconds, with AT_ONCE in flight.

    Args:
        turn: Runs a turn of its own session, named by the argument; its answer. The first turns, a
            few at once, do not count.
    """

    async def run(count: int, at_once: int, name: str) -> float:
        left = iter(range(count))

        async def one_after_the_other() -> None:
            for number in left:
                if await turn(f"{name}-{number}") != ANSWER:
                    raise SystemExit("a turn has another answer")

        began = time.process_time()
        await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
        return (time.process_time() - began) / count * 1e3

    turns, at_once = int(os.environ["TURNS"]), int(os.environ["AT_ONCE"])
    await run(at_once, 4, f"{RUN}-warm")
    print(await run(turns, at_once, RUN))
