"""Servers killed before and after every write and effect of a turn: each refund is made once.

The small form of `bench/effects`, with a kill at each point of a turn with three effects: at one
of the first, of the second, or of the third. In `make test` each store has half of the points.
"""

import asyncio
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bench.effects.check import Evidence, Turn, check
from bench.effects.ledger import read_log
from bench.effects.servers import ROOT, Plan, Server, kill_points, read_kills, service
from bench.effects.traffic import Clients, read_back
from bench.effects.wishes import TOOLS, Operation, Wish, render

from tests.dynamodb_local import ENVIRONMENT
from tests.fork_server import start
from tests.properties import rotated
from tests.storage.stores import NAMES, new_location

OF_A_TURN = ("effect:", "journal.begin:", "journal.outcome:", "journal.completed:")
AT_ONCE = 3
# As `python -m` with these arguments.
PROGRAM = """
import runpy, sys
sys.argv = {words}
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


class ForkedServer(Server):
    """A server that is forked from a process that has imported what it needs."""

    @contextmanager
    def running(self, plan: Plan) -> Iterator[Callable[[], bytes]]:
        """Run it with kill points; yields what returns when it is ready, or has ended."""
        (_, _, *words), environment = self._command(plan)
        program = PROGRAM.format(words=words)
        with self._log.open("ab") as errors:
            process = start(["-c", program], environment, ROOT, errors.fileno())
        assert process.stdout is not None
        try:
            yield process.stdout.readline
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


@pytest.fixture
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    settings = {"SESSIONS__PATH": str(tmp_path / "sessions.db")}
    if request.param == "dynamodb":
        settings = {
            "SESSIONS__STORE": "dynamodb",
            "SESSIONS__TABLE": new_location("dynamodb"),
            "SESSIONS__ENDPOINT": request.getfixturevalue("dynamodb"),
            "SESSIONS__CREATE_TABLE": "true",
        }
    with (
        service("bench.effects.ledger", str(tmp_path / "ledger.db")) as ledger,
        service("bench.effects.model", "1") as model,
    ):
        settings |= {"TOOLS__REFUNDS__LEDGER": ledger, "MODELS__DEFAULT__BASE_URL": model}
        yield {
            **ENVIRONMENT,
            **{f"SEAWALL_{name}": value for name, value in settings.items()},
            "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        }


def new_turn(number: int, session: str) -> Turn:
    operations = tuple(
        Operation(op=f"op-{number}-{at}", order=f"O-{at}", amount=12.5, tool=tool)
        for at, tool in enumerate(TOOLS)
    )
    asked = Wish(operations=operations)
    return Turn(
        wish=asked,
        text=render(asked),
        mode="keyed",
        key=f"turn-{number}",
        within=session,
        session=session,
    )


@pytest.mark.parametrize(("environment", "part"), rotated(NAMES), indirect=["environment"])
async def test_each_refund_is_made_once(
    environment: dict[str, str], part: int, tmp_path: Path
) -> None:
    kills, log = tmp_path / "kills", tmp_path / "server.log"
    points = [each for each in kill_points() if each.startswith(OF_A_TURN)][part :: len(NAMES)]
    spare = ForkedServer(0, environment, kills=kills, log=log)
    victims = [ForkedServer(1 + at, environment, kills=kills, log=log) for at in range(len(points))]
    urls = [each.url for each in (spare, *victims)]
    attacked = Clients(urls, turns=0, chance=random.Random(1), modes={})
    clients = Clients([spare.url], turns=0, chance=random.Random(2), modes={})
    slots = asyncio.Semaphore(AT_ONCE)

    async def attack(at: int) -> None:
        number = part + at * len(NAMES)
        turn = new_turn(number, await clients.greet())
        nth = 1 if points[at].startswith("journal.completed") else 1 + number % len(TOOLS)
        async with slots:
            with victims[at].running({points[at]: (nth, "kill")}) as ready:
                await asyncio.to_thread(ready)
                outcome = await attacked.attempt(turn, victims[at].url)
                assert outcome == "connection", (points[at], nth)
        await clients.send(turn)
        if not turn.turn and turn.wish is not None:
            await clients.ask_again(turn.wish, turn.session)

    with spare.running({}) as ready:
        assert await asyncio.to_thread(ready), log.read_text()
        async with asyncio.TaskGroup() as group:
            for at in range(len(points)):
                group.create_task(attack(at))
        sessions, effects = await read_back(spare.url, clients.turns)
    await attacked.close()
    await clients.close()
    evidence = Evidence(
        turns=clients.turns,
        refunds=read_log(tmp_path / "ledger.db"),
        sessions=sessions,
        effects=effects,
        kills=read_kills(kills),
    )
    assert sorted(each.point for each in evidence.kills) == sorted(points)
    assert check(evidence) == []
