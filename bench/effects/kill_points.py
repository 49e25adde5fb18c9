"""Kill points of a server process: the places at which it kills or stops itself, by a plan.

A plan names points, each with the number of the call at which it acts: `{"commit:before": 2}`. The
supervisor of the harness gives every process its plan in the environment, and reads what happened
from a file to which the process appends a line before it acts.
"""

import json
import os
import signal
import time
from collections import Counter

import msgspec
from msgspec import Struct

__all__ = ["KILLS", "PLAN", "SERVER", "Kill", "hit"]

PLAN = "EFFECTS_PLAN"
KILLS = "EFFECTS_KILLS"
SERVER = "EFFECTS_SERVER"


class Kill(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A process that was killed or stopped.

    Attributes:
        server: Its number.
        point: Where; or "random" and "sigterm", by the supervisor.
        at: Unix seconds.
        action: "kill" or "stop".
        session: Of the turn whose call it was; empty if unknown.
        key: The turn's idempotency key; empty for none.
        op: The operation, at an effect.
        recorded: At the end of a journal write, the operations whose outcomes it recorded.
    """

    server: int
    point: str
    at: float
    action: str = "kill"
    session: str = ""
    key: str = ""
    op: str = ""
    recorded: tuple[str, ...] = ()


_plan: dict[str, list[object]] = json.loads(os.environ.get(PLAN, "{}"))
_calls: Counter[str] = Counter()


def hit(
    point: str,
    *,
    session: str = "",
    key: str = "",
    op: str = "",
    recorded: tuple[str, ...] = (),
) -> None:
    """A call reached a point; the process acts here if this is in its plan.

    Args:
        point: Its name.
        session: Of the turn.
        key: The turn's idempotency key.
        op: The operation.
        recorded: Operations whose outcomes are durable now.
    """
    planned = _plan.get(point)
    if planned is None:
        return
    _calls[point] += 1
    nth, action = planned
    if _calls[point] != nth:
        return
    kill = Kill(
        server=int(os.environ[SERVER]),
        point=point,
        at=time.time(),
        action=str(action),
        session=session,
        key=key,
        op=op,
        recorded=recorded,
    )
    log = os.open(os.environ[KILLS], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(log, msgspec.json.encode(kill) + b"\n")
    os.close(log)
    if action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
        return
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()
