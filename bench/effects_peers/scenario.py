"""What all drivers share: the model's script, the refund's request and the points of interruption.

The model is the same for all, behind each framework's own model port. It rewords what it asks when
the turn is attempted again: other call ids, order of keys, reason, and order of calls.
"""

import os
import signal
import urllib.request
from json import dumps

POINT = os.environ["POINT"]
ATTEMPT = int(os.environ["ATTEMPT"])
KEYED = os.environ["KEYED"] == "1"
RUN = os.environ["RUN"]
QUESTION = "Please refund order 7."
ANSWER = "Order 7 is refunded."


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
