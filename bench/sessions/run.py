"""What a turn costs in DynamoDB, from the first turn of a session to the thousandth.

    .venv/bin/python bench/sessions/run.py [--quick]

Runs against DynamoDB Local, which `make setup` installs. Prints a table, and the figures as one
JSON line at the end. See README.md.
"""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.dynamodb_local import running_dynamodb
from tests.parts.dynamodb_local import missing
from tests.storage.stores import LocalClient, new_location

from seawall.aws.dynamodb_calls import Operation
from seawall.storage.dynamodb.store import DynamoDBStore
from seawall.storage.port import Begin, Commit
from seawall.turn import AssistantMessage, SessionKey, TurnRecord, Usage, UserMessage

T = TypeVar("T")

SHOWN = (1, 2, 10, 30, 100, 300, 1_000)
WINDOW = 20
QUESTION = "Where is my order? I have been waiting for it since last week, and nobody answers. " * 2
ANSWER = "Your order left our warehouse this morning and should be with you by Friday. " * 6


class Cost(Struct):
    """Of one turn, as its client and DynamoDB count.

    round_trips: those that wait for each other, as `Measured` finds them. requests: all of them.
    begin_units, commit_units: capacity that DynamoDB says it used. milliseconds: of CPU in this
    process.
    """

    turn: int
    round_trips: int
    requests: int
    bytes_sent: int
    bytes_received: int
    begin_units: float
    commit_units: float
    milliseconds: float


class Measured(LocalClient):
    """A client that finds out how many of its calls had to wait for each other.

    A call that begins after others have ended may have waited for them: it is one round trip
    further on than the furthest of those. Calls under way at the same time are not.
    """

    waited = 0

    async def call(self, operation: Operation[T], request: object, *, deadline: float) -> T:
        """Make the call; `waited` is then the longest row of calls, one after the other."""
        position = self.waited + 1
        try:
            return await super().call(operation, request, deadline=deadline)
        finally:
            self.waited = max(self.waited, position)


async def one(store: DynamoDBStore, client: Measured, number: int) -> Cost:
    """Run the store's part of one turn."""
    traffic = client.traffic
    client.waited = 0
    key = SessionKey("acme", "ada", "ses_bench")
    started = time.process_time()
    before = (traffic.round_trips, traffic.bytes_sent, traffic.bytes_received)
    units = traffic.capacity_units
    turn = f"trn_ses_bench.{number:032}"
    opened: float | None = None
    if number > 1:
        begin = Begin(key=key, turn=turn, turns=WINDOW, until=time.time() + 20)
        found = await store.begin(begin)
        assert found.session is not None
        assert found.session.version == number - 1
        assert len(found.turns) == min(number - 1, WINDOW)
        opened = found.session.created_at
    begun = traffic.capacity_units
    record = TurnRecord(
        id=turn,
        number=number,
        created_at=time.time(),
        agent="orders",
        intent="order_status",
        messages=(UserMessage(QUESTION), AssistantMessage(ANSWER)),
        usage=Usage(800, 120, 1),
    )
    commit = Commit(
        key=key,
        expected_version=number - 1,
        turn=record,
        agent="orders",
        state={"customer": "ada_1"},
        expires_at=time.time() + 86_400,
        opened_at=opened,
    )
    await store.commit(commit)
    return Cost(
        number,
        client.waited,
        traffic.round_trips - before[0],
        traffic.bytes_sent - before[1],
        traffic.bytes_received - before[2],
        round(begun - units, 1),
        round(traffic.capacity_units - begun, 1),
        round((time.process_time() - started) * 1e3, 3),
    )


async def main(endpoint: str, turns: int) -> list[Cost]:
    """One session of so many turns."""
    client = Measured(endpoint, capacity=True)
    store = DynamoDBStore(client, new_location("dynamodb"), create=True)
    await store.open()
    costs = [await one(store, client, number) for number in range(1, turns + 1)]
    await client.close()
    return costs


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="a hundred turns only")
    quick = parser.parse_args().quick
    if reason := missing():
        sys.exit(reason)
    sys.stderr.write("starting DynamoDB Local ...\n")
    with running_dynamodb() as url:
        found = asyncio.run(main(url, 100 if quick else 1_000))
    names = Cost.__struct_fields__
    sys.stdout.write("  ".join(f"{name:>14}" for name in names) + "\n")
    for cost in found:
        if cost.turn in SHOWN:
            sys.stdout.write("  ".join(f"{getattr(cost, name):>14}" for name in names) + "\n")
    later = found[WINDOW + 1 :]
    figures = {
        "turns": len(found),
        "round_trips": sorted({cost.round_trips for cost in later}),
        "requests": sorted({cost.requests for cost in later}),
        "bytes_sent": [min(c.bytes_sent for c in later), max(c.bytes_sent for c in later)],
        "bytes_received": [
            min(c.bytes_received for c in later),
            max(c.bytes_received for c in later),
        ],
        "units": [
            sorted({cost.begin_units for cost in later}),
            sorted({cost.commit_units for cost in later}),
        ],
        "cpu_ms_median": sorted(cost.milliseconds for cost in later)[len(later) // 2],
    }
    sys.stdout.write(json.dumps(figures) + "\n")
